"""Calls of tools in an answer that comes in pieces, as many servers write them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from handlers.models.arguments import arguments_of
from handlers.ports.models import Tool, ToolCall

LONGEST_HELD = 64 * 1024
"""Maximum number of characters of a text that is held back while it may be a call of a tool."""

_OPENINGS = ("{", "```", "<tool_call>")
_FENCE = re.compile(r"\A(?:```(?:json|tool_call)?|<tool_call>)\s{0,9}|\s{0,9}(?:```|</tool_call>)\Z")


class CallPiece(NamedTuple):
    """A piece of a call: `place` is the call's index in the answer, `arguments` are a piece of their text, or all of
    them as an object.

    `extra` are other fields that the server wants back with the call.
    """

    place: int | None = None
    id: str = ""
    name: str = ""
    arguments: object = ""
    extra: dict[str, Any] = {}  # noqa: RUF012  # never changed


@dataclass(slots=True)
class _Call:
    place: int | None
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        try:
            json.loads(self.arguments)
        except (ValueError, RecursionError):
            return False
        return True


class ToolCalls:
    """Puts pieces together: by the id first, then by the index, then by their order.

    A piece with a new id, or with a name after a whole call, begins another call. Arguments are never read before the
    end: servers cut, repeat and misplace their pieces.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def add(self, piece: CallPiece) -> None:
        call = self._call(piece)
        call.id = call.id or piece.id
        call.name = call.name or piece.name
        call.extra |= piece.extra
        if isinstance(piece.arguments, str):
            call.arguments += piece.arguments
        elif piece.arguments is not None:
            call.arguments = json.dumps(piece.arguments, ensure_ascii=False)

    def _call(self, piece: CallPiece) -> _Call:
        same_id = [call for call in self._calls if piece.id and call.id == piece.id]
        if same_id:
            return same_id[-1]
        same_place = [call for call in self._calls if piece.place is not None and call.place == piece.place]
        candidates = same_place or self._calls
        if candidates:
            last = candidates[-1]
            another_id = bool(piece.id and last.id)
            another_name = bool(piece.name and last.name and (piece.name != last.name or last.is_whole))
            opens = not same_place and (piece.id or piece.name)
            if not (another_id or another_name or opens):
                return last
        self._calls.append(_Call(piece.place))
        return self._calls[-1]

    def whole(self) -> list[ToolCall]:
        """The calls; one without an id has nine letters and digits of ours, as templates of Mistral want it."""
        return [
            ToolCall(call.id or secrets.token_hex(5)[:9], call.name, _text(call.arguments)) for call in self._named()
        ]

    def extra(self) -> list[dict[str, Any]]:
        """The other fields of each call."""
        return [call.extra for call in self._named()]

    def _named(self) -> list[_Call]:
        return [call for call in self._calls if call.name]


def _text(arguments: str) -> str:
    return "{}" if arguments.strip() in ("", "null") else arguments


class Salvage:
    """Finds a call of a tool that a model has written as its answer: one JSON object, maybe in a fence.

    It holds a text back as long as it may be one. Without tools, every text passes.
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._held = ""
        self.restart()

    def restart(self) -> str:
        """Begin again with the next text; return what was held back, which was no part of the answer."""
        self._passes = not self._tools
        return self._end()

    def feed(self, text: str) -> str:
        """The text that is certain to be no call."""
        if self._passes:
            return text
        self._held += text
        start = self._held.lstrip()
        begins = not start or any(start.startswith(mark) or mark.startswith(start) for mark in _OPENINGS)
        if begins and len(self._held) <= LONGEST_HELD:
            return ""
        self._passes = True
        return self._end()

    def end(self, calls: Sequence[ToolCall]) -> tuple[str, list[ToolCall]]:
        """The rest of the text, and the call in it, unless the server has found calls itself."""
        if not calls and (call := self._found()):
            self._held = ""
            return "", [call]
        return self._end(), []

    def _end(self) -> str:
        held, self._held = self._held, ""
        return held

    def _found(self) -> ToolCall | None:
        text = self._held.strip()
        for _ in range(2):
            text = _FENCE.sub("", text).strip()
        try:
            said = arguments_of(text)
        except ValueError:
            return None
        if isinstance(inner := said.get("function"), dict):
            said = inner
        tool = self._tools.get(str(said.get("name")))
        arguments = said.get("arguments", said.get("parameters"))
        if tool is None or not isinstance(arguments, dict):
            return None
        known, required = tool.parameters.get("properties", {}), tool.parameters.get("required", ())
        if not set(required) <= arguments.keys() <= set(known):
            return None
        return ToolCall(secrets.token_hex(5)[:9], tool.name, json.dumps(arguments, ensure_ascii=False))
