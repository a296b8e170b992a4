"""Extractors of other packages, named by entry points of the group `headrace.extractors`.

An entry point names an object that has

- `media_types` and `suffixes` (`.rtf`), of the files that it reads; it takes precedence over built-in readers;
- `read(data: bytes, media_type: str, name: str) -> Parsed`, which may raise Refused;
- `memory` and `seconds`, if it needs other limits than the built-in readers: bytes of address space (None: no limit)
  and seconds for a file;
- `folders`, if it reads files besides Python's and its own, and `processes = True`, if it starts processes.

The module of the object is loaded by every worker, `read` is called in a contained process only: heavy imports belong
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from adapters.documents.formats.parsed import Parsed

GROUP = "headrace.extractors"


class BrokenPlugin(Exception):
    """An installed extractor cannot be used: fix or uninstall its package."""


class Plugin(NamedTuple):
    """An extractor by the value of its entry point; `memory` and `seconds` are 0 for the usual limits."""

    value: str
    media_types: frozenset[str]
    suffixes: frozenset[str]
    memory: int | None
    seconds: float
    folders: tuple[Path, ...]
    processes: bool
    read: Callable[[bytes, str, str], Parsed]

    def takes(self, media_type: str, name: str) -> bool:
        essence = media_type.partition(";")[0].strip().lower()
        return essence in self.media_types or PurePosixPath(name.lower()).suffix in self.suffixes

    @property
    def code(self) -> list[Path]:
        """The files or folders of its top module."""
        spec = find_spec(self.value.partition(":")[0].partition(".")[0])
        assert spec
        return [Path(place) for place in spec.submodule_search_locations or [str(spec.origin)]]


def installed() -> list[Plugin]:
    """All installed extractors, ordered by name. Raises: BrokenPlugin."""
    return [_loaded(entry) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)]


def load(value: str) -> Plugin:
    """The extractor of the entry point with this value. Raises: BrokenPlugin."""
    return _loaded(EntryPoint(name=value, value=value, group=GROUP))


def _loaded(entry: EntryPoint) -> Plugin:
    try:
        extractor = entry.load()
        return Plugin(
            entry.value,
            _names(extractor.media_types),
            _names(extractor.suffixes),
            getattr(extractor, "memory", 0),
            getattr(extractor, "seconds", 0),
            tuple(Path(folder) for folder in getattr(extractor, "folders", ())),
            getattr(extractor, "processes", False),
            extractor.read,
        )
    except Exception as error:
        sentence = f"The extractor {entry.name} ({entry.value}) cannot be used: {type(error).__name__}: {error}"
        raise BrokenPlugin(sentence) from error


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
