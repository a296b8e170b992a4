"""Extracts text from files, in contained processes."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Self

from pydantic import BaseModel, TypeAdapter, ValidationError

from adapters.documents.formats.kinds import kind_of, readable
from adapters.documents.formats.plugins import Plugin, installed
from adapters.sandbox.child import CORES, Limits, Sandbox, python
from adapters.sandbox.pool import Children, Died, TooSlow
from handlers.ports.documents import Block, Text, Unreadable
from handlers.work.turns import Turns

SCRATCH = 2**28
"""Size of the temporary folder of a plug-in, in bytes."""

SUPPORTED = "PDF, Word, PowerPoint, a spreadsheet, CSV, JSON, EPUB, HTML, Markdown, an email or any text"


class _Found(BaseModel):
    pieces: list[tuple[str, int | None, str | None]]
    pages: int | None
    title: str | None
    warnings: list[str]


class _Refusal(BaseModel):
    code: str
    message: str


_REPLY = TypeAdapter[_Found | _Refusal](_Found | _Refusal)


class FileExtractor:
    """An Extractor of PDF, Office documents, spreadsheets, CSV, JSON, EPUB, HTML, Markdown, emails and text, and of
    formats of installed plug-ins.

    At most `children` processes for one tenant at a time, and one more for others, who take turns. Each may use
    `memory` bytes of address space, and `seconds` for a file, unless its plug-in has limits of its own. Raises:
    BrokenPlugin.
    """

    def __init__(self, sandbox: Sandbox, *, children: int = 2, seconds: float = 120.0, memory: int = 2**30) -> None:
        self._sandbox = sandbox
        self._most = children
        self._seconds = seconds
        self._memory = memory
        self._turns = Turns(children + 1, children)
        self._plugins = installed()
        self._open = AsyncExitStack()
        self._children: dict[Plugin | None, Children] = {}

    @property
    def pids(self) -> list[int]:
        """The processes that wait for further files of their tenant."""
        return [pid for children in self._children.values() for pid in children.pids]

    async def extract(self, tenant: str, data: bytes, media_type: str, name: str) -> Text:
        plugin = next((plugin for plugin in self._plugins if plugin.takes(media_type, name)), None)
        kind = kind_of(media_type, name)
        if plugin is None and kind is None and not readable(data, media_type):
            given = media_type or name.rpartition("/")[2] or "nothing"
            raise Unreadable("unsupported_type", f"No text can be extracted from {given}: send {SUPPORTED}.")
        head = {"kind": kind, "plugin": plugin and plugin.value, "media_type": media_type, "name": name}
        seconds = (plugin and plugin.seconds) or self._seconds
        async with self._turns.turn(tenant):
            children = await self._of(plugin, seconds)
            try:
                reply = await children.ask(tenant, head, data, seconds=seconds)
            except TooSlow:
                raise Unreadable("too_slow", f"The file took longer than {seconds:g} s to read.") from None
            except Died as died:
                raise _crash(died) from None
        return await asyncio.to_thread(_text, reply)

    async def _of(self, plugin: Plugin | None, seconds: float) -> Children:
        """The processes of a plug-in, or of the built-in readers."""
        if plugin not in self._children:
            memory, cpu_s = self._memory, int(2 * seconds) + 1
            module = "adapters.documents.formats.child"
            if plugin is None:
                program, limits, readable = python(module), Limits(memory, cpu_s), []
            else:
                program = python(module, *{str(path.parent): None for path in plugin.code})
                limits = Limits(
                    memory if plugin.memory == 0 else plugin.memory,
                    cpu_s * CORES,
                    files=1024,
                    tasks=1024,
                    forks=plugin.processes,
                    scratch=SCRATCH,
                )
                readable = [*plugin.code, *plugin.folders]
            children = Children(self._sandbox, program, limits, most=self._most, readable=readable)
            self._children[plugin] = await self._open.enter_async_context(children)
        return self._children[plugin]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()


def _crash(died: Died) -> Unreadable:
    if died.status == -signal.SIGXCPU:
        return Unreadable("too_slow", "The file took too much processor time to read.")
    if died.out_of_memory:
        return Unreadable("too_large", "The file takes more memory to read than it may.")
    return Unreadable("broken_file", f"Reading the file ended the reader ({died}): it is damaged.")


def _text(reply: bytes) -> Text:
    """Raises: Unreadable, also for a reply that no reader gives."""
    try:
        found = _REPLY.validate_json(reply, strict=True)
    except ValidationError:
        raise Unreadable("broken_file", "Reading the file gave no text: it is damaged.") from None
    if isinstance(found, _Refusal):
        raise Unreadable(found.code, found.message)
    return Text([Block(*piece) for piece in found.pieces], found.pages, found.title, found.warnings)
