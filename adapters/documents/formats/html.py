"""HTML: the visible text of a page, in blocks, without navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from selectolax.lexbor import LexborHTMLParser, LexborNode

from adapters.documents.formats.encodings import decode
from adapters.documents.formats.links import linked
from adapters.documents.formats.numbering import counted_as
from adapters.documents.formats.parsed import (
    BREAK,
    Outline,
    Parsed,
    Piece,
    clean,
    counted,
    flowed,
    grouped,
    lowered,
    one_line,
    raised,
)
from adapters.documents.formats.tables import Span, grid, spanned
from adapters.documents.formats.tables import pieces as table_pieces

_SKIPPED = frozenset(
    re.findall(
        r"\S+",
        "audio canvas datalist defs embed head iframe map metadata noscript object rp script style template video",
    )
)
_BLOCKS = frozenset(
    re.findall(
        r"\S+",
        """
        address article aside author bibliography blockquote body bodymatter book bridgehead byline caption center col
        colgroup covertitle dateline dd details dialog dir div dl doctitle docauthor dt epigraph fieldset figcaption
        figure footer form frameset frontmatter h1 h2 h3 h4 h5 h6 hd header hgroup hr html img-group imggroup legend
        level level1 level2 level3 level4 level5 level6 li line linegroup list listing main menu nav note ol optgroup
        option p pagenum plaintext poem pre prodnote producer rearmatter search section sidebar summary table tbody td
        tfoot th thead title tr ul xmp
        """,
    )
)
"""Elements of HTML and of DTBook that are blocks; all others, also unknown ones, are within a line."""

_FIELDS = frozenset(["checkbox", "radio", "submit", "reset", "button", "image", "hidden", "password", "file"])
"""Input fields whose value is not text that a reader sees as such."""

_HIDDEN = re.compile(r"(?:^|;)\s*+(?:display\s*+:\s*+none|visibility\s*+:\s*+hidden)", re.IGNORECASE)
_LISTS = {"a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}
_APART = frozenset(("textarea", "button", "select", "label", "output"))
"""Elements within a line that are shown apart from it."""

_DEEPEST_FORMULA = 100
_SCRIPT = re.compile(r"\bvertical-align\s*+:\s*+(super|sub)\b", re.IGNORECASE)
_HEADING = re.compile("h[1-6]")
_CHARSET = re.compile(rb"<(?:meta[^<>]+charset|\?xml[^<>]+encoding)\s*+=\s*+[\"']?\s*+([\w.:-]+)", re.IGNORECASE)
_XML = re.compile(r"\A\s*+<\?xml\b")
_CLOSED = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)(\w[\w:.-]*)(?=[\s/])([^<>]*)/>"
)
"""An empty element of XHTML, which HTML would not close."""


def read(data: bytes) -> Parsed:
    warnings: list[str] = []
    found, title = page(data, Outline(), warnings)
    return Parsed(list(found), None, title, warnings)


def page(data: bytes, outline: Outline, warnings: list[str]) -> tuple[Iterator[Piece], str | None]:
    """The blocks of a page that continues the outline, and its title; adds warnings when all blocks were taken."""
    declared = _CHARSET.search(data[:4096])
    text, remarks = decode(data, declared[1].decode("ascii") if declared else None)
    warnings += remarks
    text = clean(text)
    if _XML.match(text):
        text = _CLOSED.sub(r"<\1\2></\1>", text)
    tree = LexborHTMLParser(text)
    title = tree.css_first("title")
    return _walk(tree, outline, warnings), (one_line(title.text()) or None) if title else None


def contents(data: bytes) -> Iterator[tuple[str, str]]:
    """The entries of the table of contents of EPUB 2 or 3: target and text."""
    tree = LexborHTMLParser(_CLOSED.sub(r"<\1\2></\1>", clean(decode(data).text)))
    for link in tree.css("nav a[href]"):
        yield link.attributes["href"] or "", one_line(link.text())
    for point in tree.css("navpoint"):
        label, content = point.css_first("navlabel"), point.css_first("content")
        if label and content:
            yield content.attributes.get("src") or "", one_line(label.text())


def pieces(fragment: str, warnings: list[str]) -> Iterator[Piece]:
    """The blocks of a fragment within another text; adds warnings when all blocks were taken."""
    return _walk(LexborHTMLParser(fragment), Outline(), warnings)


class _Writer:
    """Collects text into blocks; `mark` is the prefix of the next one."""

    def __init__(self, outline: Outline, around_formulas: frozenset[int]) -> None:
        self.outline = outline
        self.around_formulas = around_formulas
        self.mark = ""
        self.level = 0
        self.verbatim = 0
        self.hidden = 0
        self.navigation = 0
        self._parts: list[str] = []
        self._begun: list[int] = []
        self._readings: list[str] = []
        self._items: dict[int, int] = {}

    def marker(self, item: LexborNode) -> str:
        """The prefix of a list item: its number or letter, or a dash."""
        parent = item.parent
        if parent is None or parent.tag != "ol":
            return "- "
        step = -1 if "reversed" in parent.attributes else 1
        given = _integer(item.attributes.get("value"))
        if given is None and (before := self._items.get(parent.mem_id)) is not None:
            given = before + step
        if given is None and (given := _integer(parent.attributes.get("start"))) is None:
            given = 1 if step > 0 else sum(child.tag == "li" for child in parent.iter())
        self._items[parent.mem_id] = given
        return f"{counted_as(given, _LISTS.get(parent.attributes.get('type') or '', 'decimal'))}. "

    def write(self, text: str) -> None:
        self._parts.append(text.replace("\n", BREAK) if self.verbatim else text)

    def break_line(self) -> None:
        self._parts.append(BREAK)

    def begin(self) -> None:
        """Begin an element whose text is written in its own way."""
        self._begun.append(len(self._parts))

    def take(self) -> tuple[str, str]:
        """The end of the text before the element that was begun last, and its text, which is removed; it may lack what
        ended with a block."""
        start = min(self._begun.pop(), len(self._parts))
        text = "".join(self._parts[start:])
        del self._parts[start:]
        before = next((part for part in reversed(self._parts) if part), "")
        return before[-5:], text

    def read_as(self, reading: str) -> None:
        self._readings.append(reading.strip())

    def end_ruby(self) -> None:
        if reading := "".join(self._readings):
            self._parts.append(f"({reading})")
        self._readings.clear()

    def end(self) -> Iterator[Piece]:
        """End the block; drop it without text."""
        text = "".join(self._parts).replace("\xa0", " ")
        self._parts.clear()
        text = text.replace(BREAK, "\n").strip("\n") if self.verbatim else flowed(text)
        text = clean(text)
        if not text.strip():
            return
        if self.level:
            text = one_line(text)
            self.outline.enter(self.level, text)
        yield Piece(self.mark + text, None, self.outline.path)
        self.mark = ""


def _walk(tree: LexborHTMLParser, outline: Outline, warnings: list[str]) -> Iterator[Piece]:
    root = tree.body or tree.root
    if root is not None:
        writer = _Writer(outline, _around_formulas(tree))
        yield from _below(root, writer)
        yield from writer.end()
        warnings += counted(writer.hidden, "hidden part left out", "hidden parts left out")
        warnings += counted(writer.navigation, "navigation left out", "navigations left out")


def _below(root: LexborNode, writer: _Writer) -> Iterator[Piece]:
    """Write an element and all below it."""
    node: LexborNode | None = root
    while node is not None:
        skipped = node.mem_id != root.mem_id and _is_skipped(node, writer)
        is_table = False
        if not skipped:
            is_table = node.tag == "table" and node.mem_id != root.mem_id
            yield from _table(node, writer) if is_table else _enter(node, writer)
        below = None if skipped or is_table or node.tag == "math" else node.child
        while below is None and node is not None:
            if not skipped and not is_table:
                yield from _leave(node, writer)
            skipped = is_table = False
            if node.mem_id == root.mem_id:
                return
            below, node = node.next, node.parent
        node = below


def _is_skipped(node: LexborNode, writer: _Writer) -> bool:
    tag = node.tag or ""
    if tag.startswith("-"):
        return tag != "-text"
    if tag in _SKIPPED:
        if tag == "script" and (node.attributes.get("type") or "").startswith("math/tex"):
            writer.write(f" {one_line(node.text())} ")
        return True
    if _repeats_formula(node, writer.around_formulas):
        return True
    hidden = node.attributes.get("hidden", "") if "hidden" in node.attributes else "until-found"
    if hidden != "until-found" or _HIDDEN.search(node.attributes.get("style") or ""):
        writer.hidden += bool(node.text().strip())
        return True
    if tag == "nav":
        writer.navigation += bool(node.text().strip())
        return True
    return False


def _integer(value: str | None) -> int | None:
    return int(value) if value and re.fullmatch(r"-?[0-9]{1,6}", value.strip()) else None


def _is_note(link: LexborNode) -> bool:
    """True for a link to a note, which is shown raised."""
    kind = link.attributes.get("epub:type") or link.attributes.get("role") or ""
    return kind in ("noteref", "doc-noteref")


def _around_formulas(tree: LexborHTMLParser) -> frozenset[int]:
    """The ids of the elements with MathML in them."""
    found: set[int] = set()
    for formula in tree.css("math"):
        node = formula.parent
        while node is not None and node.mem_id not in found:
            found.add(node.mem_id)
            node = node.parent
    return frozenset(found)


def _repeats_formula(node: LexborNode, around_formulas: frozenset[int]) -> bool:
    """True for the picture of a formula that is there as MathML, too, for programs that read aloud."""
    if node.attributes.get("aria-hidden") != "true" or node.parent is None or node.tag == "math":
        return False
    return node.parent.mem_id in around_formulas and node.mem_id not in around_formulas


def _tag(node: LexborNode) -> str:
    """The name of an element, by its style where that raises or lowers it."""
    tag = node.tag or ""
    style = node.attributes.get("style") if tag in ("span", "font", "small") else None
    found = _SCRIPT.search(style) if style else None
    return ("sup" if found[1].lower() == "super" else "sub") if found else tag


def _enter(node: LexborNode, writer: _Writer) -> Iterator[Piece]:
    tag = _tag(node)
    if tag == "-text":
        writer.write(node.text_content or "")
    elif tag == "br":
        writer.break_line()
    elif tag == "img":
        writer.write(f" {node.attributes.get('alt') or ''} ")
    elif tag == "input":
        writer.write(_input(node))
    elif tag == "math":
        writer.write(f" {formula(node)} ")
    elif tag in ("sup", "sub", "a", "rt", "text"):
        writer.begin()
    elif tag in _APART:
        writer.write(" ")
    elif tag in _BLOCKS:
        yield from writer.end()
        if tag == "li":
            writer.mark = writer.marker(node)
        elif tag == "pre":
            writer.verbatim += 1
        elif _HEADING.fullmatch(tag):
            writer.level = int(tag[1])


def _leave(node: LexborNode, writer: _Writer) -> Iterator[Piece]:
    tag = _tag(node)
    if tag in ("sup", "sub"):
        before, text = writer.take()
        writer.write((raised if tag == "sup" else lowered)(before, text))
    elif tag == "a":
        before, text = writer.take()
        address = node.attributes.get("href")
        if text.strip():
            text = raised(before, text) if _is_note(node) else linked(text, address)
        writer.write(text)
    elif tag == "rt":
        writer.read_as(writer.take()[1])
    elif tag == "ruby":
        writer.end_ruby()
    elif tag in _APART:
        writer.write(" ")
    elif tag == "text":  # of SVG
        writer.write(f" {writer.take()[1]} ")
    elif tag in _BLOCKS:
        yield from writer.end()
        if tag == "pre":
            writer.verbatim -= 1
        elif tag == "li":
            writer.mark = ""
        elif _HEADING.fullmatch(tag):
            writer.level = 0


def _input(node: LexborNode) -> str:
    """The text that a field shows: its value, and a cross for one that is ticked."""
    kind = (node.attributes.get("type") or "text").lower()
    if kind in ("checkbox", "radio"):
        return " [x] " if "checked" in node.attributes else " [ ] "
    shown = kind in ("submit", "button") or kind not in _FIELDS
    return f" {node.attributes.get('value') or ''} " if shown else " "


def formula(node: LexborNode) -> str:
    """A formula of MathML on one line: TeX where it has some."""
    for note in node.css("annotation"):
        if "tex" in (note.attributes.get("encoding") or "").lower() and (text := one_line(note.text())):
            return text
    return one_line(clean(_math(node, 0)))


def _math(node: LexborNode, depth: int) -> str:
    tag = node.tag or ""
    if tag == "-text":
        return one_line(node.text_content or "")
    if tag in ("annotation", "annotation-xml", "-comment") or depth > _DEEPEST_FORMULA:
        return ""
    parts = [text for child in node.iter(include_text=True) if (text := _math(child, depth + 1))]
    match tag, parts:
        case "mfrac", [above, below]:
            return f"{grouped(above)}/{grouped(below)}"
        case "msup", [base, high]:
            return f"{base}^{grouped(high)}"
        case "msub", [base, low]:
            return f"{base}_{grouped(low)}"
        case (("msubsup" | "munderover"), [base, low, high]):
            return f"{base}_{grouped(low)}^{grouped(high)}"
        case "msqrt", _:
            return f"√({''.join(parts)})"
        case "mtr", _:
            return " ".join(parts) + "; "
        case "mo", [sign] if sign in "=<>≤≥≈≠±→∈":
            return f" {sign} "
    return "".join(parts)


def _table(table: LexborNode, writer: _Writer) -> Iterator[Piece]:
    """The rows of a table with the names of their columns; one that only arranges blocks, as these blocks."""
    yield from writer.end()
    rows = [row for child in _children(table) for row in _rows(child)]
    has_names = any(cell.tag == "th" for row in rows for cell in row)
    blocks = "table, h1, h2, h3, h4, h5, h6" if has_names else "table, h1, h2, h3, h4, h5, h6, ul, ol"
    if any(cell.css_first(blocks) for row in rows for cell in row) or all(len(row) < 2 for row in rows):
        for child in _children(table):
            for cell in [child] if child.tag == "caption" else chain.from_iterable(_rows(child)):
                yield from _below(cell, writer)
                yield from writer.end()
        return
    for child in _children(table):
        if child.tag == "caption":
            yield from _below(child, writer)
            yield from writer.end()
    spans: list[list[Span]] = []
    labelled: list[bool] = []
    for row in rows:
        cells = [_span(cell, writer) for cell in row]
        if len(cells) == 1 and not spans:  # a title
            if cells[0].text:
                yield Piece(cells[0].text, None, writer.outline.path)
            continue
        marks = [cell.tag == "th" or not span.text for cell, span in zip(row, cells, strict=True)]
        labelled.append(all(marks) or bool(row[0].parent and _is_head(row[0].parent)))
        spans.append(cells)
    headers = next((number for number, is_label in enumerate(labelled) if not is_label), len(labelled))
    names = [row[0].tag == "th" and not any(cell.tag == "th" for cell in row[1:]) for row in rows if len(row) > 1]
    # Without a row of names, the names are those of the rows.
    known = headers or (0 if all(names) else None)
    yield from table_pieces(grid(spans), writer.outline.path, several=False, headers=known)


def _rows(part: LexborNode) -> Iterator[list[LexborNode]]:
    """The cells of the rows of a child of a table, not those of tables within."""
    for row in _children(part) if part.tag in ("thead", "tbody", "tfoot") else [part]:
        if row.tag == "tr" and (cells := [cell for cell in _children(row) if cell.tag in ("td", "th")]):
            yield cells


def _children(node: LexborNode) -> Iterator[LexborNode]:
    child = node.child
    while child is not None:
        yield child
        child = child.next


def _is_head(row: LexborNode) -> bool:
    return row.parent is not None and row.parent.tag == "thead"


def _span(cell: LexborNode, writer: _Writer) -> Span:
    inner = _Writer(Outline(), writer.around_formulas)
    text = one_line(" ".join(piece.text for piece in chain(_below(cell, inner), inner.end())))
    writer.hidden += inner.hidden
    return Span(text, spanned(cell.attributes.get("colspan")), spanned(cell.attributes.get("rowspan")))
