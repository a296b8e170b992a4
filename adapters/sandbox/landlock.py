"""Landlock: a process that sees only some folders, also where namespaces are off."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from stat import S_ISDIR

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH, _PORT = 1, 1, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE

_RIGHTS = ((5, 16), (3, 15), (2, 14), (1, 13))
"""Version of the kernel's interface, and its number of rights to files."""

_NETWORK, _BIND, _SCOPES = 0b11, 0b01, 0b11
"""TCP, and of that to listen, since version 4; abstract sockets and signals, since version 6."""


def version() -> int:
    """The version of the kernel's interface; 0: there is none."""
    try:
        return _call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    except (OSError, AttributeError):
        return 0


def restrict(
    readable: Sequence[str], writable: Sequence[str], listens: int | None = None, *, sockets: bool = False
) -> None:
    """Refuse this process, and what it executes, everything but reading and writing these. Missing ones are skipped.

    `listens` is a port that it may listen on; with `sockets`, the network is not restricted. Raises: OSError.
    """
    known = version()
    rights = (1 << next(count for since, count in _RIGHTS if known >= since)) - 1
    handled = struct.pack("QQQ", rights, _NETWORK if known >= 4 and not sockets else 0, _SCOPES if known >= 6 else 0)
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    rules = _call(_CREATE_RULESET, handled, size, 0)
    for paths, granted in ((readable, _EXECUTE | _READ_FILE | _READ_DIR), (writable, rights & ~_EXECUTE)):
        for path in paths:
            _grant(rules, path, granted & rights)
    if listens is not None and known >= 4 and not sockets:
        _call(_ADD_RULE, rules, _PORT, struct.pack("QQ", _BIND, listens), 0)
    _call(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _grant(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not S_ISDIR(os.fstat(place).st_mode):
        rights &= _OF_FILES
    _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    os.close(place)


def _call(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock {number}: {os.strerror(error)}")
    return result
