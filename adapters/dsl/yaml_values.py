"""Values of a YAML text, in time and memory that its size bounds.

They are built from the events of the parser: nothing is nested deeper, and nothing grows larger by aliases, than the
limits say. Scalars are read as those who wrote the files do, without times and numbers of other bases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from domain.aggregate import Rejection
from domain.workflows.graph import DEPTH

MOST: Final = 64 * 2**20
"""Maximum size of all values with their aliases written out, as they are counted here."""

VALUE: Final = 64
"""Size that each value counts, apart from the characters of a text."""

_TAG: Final = "tag:yaml.org,2002:"
_PLAIN: Final = frozenset({f"{_TAG}{name}" for name in ("null", "bool", "int", "float")})
_TEXT: Final = frozenset({f"{_TAG}{name}" for name in ("str", "timestamp")})
_COLLECTIONS: Final = frozenset({f"{_TAG}map", f"{_TAG}seq"})

_BOOLEANS: Final = {
    spelling: value
    for word, value in {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}.items()
    for spelling in (word, word.capitalize(), word.upper())
}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]{1,300}\.[0-9]{0,300}|\.[0-9]{1,300})(?:[eE][-+][0-9]{1,5})?")


@dataclass(slots=True)
class _Open:
    """A list or an object that is being read."""

    value: Any
    anchor: str | None
    before: int
    """Size of all values before it."""
    key: str | None = None
    """The name that waits for its value."""
    merges: bool = False
    """The value that comes next is merged."""
    merged: list[dict[str, Any]] = field(default_factory=list)


MERGE: Final = "<<"


def values(text: str) -> Any:
    """The value of the only document in a text. Raises: Rejection."""
    reader = _Reader()
    try:
        for event in yaml.parse(text, yaml.CSafeLoader):
            reader.take(event)
    except yaml.YAMLError as error:
        raise Rejection("invalid", f"It is no YAML: {' '.join(str(error).split())[:300]}.") from None
    if reader.documents != 1:
        raise Rejection("invalid", f"The file has {reader.documents} documents; an app file has one.")
    return reader.found


class _Reader:
    def __init__(self) -> None:
        self.found: Any = None
        self.documents = 0
        self.size = 0
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.take_by_type: dict[type, Callable[[Any], None]] = {
            yaml.DocumentStartEvent: self._document,
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
            yaml.SequenceStartEvent: lambda event: self._begin(event, []),
            yaml.MappingStartEvent: lambda event: self._begin(event, {}),
            yaml.SequenceEndEvent: self._end,
            yaml.MappingEndEvent: self._end,
        }

    def take(self, event: Any) -> None:
        if taken := self.take_by_type.get(type(event)):
            taken(event)

    def _document(self, event: Any) -> None:
        self.documents += 1
        self.anchors.clear()

    def _scalar(self, event: Any) -> None:
        self._grow(VALUE + len(event.value), event)
        if self._wants_key():
            self.open[-1].key, self.open[-1].merges = event.value, event.implicit[0] and event.value == MERGE
            return
        value = _scalar(event)
        if event.anchor:
            self.anchors[event.anchor] = value, VALUE + len(event.value)
        self._place(value, event)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            _refuse(event, f"The alias *{event.anchor} stands for nothing that was read before it")
        value, size = self.anchors[event.anchor]
        self._grow(size, event)
        if not self._wants_key():
            self._place(value, event)
        elif isinstance(value, str):
            self.open[-1].key = value
        else:
            _refuse(event, "A name in an object is a text")

    def _begin(self, event: Any, value: Any) -> None:
        if event.tag and event.tag not in _COLLECTIONS and event.tag != "!":
            _refuse(event, f"The tag {event.tag} is unknown; remove it")
        if self._wants_key():
            _refuse(event, "A name in an object is a text")
        if len(self.open) >= DEPTH:
            _refuse(event, f"A file is at most {DEPTH} levels deep")
        self.open.append(_Open(value, event.anchor, self.size))
        self._grow(VALUE, event)

    def _end(self, event: Any) -> None:
        done = self.open.pop()
        for merged in done.merged:
            for name, value in merged.items():
                done.value.setdefault(name, value)
        if done.anchor:
            self.anchors[done.anchor] = done.value, self.size - done.before
        self._place(done.value, event)

    def _place(self, value: Any, event: Any) -> None:
        if not self.open:
            self.found = value
            return
        around = self.open[-1]
        if isinstance(around.value, list):
            around.value.append(value)
        elif around.merges:
            self._merge(around, value, event)
        else:
            around.value[around.key] = value
        around.key, around.merges = None, False

    def _merge(self, around: _Open, value: Any, event: Any) -> None:
        merged = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in merged):
            _refuse(event, "Only objects can be merged into one")
        around.merged += merged

    def _wants_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and self.open[-1].key is None

    def _grow(self, size: int, event: Any) -> None:
        self.size += size
        if self.size > MOST:
            _refuse(event, "It holds too many values, or its aliases write out too many")


def _scalar(event: Any) -> Any:
    if event.tag in (None, "!"):
        return plain(event.value) if event.implicit[0] else event.value
    if event.tag in _TEXT:
        return event.value
    if event.tag in _PLAIN:
        return plain(event.value)
    return _refuse(event, f"The tag {event.tag} is unknown; remove it")


def plain(text: str) -> Any:
    """The value of a scalar without quotes."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return whole(text)
    return finite(text) if _FLOAT.fullmatch(text) else text


def whole(text: str) -> int | str:
    """The integer in a text; the text where it has more than 64 bits, as no program of the log takes it."""
    return int(text) if len(text) < 19 or (len(text) < 21 and abs(int(text)) < 2**63) else text


def finite(text: str) -> float | str:
    """The number in a text; the text where it is too large for one."""
    number = float(text)
    return number if math.isfinite(number) else text


def _refuse(event: Any, rule: str) -> NoReturn:
    raise Rejection("invalid", f"Line {event.start_mark.line + 1}: {rule}.")
