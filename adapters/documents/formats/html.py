"""HTML: the visible text of a page, in blocks, without navigation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import Outline, Parsed, Piece, clean, one_line

_SKIPPED = frozenset(
    re.findall(
        r"\S+",
        """
        audio button canvas datalist embed head iframe map math nav noscript object script select style svg template
        video
        """,
    )
)
_INLINE = frozenset(
    re.findall(
        r"\S+",
        """
        -text a abbr acronym b bdi bdo big cite code data del dfn em font i img input ins kbd label mark meter output
        picture progress q rp rt ruby s samp small span strike strong sub sup time tt u var wbr
        """,
    )
)
_HEADING = re.compile("h[1-6]")
_CHARSET = re.compile(rb"<(?:meta[^<>]+charset|\?xml[^<>]+encoding)\s*+=\s*+[\"']?\s*+([\w.:-]+)", re.IGNORECASE)
_XML = re.compile(r"\A\s*+<\?xml\b")
_CLOSED = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)(\w[\w:.-]*)(?=[\s/])([^<>]*)/>"
)
"""An empty element of XHTML, which HTML would not close."""


def read(data: bytes) -> Parsed:
    found, title = page(data, Outline())
    return Parsed(list(found), None, title)


def page(data: bytes, outline: Outline) -> tuple[Iterator[Piece], str | None]:
    """The blocks of a page that continues the outline, and its title."""
    declared = _CHARSET.search(data[:4096])
    text = clean(decode(data, declared[1].decode("ascii") if declared else None))
    if _XML.match(text):
        text = _CLOSED.sub(r"<\1\2></\1>", text)
    tree = LexborHTMLParser(text)
    title = tree.css_first("title")
    return _walk(tree, outline), (one_line(title.text()) or None) if title else None


def contents(data: bytes) -> Iterator[tuple[str, str]]:
    """The entries of the table of contents of EPUB 2 or 3: target and text."""
    tree = LexborHTMLParser(_CLOSED.sub(r"<\1\2></\1>", clean(decode(data))))
    for link in tree.css("nav a[href]"):
        yield link.attributes["href"] or "", one_line(link.text())
    for point in tree.css("navpoint"):
        label, content = point.css_first("navlabel"), point.css_first("content")
        if label and content:
            yield content.attributes.get("src") or "", one_line(label.text())


def pieces(fragment: str) -> Iterator[Piece]:
    """The blocks of a fragment within another text."""
    return _walk(LexborHTMLParser(fragment), Outline())


class _Writer:
    """Collects text into blocks; `mark` is the prefix of the next one."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.mark = ""
        self.level = 0
        self.verbatim = 0
        self._parts: list[str] = []
        self._items: Counter[int] = Counter()

    def marker(self, parent: LexborNode | None) -> str:
        """The prefix of the next list item: its number, or a dash."""
        if parent is None or parent.tag != "ol":
            return "- "
        self._items[parent.mem_id] += 1
        return f"{self._items[parent.mem_id]}. "

    def write(self, text: str) -> None:
        self._parts.append(text if self.verbatim else re.sub(r"[ \t\n\r\f]+", " ", text))

    def break_line(self) -> None:
        self._parts.append("\n")

    def end(self) -> Iterator[Piece]:
        """End the block; drop it without text."""
        text = "".join(self._parts).replace("\xa0", " ")
        self._parts.clear()
        text = text.strip("\n") if self.verbatim else re.sub(" ?\n ?", "\n", re.sub(" {2,}", " ", text)).strip()
        if not text.strip():
            return
        if self.level:
            text = one_line(text)
            self.outline.enter(self.level, text)
        yield Piece(self.mark + text, None, self.outline.path)
        self.mark = ""


def _walk(tree: LexborHTMLParser, outline: Outline) -> Iterator[Piece]:
    root = tree.body or tree.root
    if root is None:
        return
    writer = _Writer(outline)
    node: LexborNode | None = root
    while node is not None:
        skipped = node.tag in _SKIPPED or "hidden" in node.attributes
        if not skipped:
            yield from _enter(node, writer)
        below = None if skipped or node.tag == "tr" else node.child
        while below is None and node is not None:
            if not skipped:
                yield from _leave(node, writer)
            skipped = False
            if node.mem_id == root.mem_id:
                node = None
                break
            below, node = node.next, node.parent
        node = below
    yield from writer.end()


def _enter(node: LexborNode, writer: _Writer) -> Iterator[Piece]:
    tag = node.tag or ""
    if tag == "-text":
        writer.write(node.text_content or "")
    elif tag == "br":
        writer.break_line()
    elif tag == "img":
        writer.write(f" {node.attributes.get('alt') or ''} ")
    elif tag not in _INLINE:
        yield from writer.end()
        if tag == "li":
            writer.mark = writer.marker(node.parent)
        elif tag == "tr":
            cells = [one_line(_words(cell)) for cell in node.iter() if cell.tag in ("td", "th")]
            writer.write(" | ".join(cells) if any(cells) else "")
        elif tag == "pre":
            writer.verbatim += 1
        elif _HEADING.fullmatch(tag):
            writer.level = int(tag[1])


def _leave(node: LexborNode, writer: _Writer) -> Iterator[Piece]:
    tag = node.tag or ""
    if tag in _INLINE or tag in ("br", "-comment"):
        return
    yield from writer.end()
    if tag == "pre":
        writer.verbatim -= 1
    elif tag == "li":
        writer.mark = ""
    elif _HEADING.fullmatch(tag):
        writer.level = 0


def _words(cell: LexborNode) -> str:
    """The text of a table cell, with spaces between lines."""
    for unwanted in cell.css(", ".join(_SKIPPED - {"head", "template"})):
        unwanted.decompose()
    return cell.text(separator=" ") if cell.css_first("p, div, br, li, table") else cell.text()
