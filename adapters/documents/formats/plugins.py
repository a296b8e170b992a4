"""Extractors of other packages, named by entry points of the group `headrace.extractors`.

An entry point names an object that has

- `media_types` and `suffixes` (`.rtf`), of the files that it reads; it takes precedence over built-in readers;
- `read(data: bytes, media_type: str, name: str) -> Parsed`, which may raise Refused;
- `memory` and `seconds`, if it needs other limits than the built-in readers: bytes of address space (None: no limit)
  and seconds for a file.

The module of the object is loaded by every worker, `read` is called in a child process only: heavy imports belong
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import PurePosixPath
from typing import NamedTuple

from adapters.documents.formats.parsed import Parsed

GROUP = "headrace.extractors"


class BrokenPlugin(Exception):
    """An installed extractor cannot be used: fix or uninstall its package."""


class Plugin(NamedTuple):
    """An extractor by the name of its entry point; `memory` and `seconds` are 0 for the usual limits."""

    name: str
    media_types: frozenset[str]
    suffixes: frozenset[str]
    memory: int | None
    seconds: float
    read: Callable[[bytes, str, str], Parsed]

    def takes(self, media_type: str, name: str) -> bool:
        essence = media_type.partition(";")[0].strip().lower()
        return essence in self.media_types or PurePosixPath(name.lower()).suffix in self.suffixes


def installed(name: str | None = None) -> list[Plugin]:
    """All installed extractors, or those with a name, ordered by name. Raises: BrokenPlugin."""
    found = entry_points(group=GROUP) if name is None else entry_points(group=GROUP, name=name)
    return [_loaded(entry) for entry in sorted(found, key=lambda entry: entry.name)]


def _loaded(entry: EntryPoint) -> Plugin:
    try:
        extractor = entry.load()
        return Plugin(
            entry.name,
            _names(extractor.media_types),
            _names(extractor.suffixes),
            getattr(extractor, "memory", 0),
            getattr(extractor, "seconds", 0),
            extractor.read,
        )
    except Exception as error:
        sentence = f"The extractor {entry.name} ({entry.value}) cannot be used: {type(error).__name__}: {error}"
        raise BrokenPlugin(sentence) from error


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
