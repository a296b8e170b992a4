"""PDF: the lines of the pages, joined to paragraphs."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as raw  # type: ignore[import-untyped]

from adapters.documents.formats.parsed import Outline, Parsed, Piece, Refused, clean, joined, one_line

_PASSWORD = 4
NEAR = 100
"""Number of lines by which the width of a paragraph is known."""

_MARGIN = 0.12
"""Share of a page's height, at its top and bottom, with running titles and page numbers."""

_LINE = re.compile("[^\r\n\x02]+\x02?|\x02")
"""PDFium returns \\x02 for a hyphen at the end of a line."""

_HYPHENS = "-\u2010\u2011"
_ITEM = re.compile(r"(?:[-–•‣▪●○◦*]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s")
_ENDED = re.compile(r"[.!?:;…。！？؟।۔]['\"”’»)\]]*$")
_SENTENCE = re.compile(r"\A.*?[.!?…。！？؟।۔]['\"”’»)\]]*+(?:\s++|$)", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LAST = re.compile(rf"(?<![^\W\d_])([^\W\d_]++)([{_HYPHENS}])$")
_FIRST = re.compile(r"[^\W\d_]+")


@dataclass(slots=True)
class _Line:
    """A line of a page; lengths are in points, `y` is the height of its base above the bottom of the page."""

    text: str
    page: int
    left: float
    right: float
    y: float
    size: float
    page_height: float

    @property
    def rounded(self) -> float:
        """The size, rounded for comparisons."""
        return round(self.size, 1)

    @property
    def running(self) -> tuple[str, int] | None:
        """The key that is equal on every page if this is a running title or a page number."""
        if self.page_height * _MARGIN < self.y < self.page_height * (1 - _MARGIN):
            return None
        return re.sub(r"\d+|\b[ivxlc]+\b", "#", self.text), round(self.y)


def read(data: bytes) -> Parsed:
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD:
            raise Refused("encrypted_file", "The PDF is encrypted: upload a copy without a password.") from None
        raise Refused("broken_file", f"The PDF cannot be opened: {error}") from None
    with document:
        pages = len(document)
        lines = _without_running([line for number in range(pages) for line in _lines(document, number)])
        title = one_line(clean(document.get_metadata_value("Title"))) or None
    if not lines:
        raise Refused("no_text", "The PDF holds no text: its pages may be scanned images.")
    return Parsed(list(_pieces(lines)), pages, title)


def _lines(document: pdfium.PdfDocument, number: int) -> Iterator[_Line]:
    try:
        page = document[number]
        text = page.get_textpage()
    except pdfium.PdfiumError as error:
        raise Refused("broken_file", f"Page {number + 1} of the PDF cannot be read: {error}") from None
    try:
        height = page.get_height()
        signs = "".join(chr(raw.FPDFText_GetUnicode(text, index)) for index in range(text.count_chars()))
        for found in _LINE.finditer(signs):
            if found[0].strip() and (line := _line(text, found[0], found.start(), number + 1, height)).text:
                yield line
    finally:
        text.close()
        page.close()


def _line(text: pdfium.PdfTextPage, line: str, start: int, page: int, height: float) -> _Line:
    first = start + len(line) - len(line.lstrip())
    last = start + len(line.rstrip()) - 1
    left, low, right, high = text.get_charbox(first, loose=True)
    right = max(right, text.get_charbox(last, loose=True)[2])
    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(text, first, x, y)
    return _Line(_tidy(line), page, left, right, y.value, max(high - low, 1.0), height)


def _tidy(line: str) -> str:
    """The line with combined surrogate pairs, and a hyphen where a word is split at its end."""
    line = line.strip().encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return one_line(clean(re.sub("[\x02\xad\ufffe]$", "\u2010", line)))


def _without_running(lines: list[_Line]) -> list[_Line]:
    """The lines without running titles: those of equal text and height on two or more pages, and on half of all.

    Large ones at the top of pages are headings of chapters, and stay.
    """
    pages = len({line.page for line in lines})
    large = _body(lines) * 1.1
    seen = Counter(key for key, _ in {(line.running, line.page) for line in lines} if key)
    running = {key for key, count in seen.items() if count >= max(2, pages / 2)}

    def kept(line: _Line) -> bool:
        return line.running not in running or (line.size > large and line.y > line.page_height / 2)

    return [line for line in lines if kept(line)] or lines


def _pieces(lines: list[_Line]) -> Iterator[Piece]:
    """The paragraphs; a sentence that continues on the next page belongs to the page where it begins."""
    levels = _levels(lines)
    vocabulary = Counter(word for line in lines for word in _WORD.findall(line.text.lower()))
    outline = Outline()
    paragraphs = list(_paragraphs(lines, _spacing(lines)))
    carried = ""
    for paragraph, after in zip_longest(paragraphs, paragraphs[1:]):
        first = paragraph[0]
        text = _whole([line.text for line in paragraph], vocabulary)[len(carried) :].lstrip()
        carried = ""
        if level := levels.get(first.rounded, 0):
            outline.enter(level, text)
        elif after and after[0].page > first.page and _goes_on(paragraph[-1], after[0]):
            rest = _whole([line.text for line in after], vocabulary)
            sentence = _SENTENCE.match(rest)
            carried = sentence[0] if sentence else rest
            text = _whole([text, carried.rstrip()], vocabulary)
        if text:
            yield Piece(text, first.page, outline.path)


def _paragraphs(lines: list[_Line], spacing: float) -> Iterator[list[_Line]]:
    """Lines of one paragraph; `spacing` is the distance of lines as a multiple of their size."""
    paragraph: list[_Line] = []
    for line in lines:
        if paragraph and _begins(line, paragraph, spacing):
            yield paragraph
            paragraph = []
        paragraph.append(line)
    if paragraph:
        yield paragraph


def _begins(line: _Line, paragraph: list[_Line], spacing: float) -> bool:
    """True if a line begins a new paragraph."""
    before = paragraph[-1]
    if line.page != before.page or abs(line.size - before.size) > 0.1 * before.size or _ITEM.match(line.text):
        return True
    fall = before.y - line.y
    if fall < 0:
        return not _goes_on(before, line)
    if fall > 1.2 * spacing * line.size:
        return True
    if not _ENDED.search(before.text):
        return False
    widest = max(each.right for each in paragraph[-NEAR:])
    short = before.right < widest - 0.15 * (widest - before.left)
    indented = line.left > before.left + line.size * 0.8 and not _ITEM.match(paragraph[0].text)
    return short or indented


def _goes_on(before: _Line, line: _Line) -> bool:
    """True if a sentence continues across a column or a page."""
    if before.text[-1] in _HYPHENS:
        return True
    return before.rounded == line.rounded and not _ENDED.search(before.text) and line.text[0].islower()


def _whole(texts: list[str], vocabulary: Counter[str]) -> str:
    """The text of joined lines, with words that were split at line ends rejoined."""
    lines = [[texts[0]]]
    for text in texts[1:]:
        before = lines[-1][-1]
        head, tail = _LAST.search(before), _FIRST.match(text)
        if head and tail:
            solid, hyphened = (head[1] + tail[0]).lower(), (head[1] + "-" + tail[0]).lower()
            keep = head[2] in "-\u2010\u2011" and vocabulary[hyphened] > vocabulary[solid]
            lines[-1][-1] = before[: head.start(2)] + ("-" if keep else "")
            lines[-1].append(text)
        else:
            lines.append([text])
    return joined(map("".join, lines))


def _levels(lines: list[_Line]) -> dict[float, int]:
    """The levels of headings by size: sizes above that of the body, if they are a small part of all."""
    written = _written(lines)
    body = _body(lines)
    large = sorted((size for size in written if size >= body * 1.15), reverse=True)
    if sum(written[size] for size in large) > 0.2 * written.total():
        return {}
    return {size: level for level, size in enumerate(large, 1)}


def _written(lines: list[_Line]) -> Counter[float]:
    """The amount of text in each size."""
    written = Counter[float]()
    for line in lines:
        written[line.rounded] += len(line.text)
    return written


def _body(lines: list[_Line]) -> float:
    """The size of most of the text."""
    return max(_written(lines).items(), key=lambda each: each[1], default=(1.0, 0))[0]


def _spacing(lines: list[_Line]) -> float:
    """The most common distance of two lines, as a multiple of their size, weighted by text."""
    found = Counter[float]()
    for before, line in pairwise(lines):
        fall = (before.y - line.y) / line.size
        if before.page == line.page and before.rounded == line.rounded and 0.5 < fall < 2.5:
            found[round(fall, 1)] += len(line.text)
    return max(found, key=lambda fall: found[fall]) if found else 1.2
