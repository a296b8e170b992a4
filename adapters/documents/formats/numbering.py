"""The numbers that Word shows before list items and headings; the text does not contain them."""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree.ElementTree import Element

from adapters.documents.formats import xml

_DIGITS = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"))
_ROMAN = (*_DIGITS, (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))
_PLACE = re.compile(r"%([1-9])")
_DEEPEST = 8


class _Level(NamedTuple):
    format: str = "decimal"
    text: str = ""
    start: int = 1
    legal: bool = False


class Numbering:
    """Counters of a document; lists are identified by id, levels count from 0."""

    def __init__(self, root: Element | None) -> None:
        self._levels: dict[str, dict[int, _Level]] = {}
        self._counted: dict[str, str] = {}
        self._counts: dict[str, dict[int, int]] = {}
        abstract = {
            xml.attribute(each, "abstractNumId") or "": _levels(each) for each in xml.every(root, "abstractNum")
        }
        for element in xml.every(root, "num"):
            list_id = xml.attribute(element, "numId") or ""
            parent = xml.attribute(xml.child(element, "abstractNumId"), "val") or ""
            own = _overrides(element, abstract.get(parent, {}))
            self._levels[list_id] = own
            self._counted[list_id] = list_id if own != abstract.get(parent) else f"abstract {parent}"

    def next(self, list_id: str, level: int) -> str:
        """The prefix of the next item: its number and a space, a dash, or nothing."""
        level = min(level, _DEEPEST)
        levels = self._levels.get(list_id)
        if levels is None:
            return ""
        here = levels.get(level, _Level())
        counts = self._counts.setdefault(self._counted[list_id], {})
        counts[level] = counts.get(level, here.start - 1) + 1
        for deeper in [each for each in counts if each > level]:
            del counts[deeper]
        if here.format == "bullet":
            return "- "
        if here.format == "none":
            return ""

        def number(found: re.Match[str]) -> str:
            place = int(found[1]) - 1
            wanted = levels.get(place, _Level())
            return counted_as(counts.get(place, wanted.start), "decimal" if here.legal else wanted.format)

        text = _PLACE.sub(number, here.text).strip()
        return f"{text} " if text else ""


def _levels(element: Element) -> dict[int, _Level]:
    return {_number(each, "ilvl"): _level(each) for each in element if xml.name(each) == "lvl"}


def _level(element: Element) -> _Level:
    def value(name: str, otherwise: str) -> str:
        found = xml.attribute(xml.child(element, name), "val")
        return otherwise if found is None else found

    start = value("start", "1")
    legal = xml.child(element, "isLgl") is not None
    return _Level(value("numFmt", "decimal"), value("lvlText", ""), int(start) if start.isdecimal() else 1, legal)


def _overrides(element: Element, levels: dict[int, _Level]) -> dict[int, _Level]:
    """The levels of a list that inherits from another, with its own overrides."""
    own = dict(levels)
    for each in element:
        if xml.name(each) == "lvlOverride":
            place = _number(each, "ilvl")
            given, start = xml.child(each, "lvl"), xml.child(each, "startOverride")
            own[place] = _level(given) if given is not None else own.get(place, _Level())
            if start is not None:
                own[place] = own[place]._replace(start=_number(start, "val"))
    return own


def _number(element: Element, name: str) -> int:
    value = xml.attribute(element, name) or ""
    return int(value[:9]) if value.isdecimal() else 0


def counted_as(count: int, format: str) -> str:
    """A number in a format of Word, such as `lowerRoman`; in digits if it has none."""
    match format:
        case "lowerLetter" | "upperLetter" if count > 0:
            letter = chr(ord("a") + (count - 1) % 26) * min((count - 1) // 26 + 1, 9)
            return letter if format == "lowerLetter" else letter.upper()
        case "lowerRoman" | "upperRoman" if 0 < count < 4000:
            roman = ""
            for value, digits in _ROMAN:
                roman += digits * (count // value)
                count %= value
            return roman if format == "lowerRoman" else roman.upper()
        case "decimalZero":
            return f"{count:02}"
    return str(count)
