"""PowerPoint presentations: the text of each slide, title first, and its notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from adapters.documents.formats import xml
from adapters.documents.formats.office import ROW, Package, Relation, text_of
from adapters.documents.formats.parsed import SEPARATOR, Parsed, Piece, clean, one_line

_TITLES = ("title", "ctrTitle")
_RUNNING = ("dt", "ftr", "hdr", "sldNum", "sldImg")
"""Placeholders with the same text on many slides."""


def read(data: bytes) -> Parsed:
    package = Package(data)
    main = package.main("ppt/presentation.xml")
    presentation, relations = package.tree(main), package.relations(main)
    sections = _sections(presentation)
    pieces: list[Piece] = []
    number = 0
    for slide in xml.every(xml.child(presentation, "sldIdLst"), "sldId"):
        relation = relations.get(slide.get(_relation_id(slide), ""))
        if relation and relation.target in package:
            number += 1
            pieces += _slide(package, relation.target, number, sections.get(slide.get("id", "")))
    first = next((piece.text for piece in pieces if piece.page == 1 and piece.heading), None)
    return Parsed(pieces, number, package.title() or (one_line(first) if first else None))


def _relation_id(slide: Element) -> str:
    """The qualified name of the attribute `r:id`; there is an `id`, too."""
    return next((key for key in slide.keys() if key.endswith("}id")), "")  # noqa: SIM118  # an element is no mapping


def _sections(presentation: Element) -> dict[str, str]:
    """The names of the slides' sections, by slide id."""
    return {
        slide.get("id", ""): one_line(clean(section.get("name", "")))
        for section in xml.every(presentation, "section")
        for slide in xml.every(section, "sldId")
    }


def _slide(package: Package, part: str, number: int, section: str | None) -> Iterator[Piece]:
    relations = package.relations(part)
    shapes = list(_shapes(package.tree(part)))
    shapes.sort(key=lambda shape: _place(shape) not in _TITLES)
    title = next((one_line(" ".join(_lines(shape))) for shape in shapes if _place(shape) in _TITLES), "")
    heading = SEPARATOR.join(filter(None, (section, title))) or None
    lines = [title] if title else []
    for shape in shapes:
        if _place(shape) not in _TITLES or not title:
            lines += _written(package, shape, relations)
    for notes in package.related(part, "notesSlide"):
        lines += (line for shape in _shapes(package.tree(notes)) if _place(shape) == "body" for line in _lines(shape))
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


def _lines(shape: Element) -> list[str]:
    paragraphs: Iterable[Element] = xml.every(xml.child(shape, "txBody"), "p")
    return [text for text in map(text_of, paragraphs) if text]


def _written(package: Package, shape: Element, relations: dict[str, Relation]) -> Iterator[str]:
    if _place(shape) in _RUNNING:
        return
    yield from _lines(shape)
    for row in xml.every(shape, "tr"):
        cells = [one_line(" ".join(filter(None, map(text_of, xml.every(cell, "p"))))) for cell in xml.every(row, "tc")]
        if any(cells):
            yield ROW.join(cells)
    yield from package.drawn(shape, relations)
    if xml.name(shape) == "pic" and (words := _own(shape).get("descr")):
        yield one_line(clean(words))
