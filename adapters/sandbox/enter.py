"""The first program of every contained process: its arguments are RULES, a PROGRAM and its arguments.

It takes privileges away from itself, as RULES say, and executes the program. RULES is JSON: `limits` (pairs of a name
of `resource`, without `RLIMIT_`, and a hard limit), `user` (its user and group; null: the present ones), `forks` (it
may start processes), `listens` (the port of TCP that it may listen on; null: none), `parent` (the process without which
it ends; null: none), `readable` and `writable` (paths; null: all), `sockets` (it may open
sockets), `permissions` (it may set permissions of its files).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

from adapters.sandbox import landlock, seccomp

_SET_PARENT_DEATH_SIGNAL, _DROP_BOUNDING = 1, 24
_CAPABILITIES = 64
_VERSION_3 = 0x20080522
"""Version of the interface to capabilities."""


def main() -> None:
    rules: dict[str, Any] = json.loads(sys.argv[1])
    for name, most in rules["limits"]:
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            # The soft limit of processor time sends SIGXCPU, the hard one kills.
            with suppress(*([] if sys.platform == "linux" else [OSError, ValueError])):
                resource.setrlimit(number, (most - 1 if name == "CPU" else most, most))
    if sys.platform == "linux":
        _give_up(rules)
    os.execv(sys.argv[2], sys.argv[2:])


def _give_up(rules: dict[str, Any]) -> None:
    if rules["user"] is not None:
        os.setgroups([])
        os.setresgid(rules["user"], rules["user"], rules["user"])
        os.setresuid(rules["user"], rules["user"], rules["user"])
    elif os.geteuid() == 0:
        _drop_capabilities()
    if rules["parent"] is not None:
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != rules["parent"]:
            sys.exit("The process that started this one has ended.")
    seccomp.no_new_privileges()
    if rules["readable"] is not None and landlock.version():
        landlock.restrict(rules["readable"], rules["writable"], rules["listens"], sockets=rules["sockets"])
    if seccomp.supported():
        rights = {"sockets": rules["sockets"], "permissions": rules["permissions"]}
        seccomp.restrict(forks=rules["forks"], listens=rules["listens"] is not None, **rights)


def _drop_capabilities() -> None:
    """A root without capabilities owns its files, and nothing more."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(_CAPABILITIES):
        libc.prctl(_DROP_BOUNDING, number, 0, 0, 0)
    head, none = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(head, none):
        error = ctypes.get_errno()
        raise OSError(error, f"capset: {os.strerror(error)}")


if __name__ == "__main__":
    main()
