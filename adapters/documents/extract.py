"""Extracts text from files, in child processes that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import IO, Any, Self

import adapters
from adapters.documents.formats.child import REPLY, REQUEST
from adapters.documents.formats.kinds import contained, kind_of
from adapters.documents.formats.plugins import Plugin, installed
from handlers.ports.documents import Block, Text, Unreadable

USES = 500
"""Number of files that a child reads before a new child replaces it."""

LAST_WORDS = 4096
"""Number of bytes of a child's standard error that are read."""

SUPPORTED = "PDF, Word, PowerPoint, a spreadsheet, CSV, JSON, EPUB, HTML, Markdown or text"

_OUT_OF_MEMORY = (b"memory allocation of", b"bad_alloc")
"""Messages of Rust and C++ before they abort the process."""


class FileExtractor:
    """An Extractor of PDF, Office documents, spreadsheets, CSV, JSON, EPUB, HTML, Markdown and text, and of formats of
    installed plug-ins.

    At most `children` processes; each may use `memory` bytes of address space, and `seconds` for a file, unless its
    plug-in has limits of its own. Raises: BrokenPlugin.
    """

    def __init__(self, *, children: int = 2, seconds: float = 120.0, memory: int = 2**30) -> None:
        self._children = children
        self._seconds = seconds
        self._memory = memory
        self._free = asyncio.Semaphore(children)
        self._plugins = installed()
        self.idle: list[Child] = []

    async def extract(self, data: bytes, media_type: str, name: str) -> Text:
        plugin = next((plugin for plugin in self._plugins if plugin.takes(media_type, name)), None)
        kind = kind_of(media_type, name)
        if plugin is None and kind is None and not contained(data):
            given = media_type or name.rpartition("/")[2] or "nothing"
            raise Unreadable("unsupported_type", f"No text can be extracted from {given}: send {SUPPORTED}.")
        head = {"kind": kind, "plugin": plugin and plugin.name, "media_type": media_type, "name": name}
        async with self._free:
            reply = await self._reply(plugin, json.dumps(head).encode(), data)
        return await asyncio.to_thread(_text, reply)

    async def _reply(self, plugin: Plugin | None, head: bytes, data: bytes) -> bytes:
        seconds = (plugin and plugin.seconds) or self._seconds
        while True:
            child = self._idle(plugin) or await self._start(plugin, seconds)
            fresh = child.uses == 0
            try:
                async with asyncio.timeout(seconds):
                    reply = await child.ask(head, data)
            except TimeoutError:
                raise Unreadable("too_slow", f"The file took longer than {seconds:g} s to read.") from None
            except (OSError, asyncio.IncompleteReadError):
                status = await child.kill()
                if fresh:
                    raise _crash(status, child.said) from None
            else:
                if child.uses < USES:
                    self.idle.append(child)
                return reply
            finally:
                if child not in self.idle:
                    await child.kill()

    def _idle(self, plugin: Plugin | None) -> Child | None:
        """An idle child for files of this plug-in, or for those without a plug-in."""
        found = next((child for child in reversed(self.idle) if child.plugin == plugin), None)
        if found:
            self.idle.remove(found)
        return found

    async def _start(self, plugin: Plugin | None, seconds: float) -> Child:
        if len(self.idle) >= self._children:
            await self.idle.pop(0).kill()
        memory = self._memory if plugin is None or plugin.memory == 0 else plugin.memory or 0
        return await Child.start(plugin, memory, seconds)

    async def close(self) -> None:
        while self.idle:
            await self.idle.pop().kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Child:
    """A process that reads one file after the other, with standard error in the file `errors`."""

    def __init__(self, process: Process, plugin: Plugin | None, errors: IO[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._errors = errors
        self.plugin = plugin
        self.uses = 0
        self.said = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, plugin: Plugin | None, memory: int, seconds: float) -> Self:
        """`memory` in bytes; 0 for no limit."""
        roots = [str(Path(adapters.__path__[0]).parent), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "adapters.documents.formats.child", str(memory), str(int(seconds) + 1)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, roots)), "RUST_BACKTRACE": "0"}
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the child is gone
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=errors, env=environment
        )
        return cls(process, plugin, errors)

    async def ask(self, head: bytes, data: bytes) -> bytes:
        """Raises: OSError or IncompleteReadError when the child has died."""
        self.uses += 1
        self._stdin.write(REQUEST.pack(len(head), len(data)))
        self._stdin.write(head)
        self._stdin.write(data)
        await self._stdin.drain()
        (size,) = REPLY.unpack(await self._stdout.readexactly(REPLY.size))
        return await self._stdout.readexactly(size)

    async def kill(self) -> int:
        """End the child, if it has not ended. Return its status; `said` is then its last output on standard error."""
        if self._process.returncode is None:
            self._process.kill()
        status = await self._process.wait()
        if not self._errors.closed:
            self._errors.seek(max(self._errors.seek(0, os.SEEK_END) - LAST_WORDS, 0))
            self.said = self._errors.read()
            self._errors.close()
        return status


def _crash(status: int, said: bytes) -> Unreadable:
    if status == -signal.SIGXCPU:
        return Unreadable("too_slow", "The file took too much processor time to read.")
    if any(words in said for words in _OUT_OF_MEMORY):
        return Unreadable("too_large", "The file takes more memory to read than it may.")
    return Unreadable("broken_file", f"Reading the file ended the reader ({_ending(status)}): it is damaged.")


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def _text(reply: bytes) -> Text:
    document: dict[str, Any] = json.loads(reply)
    if "code" in document:
        raise Unreadable(document["code"], document["message"])
    return Text([Block(*piece) for piece in document["pieces"]], document["pages"], document["title"])
