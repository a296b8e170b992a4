"""PowerPoint presentations: the text of each slide, title first, and its notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from xml.etree.ElementTree import Element

from adapters.documents.formats import xml
from adapters.documents.formats.office import Package, Relation, relation_id, text_of
from adapters.documents.formats.parsed import SEPARATOR, Parsed, Piece, clean, counted, one_line
from adapters.documents.formats.tables import Span, grid, spanned
from adapters.documents.formats.tables import pieces as pieces_of_table

_TITLES = ("title", "ctrTitle")
_RUNNING = ("dt", "ftr", "hdr", "sldNum", "sldImg")
"""Placeholders with the same text on many slides."""


def read(data: bytes) -> Parsed:
    package = Package(data)
    main = package.main("ppt/presentation.xml")
    presentation, relations = package.tree(main), package.relations(main)
    sections = _sections(presentation)
    pieces: list[Piece] = []
    hidden = 0
    number = 0
    for slide in xml.every(xml.child(presentation, "sldIdLst"), "sldId"):
        relation = relations.get(relation_id(slide))
        if relation and relation.target in package:
            number += 1
            for root in package.sound(relation.target):
                hidden += sum(map(_hides_text, xml.every(root, "sp", "graphicFrame")))
                pieces += _slide(package, relation.target, root, number, sections.get(slide.get("id", "")))
    first = next((piece.text for piece in pieces if piece.page == 1 and piece.heading), None)
    title = package.title() or (one_line(first) if first else None)
    left_out = counted(hidden, "hidden shape left out", "hidden shapes left out")
    return Parsed(pieces, number, title, [*left_out, *dict.fromkeys(package.warnings)])


def _hides_text(shape: Element) -> bool:
    return _is_hidden(shape) and any(text.text for text in xml.every(shape, "t"))


def _sections(presentation: Element) -> dict[str, str]:
    """The names of the slides' sections, by slide id."""
    return {
        slide.get("id", ""): one_line(clean(section.get("name", "")))
        for section in xml.every(presentation, "section")
        for slide in xml.every(section, "sldId")
    }


def _slide(package: Package, part: str, root: Element, number: int, section: str | None) -> Iterator[Piece]:
    relations, addresses = package.relations(part), package.addresses(part)
    shapes = list(_shapes(root))
    shapes.sort(key=lambda shape: _place(shape) not in _TITLES)
    title = next((one_line(" ".join(_lines(shape))) for shape in shapes if _place(shape) in _TITLES), "")
    heading = SEPARATOR.join(filter(None, (section, title))) or None
    lines = [title] if title else []
    for shape in shapes:
        if _place(shape) not in _TITLES or not title:
            lines += _written(package, shape, relations, addresses, heading)
    for notes in package.related(part, "notesSlide"):
        for tree in package.sound(notes):
            lines += (line for shape in _shapes(tree) if _place(shape) == "body" for line in _lines(shape))
    return (Piece(line, number, heading) for line in lines)


def _shapes(element: Element) -> Iterator[Element]:
    """The visible shapes of a slide, including those in groups."""
    for each in element:
        match xml.name(each):
            case "sp" | "graphicFrame" | "pic" | "cxnSp" if not _is_hidden(each):
                yield each
            case "grpSp" if not _is_hidden(each):
                yield from _shapes(each)
            case "cSld" | "spTree" | "AlternateContent" | "Choice":
                yield from _shapes(each)


def _is_hidden(shape: Element) -> bool:
    return _own(shape).get("hidden") in ("1", "true")


def _own(shape: Element) -> Element:
    """The element with a shape's name, description and visibility."""
    return next((own for each in shape if (own := xml.child(each, "cNvPr")) is not None), shape)


def _place(shape: Element) -> str | None:
    """The role of a shape in the slide's layout; None for a shape outside of it."""
    for properties in shape:  # nvSpPr, nvPicPr, nvGraphicFramePr
        if (place := xml.child(properties, "nvPr", "ph")) is not None:
            return place.get("type", "obj")
    return None


def _lines(shape: Element, addresses: Mapping[str, str] | None = None) -> list[str]:
    paragraphs: Iterable[Element] = xml.every(xml.child(shape, "txBody"), "p")
    return [text for paragraph in paragraphs if (text := text_of(paragraph, addresses))]


def _written(
    package: Package, shape: Element, relations: dict[str, Relation], addresses: Mapping[str, str], heading: str | None
) -> Iterator[str]:
    if _place(shape) in _RUNNING:
        return
    yield from _lines(shape, addresses)
    rows = (
        [
            Span(
                "\n".join(filter(None, (text_of(each, addresses) for each in xml.every(cell, "p")))),
                spanned(cell.get("gridSpan")),
                spanned(cell.get("rowSpan")),
            )
            for cell in xml.every(row, "tc")
            if not {cell.get("hMerge"), cell.get("vMerge")} & {"1", "true"}
        ]
        for row in xml.every(shape, "tr")
    )
    yield from (piece.text for piece in pieces_of_table(grid(rows), heading, several=False))
    yield from package.drawn(shape, relations)
    if xml.name(shape) == "pic" and (words := _own(shape).get("descr")):
        yield one_line(clean(words))
