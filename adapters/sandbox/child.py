"""A contained process: its limits, its pipes, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self

import adapters
import domain
import handlers

LAST_WORDS = 4096
"""Number of bytes of a child's standard error that are kept."""

CORES = os.cpu_count() or 1

RUN = str(Path(__file__).with_name("run.py"))
"""The script that runs a module of this code."""

_BUFFER = 2**20

_DRAIN_S = 5.0
_LOOKS_S = 0.005

_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
"""Libraries of the system; missing ones are skipped."""

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

NETWORK = tuple(Path(path) for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki"))
"""Files that connections by name, and with TLS, need."""


class Limits(NamedTuple):
    """Hard limits of a process: it cannot raise them."""

    memory: int | None = 2**30
    """Bytes of address space; None: no limit."""

    cpu_s: int = 240
    """Processor time of its life, in seconds."""

    file: int = 2**20
    """Size of a file that it writes, and of its standard error, in bytes."""

    files: int = 64
    """Open files."""

    tasks: int = 64
    """Processes and threads together, where they can be counted: not for the user of other processes."""

    forks: bool = False
    """True if it may start processes."""

    scratch: int = 0
    """Size of the folder `TMPDIR`, in bytes; 0: it has no folder to write to."""

    network: bool = False
    """True if it may open connections, to any address."""


class Rights(NamedTuple):
    """Rights of a process in addition to those of every contained one."""

    variables: Mapping[str, str] = {}
    """Further variables of its environment."""

    sockets: bool = False
    """True if it may open sockets: where there are namespaces, in a network of its own that leads nowhere."""

    descriptors: Sequence[int] = ()
    """Descriptors that it inherits."""

    errors: bool = False
    """True if its standard error is a pipe, `stderr`, that its starter reads, and no file."""

    writable: Path | None = None
    """An empty folder that it may fill; it may also set permissions of files that are its own."""


class Ending(NamedTuple):
    """The status of a process that has ended, negative for a signal, and its last output on standard error."""

    status: int
    said: bytes


NO_RIGHTS = Rights()


class Sandbox(Protocol):
    """A way to contain processes."""

    kind: str
    """Name of the way."""

    async def start(
        self, program: Sequence[str], limits: Limits, readable: Iterable[Path] = (), rights: Rights = NO_RIGHTS
    ) -> Child:
        """Start a program, by its path and arguments, that sees these paths, Python, and this package's code.

        It has an empty environment, pipes for standard input and output, no other descriptor, no network, and ends
        with the process that started it; `rights` may give it more. Raises: OSError.
        """
        ...


class Child:
    """A contained process, with standard error in a file, or in the pipe `stderr`."""

    def __init__(
        self,
        process: Process,
        errors: IO[bytes] | None,
        forks: bool,
        scratch: tempfile.TemporaryDirectory[str] | None,
    ) -> None:
        assert process.stdin
        assert process.stdout
        self._process = process
        self._errors = errors
        self._forks = forks
        self._scratch = scratch
        self._ending: Ending | None = None
        self.stdin: StreamWriter = process.stdin
        self.stdout: StreamReader = process.stdout
        self.stderr: StreamReader | None = process.stderr

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        forks: bool,
        scratch: tempfile.TemporaryDirectory[str] | None = None,
        rights: Rights = NO_RIGHTS,
    ) -> Self:
        """Start a command in a process group of its own; `forks`: others may be in it."""
        errors = None if rights.errors else tempfile.TemporaryFile()  # noqa: SIM115  # until the child is gone
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors or PIPE,
                env={**environment, **rights.variables},
                cwd="/",
                start_new_session=True,
                limit=_BUFFER,
                pass_fds=rights.descriptors,
            )
        except BaseException:
            if errors:
                errors.close()
            raise
        return cls(process, errors, forks, scratch)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def end(self) -> Ending:
        """Kill the process group, and wait for the process."""
        if self.alive or (self._forks and self._ending is None):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        # Not by `wait`: that returns only when the pipes are closed, and a full one is not before it is read.
        while (status := self._process.returncode) is None:
            await asyncio.sleep(_LOOKS_S)
        if self._ending is None:
            # A pipe is closed only when all of it was read.
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    while await self.stdout.read(_BUFFER):
                        pass
        if self._ending is None:
            said = b""
            if self._errors:
                self._errors.seek(max(self._errors.seek(0, os.SEEK_END) - LAST_WORDS, 0))
                said = self._errors.read()
                self._errors.close()
            # A shell and bubblewrap report a signal as a status.
            self._ending = Ending(128 - status if 128 < status < 128 + signal.NSIG else status, said)
            self.stdin.close()
            if self._scratch:
                self._scratch.cleanup()
        return self._ending


def python(module: str, *arguments: str) -> list[str]:
    """A program: a module of this code, run by this Python."""
    return [sys.executable, "-P", RUN, module, *arguments]


def environment(**further: str) -> dict[str, str]:
    """The whole environment of a contained process; clock, language and order of sets are the same everywhere."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "RUST_BACKTRACE": "0",
        "RAYON_NUM_THREADS": str(min(CORES, 4)),  # each thread reserves address space
        "MALLOC_ARENA_MAX": "2",
        **further,
    }


def visible(readable: Iterable[Path], *, network: bool = False) -> list[str]:
    """The paths that a contained process sees: the system's libraries, Python, this code, and `readable`.

    Of this code only its packages: the folder above them may be one with data and keys.
    """
    interpreter = Path(sys.executable)
    paths = [
        *(Path(path) for path in _SYSTEM),
        *(Path(prefix) for prefix in (sys.base_prefix, sys.prefix)),
        Path(sys.base_prefix).resolve(),
        interpreter.resolve().parent,
        *(Path(package.__path__[0]) for package in (adapters, handlers, domain)),
        *(NETWORK if network else ()),
        *readable,
    ]
    return list(dict.fromkeys(str(path) for path in paths if path.exists()))


def entrance(
    limits: Limits,
    *,
    user: int | None,
    counted: bool,
    parent: int | None = None,
    readable: Sequence[str] | None = None,
    writable: Sequence[str] = (),
    listens: int | None = None,
    rights: Rights = NO_RIGHTS,
) -> list[str]:
    """The command that gives up privileges and then executes what follows it; see `enter`."""
    hard = {
        "CORE": 0,
        "AS": limits.memory,
        "CPU": limits.cpu_s,
        "FSIZE": max(limits.file, limits.scratch),
        "NOFILE": limits.files,
        "NPROC": limits.tasks if counted else None,
        "MSGQUEUE": 0,
        "MEMLOCK": 0,
    }
    rules: dict[str, Any] = {
        "limits": [(name, most) for name, most in hard.items() if most is not None],
        "user": user,
        "forks": limits.forks,
        "listens": listens,
        "sockets": rights.sockets or limits.network,
        "permissions": rights.writable is not None,
        "parent": parent,
        "readable": readable,
        "writable": writable,
    }
    return [sys.executable, "-S", "-P", RUN, "adapters.sandbox.enter", json.dumps(rules)]
