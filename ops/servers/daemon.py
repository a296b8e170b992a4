"""A process that outlives its parent; other processes find and stop it by its pid file."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from adapters.privacy.masters import owners, replace
from ops import machine

CLOCK_SLACK = 5.0
"""Tolerance for the start time of a process when the clock is adjusted, in seconds."""

LOG_LIMIT, LOGS_KEPT = 16 * 2**20, 2
"""Size in bytes above which a log is rotated, and the number of earlier logs that are kept."""


class StartFailed(Exception):
    """A server did not start; the message ends with the last lines of its log."""


def rotate(log: Path, limit: int = LOG_LIMIT, kept: int = LOGS_KEPT) -> bool:
    """Move the contents of a log that exceeds `limit` bytes to `<log>.1`, earlier ones to `.2` and so on up to `kept`.

    Its process may run: it goes on with the same file. What it writes at this moment may be lost. On a full disk,
    the log stays as it is. Return whether it was rotated.
    """
    files = [log.with_name(f"{log.name}.{number}") for number in range(1, kept + 1)]
    try:
        if log.stat().st_size <= limit:
            return False
        for earlier, later in reversed([*pairwise(files)]):
            if earlier.exists():
                earlier.replace(later)
        if files:
            with log.open("rb") as source, open(files[0], "wb", opener=owners) as target:
                shutil.copyfileobj(source, target, 2**20)
        os.truncate(log, 0)
    except FileNotFoundError:
        return False
    except OSError:
        with suppress(IndexError, OSError):
            files[0].unlink()
        return False
    return True


@dataclass
class Daemon:
    """A process of a home: its pid file is `run/<name>.pid`, its log `log/<name>.log`."""

    home: Path
    name: str
    stop_signal: signal.Signals = signal.SIGTERM
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _begun: int = field(default=0, init=False, repr=False)
    """Bytes that the log had when the process was started."""

    @property
    def pid_file(self) -> Path:
        return self.home / "run" / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.home / "log" / f"{self.name}.log"

    def process(self) -> psutil.Process | None:
        """The running process; None when it is gone or its pid now belongs to another program."""
        process = self._recorded()
        if process is None and self._child is not None and self._child.poll() is not None:
            self._child = None
        return process

    def _recorded(self) -> psutil.Process | None:
        try:
            record = json.loads(self.pid_file.read_text("utf-8"))
            process = psutil.Process(int(record["pid"]))
            same = (
                abs(process.create_time() - record["created"]) < CLOCK_SLACK
                and process.exe() == record["executable"]
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except (OSError, ValueError, TypeError, KeyError, psutil.Error):
            return None
        return process if same else None

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, user: tuple[int, int] | None = None
    ) -> None:
        """Start `command` in a session of its own, as `user` (uid, gid) when given."""
        for folder in (self.pid_file.parent, self.log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        rotate(self.log)
        if self._child is not None:
            self._child.wait()
        identity: dict[str, Any] = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
        with open(self.log, "ab", opener=owners) as log:
            os.fchmod(log.fileno(), 0o600)  # of an earlier version, it may be readable by others
            self._begun = log.seek(0, os.SEEK_END)
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/" if user else None,
                env=env,
                start_new_session=True,
                umask=0o077,  # NATS rotates its log itself
                **identity,
            )
        self._child = child
        try:
            noted = self._note(child.pid)
        except OSError:
            child.kill()  # no other process would find it
            child.wait()
            raise
        if not noted:
            child.kill()
            child.wait()
            raise self.failure("ended while it started")

    def claim(self) -> None:
        """Write the calling process to the pid file."""
        self.pid_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._note(os.getpid())

    def _note(self, pid: int) -> bool:
        """Write the pid file; False when the process has ended already."""
        try:
            process = psutil.Process(pid)
            record = {"pid": pid, "created": process.create_time(), "executable": process.exe()}
        except psutil.Error:
            return False
        if not record["executable"]:
            return False
        replace(self.pid_file, json.dumps(record))
        return True

    async def stop(self, within: float = 30.0) -> bool:
        """Stop the process, with SIGKILL after `within` seconds. Return False when it was not running."""
        process = self.process()
        if process is not None:
            process.send_signal(self.stop_signal)
            if not await self._ended(process, within):
                process.kill()
                await self._ended(process, within)
        if self._child is not None:
            await asyncio.to_thread(self._child.wait)
            self._child = None
        with suppress(OSError):  # on a read-only disk it stays, and names no process
            self.pid_file.unlink()
        return process is not None

    async def _ended(self, process: psutil.Process, within: float) -> bool:
        child = self._child
        try:
            await asyncio.to_thread(process.wait if child is None else child.wait, within)
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            return False
        return True

    def failure(self, what: str) -> StartFailed:
        """An error about this server, with the fault of the machine if its log names one, and the tail of the log."""
        tail = self.tail(begun=self._begun) or self.tail()
        fault = machine.cause(tail)
        return StartFailed(f"{self.name} {what}{fault and f': {fault}'}. The end of {self.log}:\n{tail}")

    def complaint(self) -> str:
        """The sentence that a command of ours ended with since it was started, and what follows it; empty if none."""
        lines = self.tail(1000, self._begun).splitlines()
        begins = [number for number, line in enumerate(lines) if line.startswith("✗ ")]
        return "\n".join(lines[begins[-1] :]).removeprefix("✗ ") if begins else ""

    def last_line(self) -> str:
        """The last line of its log since it was started: the sentence that it ended with, if there is one."""
        if said := self.complaint():
            return said.partition("\n")[0].strip()
        lines = [line.strip() for line in self.tail(1000, self._begun).splitlines() if line.strip()]
        line = lines[-1] if lines else ""
        try:
            noted = json.loads(line)
            return f"its log ends with: {noted['event']} {noted.get('reason', '')}".strip()
        except (ValueError, TypeError, KeyError):
            return line

    def tail(self, lines: int = 12, begun: int = 0) -> str:
        """The last lines of its log, of those after the first `begun` bytes."""
        try:
            with self.log.open("rb") as log:
                size = os.fstat(log.fileno()).st_size
                log.seek(max(begun if begun <= size else 0, size - 8192))  # it was rotated if it is smaller
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"
