"""XML from untrusted files: no document type, and so no entities.

Elements are identified by local name, since the same ones exist in several namespaces (strict and transitional Office
documents, old and new drafts).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Never
from xml.etree.ElementTree import Element, ParseError, XMLParser, XMLPullParser
from xml.parsers.expat import ExpatError, ParserCreate

from adapters.documents.formats.parsed import Refused

_CHUNK = 2**16


class _Begun(Exception):
    """The first element, which ends the prolog."""


def name(element: Element) -> str:
    """The local name."""
    return element.tag.rpartition("}")[2]


def attribute(element: Element | None, wanted: str) -> str | None:
    """An attribute by its local name."""
    if element is not None:
        for key, value in element.items():
            if key.rpartition("}")[2] == wanted:
                return value
    return None


def child(element: Element | None, *path: str) -> Element | None:
    """The first descendant by a path of local names."""
    for wanted in path:
        element = next((each for each in (element if element is not None else ()) if name(each) == wanted), None)
    return element


def every(element: Element | None, *wanted: str) -> Iterator[Element]:
    """The element itself and all descendants with one of these local names."""
    return (each for each in (element.iter() if element is not None else ()) if name(each) in wanted)


def tree(file: IO[bytes]) -> Element:
    """The root of a whole document. Raises: Refused `broken_file`."""
    parser = XMLParser()
    with _broken_refused():
        for chunk in _without_doctype(file):
            parser.feed(chunk)
        root: Element = parser.close()
    return root


def below(file: IO[bytes], *path: str) -> Iterator[Element]:
    """The children of elements at a path of local names from the root, each freed when the next one is read.

    Raises: Refused `broken_file`.
    """
    parser: XMLPullParser[Any] = XMLPullParser(("start", "end"))
    opened: list[Element] = []
    with _broken_refused():
        for chunk in _without_doctype(file):
            parser.feed(chunk)
            events: Iterator[tuple[str, Any]] = parser.read_events()  # type: ignore[assignment]  # only these two
            for event, element in events:
                if event == "start":
                    opened.append(element)
                    continue
                opened.pop()
                if len(opened) == len(path) and all(map(_is, opened, path)):
                    yield element
                if 0 < len(opened) <= len(path):
                    opened[-1].remove(element)
        parser.close()


def _is(element: Element, wanted: str) -> bool:
    return name(element) == wanted


@contextmanager
def _broken_refused() -> Iterator[None]:
    try:
        yield
    except (ParseError, ExpatError) as error:
        raise Refused("broken_file", f"The file's XML is broken: {error}.") from None


def _without_doctype(file: IO[bytes]) -> Iterator[bytes]:
    """The chunks of a file, after checking that it declares no document type."""
    guard = ParserCreate()
    guard.StartDoctypeDeclHandler = _refuse
    guard.StartElementHandler = _begin
    begun = False
    while chunk := file.read(_CHUNK):
        if not begun:
            try:
                guard.Parse(chunk)
            except _Begun:
                begun = True
        yield chunk


def _refuse(*_: object) -> Never:
    raise Refused("broken_file", "The file's XML declares a document type, which may hold entities: it is not read.")


def _begin(*_: object) -> Never:
    raise _Begun
