"""EPUB: the pages of a book in reading order, under the headings of its table of contents."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from adapters.documents.formats import html, xml
from adapters.documents.formats.parsed import Outline, Parsed, Piece, Refused, clean, one_line
from adapters.documents.formats.zipped import Zipped

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_CONTENTS = "application/x-dtbncx+xml"
_HEADING = re.compile(rb"<h[1-6]\b", re.IGNORECASE)
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")


def read(data: bytes) -> Parsed:
    book = Zipped(data)
    main = next((each.get("full-path", "") for each in xml.every(_tree(book, _CONTAINER), "rootfile")), "")
    package = _tree(book, main)
    title = next((one_line(clean(each.text or "")) for each in xml.every(package, "title")), "") or None
    warnings: list[str] = []
    pieces = list(_pieces(book, package, posixpath.dirname(main), warnings))
    return Parsed(pieces, None, title, list(dict.fromkeys(warnings)))


def _tree(book: Zipped, part: str) -> Element:
    with book.open(part) as file:
        return xml.tree(file)


def _pieces(book: Zipped, package: Element, folder: str, warnings: list[str]) -> Iterator[Piece]:
    """The blocks of all pages; a page without a heading gets the one of the table of contents."""
    items = {each.get("id", ""): each for each in xml.every(package, "item")}
    locked = _locked(book)
    labels = _labels(book, items, folder)
    outline = Outline()
    for reference in xml.every(package, "itemref"):
        item = items.get(reference.get("idref", ""))
        if item is None or item.get("media-type") not in _PAGES or "nav" in item.get("properties", "").split():
            continue
        part = _path(folder, item.get("href", ""))
        if part.lower() in locked:
            raise Refused("encrypted_file", "The book is encrypted: upload a copy without copy protection.")
        try:
            page = book.read(part)
        except Refused:
            warnings.append(f"page {part} cannot be read")
            continue
        if part in labels and not _HEADING.search(page):
            outline.enter(1, labels[part])
        yield from html.page(page, outline, warnings)[0]


def _path(folder: str, reference: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(reference.partition("#")[0])))


def _locked(book: Zipped) -> set[str]:
    """The encrypted parts, in lower case; fonts often are, and are not read."""
    if _ENCRYPTION not in book:
        return set()
    references = xml.every(_tree(book, _ENCRYPTION), "CipherReference")
    return {_path("", each.get("URI", "")).lower() for each in references}


def _labels(book: Zipped, items: dict[str, Element], folder: str) -> dict[str, str]:
    """The first heading of each page in the table of contents of EPUB 2 or 3."""
    found: dict[str, str] = {}
    for item in items.values():
        part = _path(folder, item.get("href", ""))
        if part not in book:
            continue
        if item.get("media-type") == _CONTENTS or "nav" in item.get("properties", "").split():
            for reference, words in html.contents(book.read(part)):
                found.setdefault(_path(posixpath.dirname(part), reference), words)
    return found
