"""Word documents: the text, notes, text boxes, headers and footers.

Tracked deletions are left out, tracked insertions stay; comments, hidden text and tables of contents are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree.ElementTree import Element

from adapters.documents.formats import xml
from adapters.documents.formats.numbering import Numbering
from adapters.documents.formats.office import ROW, Package, Relation
from adapters.documents.formats.parsed import Outline, Parsed, Piece, clean, one_line

_SKIPPED = frozenset(
    re.findall(
        r"\S+",
        """
        annotationRef commentReference del delText endnotePr Fallback footnotePr instrText moveFrom pPr rPr rt sdtPr
        sdtEndPr sectPr tblGrid tblPr tblPrEx tcPr trPr
        """,
    )
)
_TRANSPARENT = frozenset({"AlternateContent", "Choice", "customXml", "ins", "moveTo", "sdt", "sdtContent", "smartTag"})
"""Elements that contain blocks without being one."""

_OFF = ("0", "false", "off", "none")
_LONGEST_HEADING = 300
_LONGEST_CELL = 1500
_CONTENTS = re.compile(r"(?:toc \d|table of figures|toa heading|table of authorities)$")
_ALT_MADE = re.compile(r"description (?:automatically|generated)", re.IGNORECASE)


def read(data: bytes) -> Parsed:
    package = Package(data)
    document = Document(package, package.main("word/document.xml"))
    pieces = list(document.pieces())
    return Parsed(pieces, None, package.title() or document.title)


class _Style(NamedTuple):
    """The style of a paragraph: `level` of a heading from 1, 0 for none; `list` is the id and level of its list."""

    level: int = 0
    list: tuple[str, int] | None = None
    is_title: bool = False
    is_contents: bool = False


@dataclass(slots=True)
class _Line:
    """The text of a paragraph, and what is anchored to it."""

    parts: list[str] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)
    notes: list[Element] = field(default_factory=list)
    drawings: list[Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        text = clean("".join(self.parts)).replace("\xa0", " ")
        return "\n".join(filter(None, map(one_line, text.split("\n"))))


class Document:
    """The main part of a document and its related parts."""

    def __init__(self, package: Package, main: str) -> None:
        self._package = package
        self._main = main
        self._relations: dict[str, Relation] = package.relations(main)
        self._styles = _styles(self._trees("styles"))
        self._numbering = Numbering(next(self._trees("numbering"), None))
        self._notes = {
            (xml.name(note), xml.attribute(note, "id") or ""): note
            for root in self._trees("footnotes", "endnotes")
            for note in root
        }
        self._outline = Outline()
        self.title: str | None = None

    def pieces(self) -> Iterator[Piece]:
        with self._package.open(self._main) as file:
            for element in xml.below(file, "document", "body"):
                yield from self._block(element)
        self._outline = Outline()
        seen = set()
        for kind in ("header", "footer"):
            for part in self._package.related(self._main, kind):
                self._relations = self._package.relations(part)
                for piece in self._blocks(self._package.tree(part)):
                    if piece.text not in seen and re.search(r"[^\W\d_]", piece.text):
                        seen.add(piece.text)
                        yield piece

    def _trees(self, *kinds: str) -> Iterator[Element]:
        return (self._package.tree(part) for part in self._package.related(self._main, *kinds))

    def _blocks(self, elements: Iterable[Element], *, plain: bool = False) -> Iterator[Piece]:
        for element in elements:
            yield from self._block(element, plain=plain)

    def _block(self, element: Element, *, plain: bool = False) -> Iterator[Piece]:
        """The pieces of a block; in a `plain` one, such as a table cell, headings open no section."""
        match xml.name(element):
            case "p":
                yield from self._paragraph(element, plain)
            case "tbl":
                yield from self._table(element)
            case other if other in _TRANSPARENT:
                yield from self._blocks(element, plain=plain)

    def _paragraph(self, element: Element, plain: bool) -> Iterator[Piece]:
        properties = xml.child(element, "pPr")
        style = self._styles.get(xml.attribute(xml.child(properties, "pStyle"), "val") or "", _Style())
        if style.is_contents:
            return
        line = _Line()
        self._gather(element, line)
        if text := line.text:
            level = _outline_level(properties, style.level)
            listed = _list(properties, style.list)
            text = (self._numbering.next(*listed) if listed else "") + text
            if style.is_title:
                self.title = self.title or one_line(text)
            if level and not plain and len(text) <= _LONGEST_HEADING:
                text = one_line(text)
                self._outline.enter(level, text)
            yield Piece(text, None, self._outline.path)
        for drawing in line.drawings:
            for row in self._package.drawn(drawing, self._relations):
                yield Piece(row, None, self._outline.path)
        for aside in (*line.notes, *line.boxes):
            yield from self._blocks(aside, plain=True)

    def _gather(self, element: Element, line: _Line) -> None:
        for each in element:
            match xml.name(each):
                case "t":
                    line.parts.append(each.text or "")
                case "tab" | "ptab":
                    line.parts.append(" ")
                case "br" | "cr":
                    line.parts.append("\n")
                case "noBreakHyphen":
                    line.parts.append("-")
                case "sym":
                    line.parts.append(_symbol(each))
                case "r" if _is_on(xml.child(each, "rPr", "vanish")):
                    pass
                case "txbxContent":
                    line.boxes.append(each)
                case "textpath":
                    line.parts.append(f" {xml.attribute(each, 'string') or ''} ")
                case "docPr":
                    line.parts.append(_described(each))
                case "graphicData":
                    line.drawings.append(each)
                    self._gather(each, line)
                case "footnoteReference" | "endnoteReference" as kind:
                    # Removed, so that a note that refers to itself ends.
                    note = self._notes.pop((kind.removesuffix("Reference"), xml.attribute(each, "id") or ""), None)
                    if note is not None:
                        line.notes.append(note)
                case other if other not in _SKIPPED:
                    self._gather(each, line)

    def _table(self, table: Element) -> Iterator[Piece]:
        """The rows of a table; rows of one cell, or with tables or long texts in cells, as the blocks in them."""
        above: dict[int, str] = {}
        for row in _inside(table, "tr"):
            if xml.child(row, "trPr", "del") is not None:
                continue
            cells = list(_inside(row, "tc"))
            if len(cells) == 1 or any(True for cell in cells for _ in _inside(cell, "tbl")):
                for cell in cells:
                    yield from self._blocks(cell)
                continue
            texts, column = [], 0
            for cell in cells:
                text = one_line(" ".join(piece.text for piece in self._blocks(cell, plain=True)))
                merge = xml.child(cell, "tcPr", "vMerge")
                if merge is not None and not text and xml.attribute(merge, "val") != "restart":
                    text = above.get(column, "")
                above[column] = text
                texts.append(text)
                column += _span(cell)
            if any(len(text) > _LONGEST_CELL for text in texts):
                yield from (Piece(text, None, self._outline.path) for text in texts if text)
            elif any(texts):
                yield Piece(ROW.join(texts), None, self._outline.path)


def _inside(element: Element, wanted: str) -> Iterator[Element]:
    """The children with this name, also within wrapping elements."""
    for each in element:
        if xml.name(each) == wanted:
            yield each
        elif xml.name(each) in _TRANSPARENT:
            yield from _inside(each, wanted)


def _styles(roots: Iterator[Element]) -> dict[str, _Style]:
    """Paragraph styles by id, with the properties inherited from their bases."""
    elements = {
        xml.attribute(each, "styleId") or "": each
        for root in roots
        for each in root
        if xml.name(each) == "style" and xml.attribute(each, "type") == "paragraph"
    }
    found = {}
    for id in elements:
        chain: list[str] = []
        parent = id
        while parent in elements and parent not in chain:
            chain.append(parent)
            parent = xml.attribute(xml.child(elements[parent], "basedOn"), "val") or ""
        style = _Style()
        for each in reversed(chain):
            style = _style(elements[each], style)
        found[id] = style
    return found


def _style(element: Element, base: _Style) -> _Style:
    name = (xml.attribute(xml.child(element, "name"), "val") or "").lower()
    properties = xml.child(element, "pPr")
    heading = re.fullmatch(r"heading (\d)", name)
    level = int(heading[1]) if heading else _outline_level(properties, base.level)
    listed = _list(properties, base.list)
    return _Style(level, listed, name == "title" or base.is_title, bool(_CONTENTS.match(name)) or base.is_contents)


def _outline_level(properties: Element | None, otherwise: int) -> int:
    value = xml.attribute(xml.child(properties, "outlineLvl"), "val")
    return otherwise if value is None else int(value) + 1 if value in "012345678" else 0


def _list(properties: Element | None, otherwise: tuple[str, int] | None) -> tuple[str, int] | None:
    """The list of a paragraph, by its own properties or by its style's."""
    numbered = xml.child(properties, "numPr")
    if numbered is None:
        return otherwise
    id = xml.attribute(xml.child(numbered, "numId"), "val") or (otherwise[0] if otherwise else "")
    level = xml.attribute(xml.child(numbered, "ilvl"), "val") or ""
    return (id, int(level) if level.isdecimal() else otherwise[1] if otherwise else 0) if id not in ("", "0") else None


def _is_on(element: Element | None) -> bool:
    return element is not None and xml.attribute(element, "val") not in _OFF


def _symbol(element: Element) -> str:
    """The Unicode character for one of a symbol font, if there is one."""
    try:
        code = int(xml.attribute(element, "char") or "", 16)
    except ValueError:
        return ""
    return chr(code) if 0x20 < code < 0xD800 else ""


def _described(element: Element) -> str:
    words = xml.attribute(element, "descr") or ""
    return "" if _ALT_MADE.search(words) else f" {words} "


def _span(cell: Element) -> int:
    value = xml.attribute(xml.child(cell, "tcPr", "gridSpan"), "val") or ""
    return int(value) if value.isdecimal() and len(value) < 4 else 1
