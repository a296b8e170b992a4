"""Extracts text from files, in child processes that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import adapters
from adapters.formats.child import REPLY, REQUEST
from adapters.formats.kinds import Kind, kind_of
from handlers.ports import Block, Text, Unreadable

USES = 500
"""Files that a child reads before a fresh one takes its place."""


class FileExtractor:
    """An Extractor of text, Markdown, HTML and PDF.

    At most `children` processes; each may use `memory` bytes of address space, and `seconds` for a file.
    """

    def __init__(self, *, children: int = 2, seconds: float = 120.0, memory: int = 2**30) -> None:
        self._seconds = seconds
        self._memory = memory
        self._free = asyncio.Semaphore(children)
        self.idle: list[Child] = []

    async def extract(self, data: bytes, media_type: str, name: str) -> Text:
        kind = kind_of(media_type, name)
        if kind is None:
            told = media_type or name.rpartition("/")[2] or "nothing"
            raise Unreadable("unsupported_type", f"No text can be had from {told}: send text, Markdown, HTML or PDF.")
        async with self._free:
            reply = await self._reply(kind, data)
        return await asyncio.to_thread(_text, reply)

    async def _reply(self, kind: Kind, data: bytes) -> bytes:
        while True:
            child = self.idle.pop() if self.idle else await Child.start(self._memory, self._seconds)
            fresh = child.uses == 0
            try:
                async with asyncio.timeout(self._seconds):
                    reply = await child.ask(kind, data)
            except TimeoutError:
                raise Unreadable("too_slow", f"The file took longer than {self._seconds:g} s to read.") from None
            except (OSError, asyncio.IncompleteReadError):
                status = await child.kill()
                if fresh:
                    raise _crash(status) from None
            else:
                if child.uses < USES:
                    self.idle.append(child)
                return reply
            finally:
                if child not in self.idle:
                    await child.kill()

    async def close(self) -> None:
        while self.idle:
            await self.idle.pop().kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Child:
    """A process that reads one file after the other."""

    def __init__(self, process: Process) -> None:
        assert process.stdin
        assert process.stdout
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.uses = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, memory: int, seconds: float) -> Self:
        root = str(Path(adapters.__path__[0]).parent)
        command = [sys.executable, "-P", "-m", "adapters.formats.child", str(memory), str(int(seconds) + 1)]
        environment = {**os.environ, "PYTHONPATH": root}
        return cls(
            await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment)
        )

    async def ask(self, kind: Kind, data: bytes) -> bytes:
        """Raises: OSError or IncompleteReadError when the child has died."""
        self.uses += 1
        self._stdin.write(REQUEST.pack(kind.ljust(16).encode(), len(data)))
        self._stdin.write(data)
        await self._stdin.drain()
        (size,) = REPLY.unpack(await self._stdout.readexactly(REPLY.size))
        return await self._stdout.readexactly(size)

    async def kill(self) -> int:
        """End the child, if it has not ended; returns its status."""
        if self._process.returncode is None:
            self._process.kill()
        return await self._process.wait()


def _crash(status: int) -> Unreadable:
    if status == -signal.SIGXCPU:
        return Unreadable("too_slow", "The file took too much processor time to read.")
    return Unreadable("broken_file", f"Reading the file ended the reader ({_ending(status)}): it is damaged.")


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def _text(reply: bytes) -> Text:
    document: dict[str, Any] = json.loads(reply)
    if "code" in document:
        raise Unreadable(document["code"], document["message"])
    return Text([Block(*piece) for piece in document["pieces"]], document["pages"], document["title"])
