"""Common structure of Office documents: related parts, a title, charts and diagrams."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from adapters.documents.formats import xml
from adapters.documents.formats.links import linked
from adapters.documents.formats.parsed import Refused, clean, lowered, one_line, raised
from adapters.documents.formats.zipped import Zipped, sound

ROW = " | "
"""Separator of the cells of a row."""


class Relation(NamedTuple):
    kind: str
    target: str


class Package(Zipped):
    """The parts of an Office document; relations of a part are by id, those to other files apart.

    `warnings` name the parts that are left out because they cannot be read.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.warnings: list[str] = []

    def tree(self, part: str) -> Element:
        with self.open(part) as file, sound(part):
            return xml.tree(file)

    def sound(self, part: str) -> Iterator[Element]:
        """The root of a part, if it can be read; else a warning."""
        try:
            yield self.tree(part)
        except Refused:
            self.warn(part)

    def warn(self, part: str) -> None:
        self.warnings.append(f"part {part} cannot be read")

    def relations(self, part: str) -> dict[str, Relation]:
        folder = posixpath.dirname(part)
        found = {}
        for element in self._relations(part):
            id, kind, target = (element.get(key, "") for key in ("Id", "Type", "Target"))
            if element.get("TargetMode") != "External":
                path = posixpath.normpath(posixpath.join("/", folder, unquote(target)))
                found[id] = Relation(kind.rpartition("/")[2], path.lstrip("/"))
        return found

    def addresses(self, part: str) -> dict[str, str]:
        """The targets of links to elsewhere."""
        return {
            element.get("Id", ""): element.get("Target", "")
            for element in self._relations(part)
            if element.get("TargetMode") == "External" and element.get("Type", "").endswith("/hyperlink")
        }

    def _relations(self, part: str) -> Iterator[Element]:
        folder, _, file = part.rpartition("/")
        name = f"{folder}/_rels/{file}.rels" if folder else f"_rels/{file}.rels"
        if name in self:
            yield from (each for root in self.sound(name) for each in xml.every(root, "Relationship"))

    def related(self, part: str, *kinds: str) -> list[str]:
        """The existing parts of these kinds, in the order of the file."""
        return [each.target for each in self.relations(part).values() if each.kind in kinds and each.target in self]

    def main(self, otherwise: str) -> str:
        """The part with the document."""
        return next(iter(self.related("", "officeDocument")), otherwise)

    def title(self) -> str | None:
        """The title that the author has set."""
        for part in self.related("", "core-properties"):
            for root in self.sound(part):
                return next((one_line(clean(each.text or "")) for each in xml.every(root, "title")), "") or None
        return None

    def drawn(self, drawing: Element, relations: dict[str, Relation]) -> Iterator[str]:
        """The lines of the charts and diagrams of a drawing."""
        for element in xml.every(drawing, "chart", "relIds"):
            chart = xml.name(element) == "chart"
            relation = relations.get(xml.attribute(element, "id" if chart else "dm") or "")
            if relation and relation.target in self:
                for root in self.sound(relation.target):
                    yield from (_chart if chart else _diagram)(root)


def relation_id(element: Element) -> str:
    """The attribute `r:id` of an element, which may have an `id`, too."""
    return next((value for key, value in element.items() if key.endswith("}id")), "")


def text_of(paragraph: Element, addresses: Mapping[str, str] | None = None) -> str:
    """The text of a paragraph of DrawingML, with its line breaks and the addresses of its links."""
    parts: list[str] = []
    taken: set[int] = set()
    linked_to = ""
    start = 0
    for element in paragraph.iter():
        match xml.name(element):
            case "r" | "fld":
                properties = xml.child(element, "rPr")
                link = xml.attribute(xml.child(properties, "hlinkClick"), "id") or ""
                address = (addresses or {}).get(link, "")
                if linked_to and address != linked_to:
                    parts[start:] = [linked("".join(parts[start:]), linked_to)]
                if address != linked_to:
                    linked_to, start = address, len(parts)
                texts = list(xml.every(element, "t"))
                taken.update(map(id, texts))
                text = "".join(each.text or "" for each in texts)
                baseline = (xml.attribute(properties, "baseline") or "0").rstrip("%")
                if baseline.strip("-0") and text.strip():
                    text = (lowered if baseline.startswith("-") else raised)(parts[-1][-5:] if parts else "", text)
                parts.append(text)
            case "t" if id(element) not in taken:
                parts.append(element.text or "")
            case "br":
                parts.append("\n")
            case "tab":
                parts.append(" ")
    if linked_to:
        parts[start:] = [linked("".join(parts[start:]), linked_to)]
    return clean("".join(parts)).strip()


def _diagram(root: Element) -> Iterator[str]:
    return filter(None, (text_of(paragraph) for paragraph in xml.every(root, "p")))


def _chart(root: Element) -> Iterator[str]:
    """The titles of a chart, and its values as the rows of a table."""
    for title in xml.every(root, "title"):
        yield from filter(None, (text_of(paragraph) for paragraph in xml.every(title, "p")))
    series = list(xml.every(root, "ser"))
    columns = [_points(_first(each, "val", "yVal")) for each in series]
    categories: dict[int, str] = {}
    for each in series:
        categories = categories or _points(_first(each, "cat", "xVal"))
    names = [" ".join(_points(xml.child(each, "tx")).values()) for each in series]
    if any(names):
        yield ROW.join(["", *names]).strip()
    for place in sorted({*categories, *(place for column in columns for place in column)}):
        yield ROW.join([categories.get(place, ""), *(column.get(place, "") for column in columns)])


def _first(element: Element, *names: str) -> Element | None:
    return next((each for each in element if xml.name(each) in names), None)


def _points(element: Element | None) -> dict[int, str]:
    """The cached values of a chart, by place; levels of categories are joined."""
    found: dict[int, str] = {}
    for point in xml.every(element, "pt"):
        place, value = point.get("idx", ""), xml.child(point, "v")
        if place.isdecimal() and value is not None and value.text:
            text = one_line(clean(value.text))
            found[int(place)] = f"{text} {found[int(place)]}" if int(place) in found else text
    return found
