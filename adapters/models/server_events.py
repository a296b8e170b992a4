"""Server-sent events of a streamed answer, as servers of models write them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import NamedTuple


class ServerEvent(NamedTuple):
    """`name` is `error` for a failure, and mostly empty."""

    name: str
    data: str


async def server_events(body: AsyncIterator[bytes]) -> AsyncGenerator[ServerEvent | None]:
    """Yield the events of a body, and None for each piece of it, which shows that the server still works.

    llama.cpp writes a failure as the field `error`. A line of JSON without a field is read as data.
    """
    decoder = _Decoder()
    async for piece in body:
        yield None
        for event in decoder.feed(piece):
            yield event
    for event in decoder.feed(b"\n\n"):
        yield event


class _Decoder:
    def __init__(self) -> None:
        self._line = bytearray()
        self._ended_by_return = False
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        if self._ended_by_return and piece.startswith(b"\n"):
            piece = piece[1:]
        self._ended_by_return = piece.endswith(b"\r")
        for part in piece.splitlines(keepends=True):
            self._line += part
            if part.endswith((b"\n", b"\r")):
                line = self._line.decode(errors="replace").rstrip("\r\n").removeprefix("\ufeff")
                self._line.clear()
                yield from self._read(line)

    def _read(self, line: str) -> Iterator[ServerEvent]:
        if not line:
            if self._data:
                yield ServerEvent(self._name, "\n".join(self._data))
            self._name, self._data = "", []
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line.lstrip().startswith("{"):
            yield ServerEvent(self._name, line)
        elif field == "event":
            self._name = value
        elif field in ("data", "error"):
            self._name = self._name or ("error" if field == "error" else "")
            self._data.append(value)
