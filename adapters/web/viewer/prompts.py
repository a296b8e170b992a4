"""Calls of chat models side by side: request, the state that produced it, and answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.diff import Part, diff, similarity

LONGEST = 400_000
"""Maximum number of characters that are compared."""

_DOCUMENTS = """
SELECT id, name FROM headrace.documents WHERE tenant_id = %(tenant)s AND id = ANY(%(documents)s)
"""


@dataclass(frozen=True)
class Difference:
    """The parts of two texts; `cut`: only their beginnings were compared."""

    parts: list[Part]
    same: float
    cut: bool

    @property
    def equal(self) -> bool:
        return self.same == 1.0 and not self.cut


async def difference(old: str, new: str) -> Difference:
    cut = max(len(old), len(new)) > LONGEST
    parts = await asyncio.to_thread(diff, old[:LONGEST], new[:LONGEST])
    return Difference(parts, similarity(parts), cut)


@dataclass(frozen=True)
class Setting:
    """A parameter of two calls; None where it was not given."""

    name: str
    old: str | None
    new: str | None

    @property
    def differs(self) -> bool:
        return self.old != self.new


def settings(old: Row, new: Row) -> list[Setting]:
    """The model and all parameters of two calls, those that differ first."""
    before, after = _settings(old), _settings(new)
    found = [Setting(name, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])]
    return sorted(found, key=lambda setting: not setting.differs)


def _settings(call: Row) -> dict[str, str]:
    request = call["request"]
    found: dict[str, Any] = {"provider": call["provider"], "model": call["model"]}
    if "max_tokens" in request:
        found["max_tokens"] = request["max_tokens"]
    if (number := configuration(call)) is not None:
        found["configuration"] = number
    found |= request.get("parameters") or {}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in found.items()
    }


def configuration(call: Row) -> int | None:
    """Number of the configuration with the sent instructions."""
    named = (source.get("configuration") for source in call["sources"] if source.get("from") == "instructions")
    return next((number for number in named if number is not None), None)


def app(call: Row) -> str | None:
    """App of the sent instructions."""
    return next((source.get("app") for source in call["sources"] if source.get("from") == "instructions"), None)


def written(call: Row) -> str:
    """All sent messages, as one text."""
    return "\n\n".join(
        f"{message.get('role', '')}:\n{_content(message.get('content'))}"
        for message in call["request"].get("messages") or []
    )


def _content(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1)


@dataclass(frozen=True)
class Segment:
    """A segment and its place in two prompts, from 1; None for a prompt without it."""

    id: str
    document: str
    name: str
    old: int | None
    new: int | None

    @property
    def fate(self) -> str:
        if self.old is None:
            return "came"
        if self.new is None:
            return "went"
        return "stayed" if self.old == self.new else "moved"


async def segments(backend: Backend, of: str, old: Row, new: Row) -> list[Segment]:
    """The segments in either prompt: those of the newer in order, then those only in the older."""
    before, after = _ranks(old["sources"]), _ranks(new["sources"])
    documents = {id: document for id, (_, document) in [*before.items(), *after.items()]}
    rows = (
        await backend.rows(_DOCUMENTS, {"tenant": of, "documents": list(set(documents.values()))}) if documents else []
    )
    names = {row["id"]: row["name"] for row in rows}
    return [
        Segment(
            id,
            documents[id],
            names.get(documents[id], "a document that was deleted"),
            before[id][0] if id in before else None,
            after[id][0] if id in after else None,
        )
        for id in [*sorted(after, key=lambda id: after[id]), *(id for id in before if id not in after)]
    ]


def _ranks(sources: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    """Rank and document of every segment in a prompt."""
    found: dict[str, tuple[int, str]] = {}
    for source in sources:
        if source.get("from") == "segment" and (id := source.get("segment")) not in found:
            found[str(id)] = (int(source.get("rank") or len(found) + 1), str(source.get("document") or ""))
    return found
