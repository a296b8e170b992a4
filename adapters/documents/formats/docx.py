"""Word documents: the text, notes, text boxes, headers and footers.

Tracked deletions are left out, tracked insertions stay; comments, hidden text and tables of contents are left out.
Formulas are written on one line; a part that cannot be read is left out with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from xml.etree.ElementTree import Element

from adapters.documents.formats import html, plain, tables, xml
from adapters.documents.formats.links import linked
from adapters.documents.formats.numbering import Numbering
from adapters.documents.formats.office import Package, Relation
from adapters.documents.formats.parsed import (
    Outline,
    Parsed,
    Piece,
    Refused,
    clean,
    counted,
    grouped,
    lowered,
    one_line,
    raised,
)
from adapters.documents.formats.tables import Span, grid, spanned

_SKIPPED = frozenset(
    re.findall(
        r"\S+",
        """
        annotationRef commentReference del delText endnotePr Fallback footnotePr instrText moveFrom pPr rPr sdtPr
        sdtEndPr sectPr tblGrid tblPr tblPrEx tcPr trPr
        """,
    )
)
_TRANSPARENT = frozenset({"AlternateContent", "Choice", "customXml", "ins", "moveTo", "sdt", "sdtContent", "smartTag"})
"""Elements that contain blocks without being one."""

_SCRIPTS = {"superscript": raised, "subscript": lowered}
_OFF = ("0", "false", "off", "none")
_LONGEST_HEADING = 300
_DEEPEST = 3
"""Maximum number of documents within documents."""

_CONTENTS = re.compile(r"(?:toc \d|table of figures|toa heading|table of authorities)$")
_HYPERLINK = re.compile(r"HYPERLINK\s++\"([^\"]++)\"", re.IGNORECASE)
_ALT_MADE = re.compile(r"description (?:automatically|generated)", re.IGNORECASE)


def read(data: bytes) -> Parsed:
    package = Package(data)
    document = Document(package, package.main("word/document.xml"))
    pieces = list(document.pieces())
    title = package.title() or document.title
    return Parsed(pieces, None, title, [*document.warnings, *dict.fromkeys(package.warnings)])


class _Style(NamedTuple):
    """The style of a paragraph: `level` of a heading from 1, 0 for none; `list` is the id and level of its list."""

    level: int = 0
    list: tuple[str, int] | None = None
    is_title: bool = False
    is_contents: bool = False


class _Look(NamedTuple):
    """Appearance of text: raised, lowered or hidden."""

    script: str = ""
    hidden: bool = False


_T = TypeVar("_T")


@dataclass(slots=True)
class _Line:
    """The text of a paragraph, and what is anchored to it."""

    parts: list[str] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)
    notes: list[tuple[Element, dict[str, str]]] = field(default_factory=list)
    """Notes, and the addresses that their links have."""
    drawings: list[Element] = field(default_factory=list)
    fields: list[tuple[int, str]] = field(default_factory=list)
    """Open fields: where their results begin in `parts`, and their instructions."""

    @property
    def end(self) -> str:
        """The end of the text."""
        return next((part for part in reversed(self.parts) if part), "")[-5:]

    def take(self, start: int) -> str:
        """The text from a part on, which is removed."""
        text = "".join(self.parts[start:])
        del self.parts[start:]
        return text

    @property
    def text(self) -> str:
        text = clean("".join(self.parts)).replace("\xa0", " ")
        return "\n".join(filter(None, map(one_line, text.split("\n"))))


class Document:
    """The main part of a document and its related parts."""

    def __init__(self, package: Package, main: str, depth: int = 0) -> None:
        self._package = package
        self._main = main
        self._depth = depth
        self._hidden = self._comments = 0
        self._addresses = package.addresses(main)
        self._relations: dict[str, Relation] = package.relations(main)
        styles = list(self._trees("styles"))
        self._styles = _styles(styles, "paragraph", _Style(), _style)
        self._looks = _styles(styles, "character", _Look(), _character_style)
        self._numbering = Numbering(next(self._trees("numbering"), None))
        self._notes = {
            (xml.name(note), xml.attribute(note, "id") or ""): (note, package.addresses(part))
            for part in package.related(main, "footnotes", "endnotes")
            for root in package.sound(part)
            for note in root
        }
        self._outline = Outline()
        self._carried = ""
        """The start of a paragraph that is stored as one of its own: a large initial, or text before a deleted end."""
        self.title: str | None = None

    @property
    def warnings(self) -> list[str]:
        """Counts of the parts left out."""
        hidden = counted(self._hidden, "hidden text left out", "hidden texts left out")
        return [*hidden, *counted(self._comments, "comment left out", "comments left out")]

    def pieces(self) -> Iterator[Piece]:
        with self._package.open(self._main) as file:
            for element in xml.below(file, "document", "body"):
                yield from self._block(element)
        yield from self._rest()
        self._outline = Outline()
        seen = set()
        for kind in ("header", "footer"):
            for part in self._package.related(self._main, kind):
                self._relations, self._addresses = self._package.relations(part), self._package.addresses(part)
                for piece in (piece for root in self._package.sound(part) for piece in self._blocks(root)):
                    if piece.text not in seen and re.search(r"[^\W\d_]", piece.text):
                        seen.add(piece.text)
                        yield piece

    def _trees(self, *kinds: str) -> Iterator[Element]:
        return (root for part in self._package.related(self._main, *kinds) for root in self._package.sound(part))

    def _blocks(self, elements: Iterable[Element], *, within: bool = False) -> Iterator[Piece]:
        for element in elements:
            yield from self._block(element, within=within)

    def _block(self, element: Element, *, within: bool = False) -> Iterator[Piece]:
        """The pieces of a block; `within` another, such as a table cell, headings open no section."""
        match xml.name(element):
            case "p":
                yield from self._paragraph(element, within)
            case "tbl":
                if not within:
                    yield from self._rest()
                yield from self._table(element)
            case "altChunk":
                yield from self._chunk(xml.attribute(element, "id") or "")
            case other if other in _TRANSPARENT:
                yield from self._blocks(element, within=within)

    def _rest(self) -> Iterator[Piece]:
        """The text of a paragraph that no other continues."""
        if text := one_line(clean(self._carried)):
            yield Piece(text, None, self._outline.path)
        self._carried = ""

    def _chunk(self, id: str) -> Iterator[Piece]:
        """The blocks of a document of any kind that is part of this one."""
        relation = self._relations.get(id)
        if relation is None or relation.target not in self._package or self._depth >= _DEEPEST:
            return
        data = self._package.read(relation.target)
        try:
            if data.startswith(b"PK"):
                package = Package(data)
                inner = Document(package, package.main("word/document.xml"), self._depth + 1)
                yield from list(inner.pieces())
            elif data.startswith(b"{\\rtf"):
                self._package.warn(relation.target)
            elif b"<" in data[:1000]:
                yield from html.page(data, self._outline, self._package.warnings)[0]
            else:
                yield from plain.read(data).pieces
        except Refused:
            self._package.warn(relation.target)

    def _paragraph(self, element: Element, within: bool) -> Iterator[Piece]:
        properties = xml.child(element, "pPr")
        style = self._styles.get(xml.attribute(xml.child(properties, "pStyle"), "val") or "", _Style())
        if style.is_contents:
            return
        line = _Line()
        if self._carried and not within:
            line.parts.append(self._carried)
            self._carried = ""
        self._gather(element, line)
        if not within and _continues(properties):
            self._carried = "".join(line.parts)
            line.parts.clear()
        if text := line.text:
            level = _outline_level(properties, style.level)
            listed = _list(properties, style.list)
            text = (self._numbering.next(*listed) if listed else "") + text
            if style.is_title:
                self.title = self.title or one_line(text)
            if level and not within and len(text) <= _LONGEST_HEADING:
                text = one_line(text)
                self._outline.enter(level, text)
            yield Piece(text, None, self._outline.path)
        for drawing in line.drawings:
            for row in self._package.drawn(drawing, self._relations):
                yield Piece(row, None, self._outline.path)
        for box in line.boxes:
            yield from self._blocks(box, within=True)
        for note, addresses in line.notes:
            around, self._addresses = self._addresses, addresses
            yield from self._blocks(note, within=True)
            self._addresses = around

    def _formula(self, element: Element, kind: str) -> str:
        """A fraction, power, index or root on one line."""

        def written(part: Element | None) -> str:
            line = _Line()
            self._gather(part, line)
            return "".join(line.parts).strip()

        def part(name: str) -> str:
            text = written(xml.child(element, name))
            return text if name == "e" or not text else grouped(text)

        def sign(properties: str, name: str, otherwise: str) -> str:
            found = xml.attribute(xml.child(element, properties, name), "val")
            return otherwise if found is None else found

        match kind:
            case "f":
                return f"{part('num')}/{part('den')}"
            case "rad":
                return f"√({part('e')})"
            case "nary":
                low, high = part("sub"), part("sup")
                bounds = (f"_{low}" if low else "") + (f"^{high}" if high else "")
                return f"{sign('naryPr', 'chr', '∫')}{bounds} {part('e')} "
            case "d":
                inner = sign("dPr", "sepChr", "|").join(written(each) for each in element if xml.name(each) == "e")
                return f"{sign('dPr', 'begChr', '(')}{inner}{sign('dPr', 'endChr', ')')}"
            case "acc":
                return f"{part('e')}{sign('accPr', 'chr', chr(0x302))}"
            case "limLow" | "limUpp":
                return f"{part('e')}{'_' if kind == 'limLow' else '^'}{part('lim')} "
        return part("e") + (f"_{part('sub')}" if "Sub" in kind else "") + (f"^{part('sup')}" if "Sup" in kind else "")

    def _look(self, properties: Element | None) -> _Look:
        """Return the appearance of a run: by its own properties, else by its style."""
        style = xml.attribute(xml.child(properties, "rStyle"), "val") or ""
        return _look(properties, self._looks.get(style, _Look()))

    def _gather(self, element: Element | None, line: _Line) -> None:
        for each in element if element is not None else ():
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
                case "r" if (look := self._look(xml.child(each, "rPr"))).hidden:
                    self._hidden += any(True for text in xml.every(each, "t") if text.text)
                case "r" if look.script:
                    start, before = len(line.parts), line.end
                    self._gather(each, line)
                    if text := line.take(start):
                        line.parts.append(_SCRIPTS[look.script](before, text))
                case "hyperlink":
                    start = len(line.parts)
                    self._gather(each, line)
                    address = self._addresses.get(xml.attribute(each, "id") or "")
                    line.parts.append(linked(line.take(start), address))
                case "fldSimple":
                    start = len(line.parts)
                    self._gather(each, line)
                    line.parts.append(_of_field(line.take(start), xml.attribute(each, "instr") or ""))
                case "fldChar":
                    _mark(each, line)
                case "instrText" if line.fields:
                    start, instruction = line.fields.pop()
                    line.fields.append((start, instruction + (each.text or "")))
                case "commentReference":
                    self._comments += 1
                case "ruby":
                    for part in ("rubyBase", "rt"):
                        start = len(line.parts)
                        self._gather(xml.child(each, part), line)
                        text = line.take(start)
                        line.parts.append(f"({text})" if part == "rt" and text else text)
                case "f" | "sSup" | "sSub" | "sSubSup" | "rad" | "nary" | "d" | "acc" | "limLow" | "limUpp" as kind:
                    line.parts.append(self._formula(each, kind))
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
        """The rows of a table; rows of one cell above them, and rows with tables in cells, as the blocks in them."""
        above: dict[int, str] = {}
        rows: list[list[Span]] = []
        headers = 0
        for row in _inside(table, "tr"):
            properties = xml.child(row, "trPr")
            if xml.child(properties, "del") is not None:
                continue
            cells = list(_inside(row, "tc"))
            if (len(cells) == 1 and not rows) or any(True for cell in cells for _ in _inside(cell, "tbl")):
                yield from self._rows(rows, headers)
                rows, headers = [], 0
                for cell in cells:
                    yield from self._blocks(cell)
                continue
            spans, column = [], 0
            for cell in cells:
                text = "\n".join(piece.text for piece in self._blocks(cell, within=True))
                merge = xml.child(cell, "tcPr", "vMerge")
                if merge is not None and not text and xml.attribute(merge, "val") != "restart":
                    text = above.get(column, "")
                above[column] = text
                spans.append(Span(text, _span(cell)))
                column += _span(cell)
            headers += len(rows) == headers and _is_on(xml.child(properties, "tblHeader"))
            rows.append(spans)
        yield from self._rows(rows, headers)

    def _rows(self, rows: list[list[Span]], headers: int) -> Iterator[Piece]:
        yield from tables.pieces(grid(rows), self._outline.path, several=False, headers=headers or None)


def _mark(element: Element, line: _Line) -> None:
    """Begin or end a field, whose result is between the marks; form fields are in the first."""
    match xml.attribute(element, "fldCharType"):
        case "begin":
            line.fields.append((len(line.parts), ""))
            for box in xml.every(element, "checkBox"):
                state = xml.child(box, "checked")
                is_on = _is_on(state if state is not None else xml.child(box, "default"))
                line.parts.append("[x] " if is_on else "[ ] ")
            for choices in xml.every(element, "ddList"):
                entries = [xml.attribute(each, "val") or "" for each in xml.every(choices, "listEntry")]
                chosen = xml.attribute(xml.child(choices, "result"), "val") or "0"
                line.parts += entries[int(chosen) :][:1] if chosen.isdecimal() and len(chosen) < 9 else []
        case "end" if line.fields:
            start, instruction = line.fields.pop()
            line.parts.append(_of_field(line.take(start), instruction))


def _of_field(text: str, instruction: str) -> str:
    found = _HYPERLINK.match(instruction.lstrip())
    return linked(text, found[1] if found else None)


def _inside(element: Element, wanted: str) -> Iterator[Element]:
    """The children with this name, also within wrapping elements."""
    for each in element:
        if xml.name(each) == wanted:
            yield each
        elif xml.name(each) in _TRANSPARENT:
            yield from _inside(each, wanted)


def _styles(roots: Iterable[Element], kind: str, plain: _T, inherit: Callable[[Element, _T], _T]) -> dict[str, _T]:
    """Styles of a kind by id, with the properties inherited from their bases."""
    elements = {
        xml.attribute(each, "styleId") or "": each
        for root in roots
        for each in root
        if xml.name(each) == "style" and xml.attribute(each, "type") == kind
    }
    found = {}
    for id in elements:
        found[id] = plain
        for each in reversed(_bases(id, elements)):
            found[id] = inherit(elements[each], found[id])
    return found


def _character_style(element: Element, base: _Look) -> _Look:
    return _look(xml.child(element, "rPr"), base)


def _look(properties: Element | None, base: _Look) -> _Look:
    align = xml.attribute(xml.child(properties, "vertAlign"), "val")
    script = base.script if align is None else align if align in _SCRIPTS else ""
    if not script and (raised_by := xml.attribute(xml.child(properties, "position"), "val") or "").strip("-0"):
        script = "subscript" if raised_by.startswith("-") else "superscript"
    vanish = xml.child(properties, "vanish")
    return _Look(script, base.hidden if vanish is None else _is_on(vanish))


def _bases(id: str, elements: Mapping[str, Element]) -> list[str]:
    """The style and those that it is based on, nearest first."""
    chain: list[str] = []
    while id in elements and id not in chain:
        chain.append(id)
        id = xml.attribute(xml.child(elements[id], "basedOn"), "val") or ""
    return chain


def _continues(properties: Element | None) -> bool:
    """True for a paragraph that goes on in the next one: a large initial, or one whose end was deleted."""
    initial = xml.attribute(xml.child(properties, "framePr"), "dropCap") or "none"
    return initial != "none" or xml.child(properties, "rPr", "del") is not None


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
    return spanned(xml.attribute(xml.child(cell, "tcPr", "gridSpan"), "val"))
