"""PDF: the lines of the pages, joined to paragraphs; form fields and addresses of links where they stand.

Lines are measured in the frame in which most of a page's text is upright, however the page or its text is turned.
"""

from __future__ import annotations

import ctypes
import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, islice, pairwise, zip_longest
from typing import Any

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as raw  # type: ignore[import-untyped]

from adapters.documents.formats.links import linked
from adapters.documents.formats.parsed import (
    Outline,
    Parsed,
    Piece,
    Refused,
    are_records,
    clean,
    counted,
    joined,
    lowered,
    one_line,
    raised,
)

_PASSWORD = 4
NEAR = 100
"""Number of lines by which the width of a paragraph is known."""

_MARGIN = 0.12
"""Share of a page's height, at its top and bottom, with running titles and page numbers."""

_MANY = 3
"""Number of pages from which lines with equal texts are running titles; two for those with the number of the page."""

_LARGE = 1.5
"""Size of a watermark, as a multiple of that of the body."""

_MOST_LINKS = 2000
_DEGREES = 90

_LINE = re.compile("[^\r\n\x02]+\x02?|\x02")
"""PDFium returns \\x02 for a hyphen at the end of a line."""

_RAISED = re.compile(r"(?<=[^\W_])[-−–+]?\d|(?<=[.,;:!?)\]’”])\d")
"""Digits that may be raised or lowered, with their sign."""

_FORMS = re.compile("[\ufb00-\ufb06\ufb1d-\ufdfd\ufe70-\ufefc]")
"""Ligatures and shapes of letters."""

_RIGHT_TO_LEFT = re.compile("[\u05d0-\u05ea\u0620-\u064a\u066e-\u06d3]")
"""A letter of Hebrew or Arabic."""

_LEFT_TO_RIGHT = re.compile(r"[0-9A-Za-z](?:[\w.,:/@%+-]*[0-9A-Za-z%])?", re.ASCII)
"""A number or a word that is read from left to right within text that is not."""

_LEADER = re.compile(r"(?:(?<!\.)\.{4,}+|(?<!\. )(?:\. ){3,}+|(?<!…)…{2,}+)\s*+[\divxlc]++\s*+$")
"""The end of a line of a table of contents."""

_WIDE_GAP = 2.0
"""Distance of two cells of a row, as a multiple of the size."""

_LAM_ALEF = re.compile("\u0644[\u0622\u0623\u0625\u0627]")
"""The most common ligature; PDFium keeps its order where the font names it by its own character."""

_NUMBER = re.compile(r"\d+|\b(?=[ivx])x{0,3}(?:ix|iv|v?i{0,3})\b")
_PAGE_WORD = re.compile(
    r"\b(?:page|pg|seite|s\.|p\.|página|pág|pagina|pag|strona|str|sida|side|sivu|oldal|страница|стр|с\.|صفحة|hal)|[第页頁ページ쪽]",
    re.IGNORECASE,
)
_LAST_NUMBER = re.compile(r"\d{1,4}\Z")
_FIRST_NUMBER = re.compile(r"\d{1,4}(?=\s)")
_DIVIDED = re.compile(r"#\s?[|·•–—/]|[|·•–—/]\s?#")
"""A number that is divided from the words."""

_ROMAN = {"i": 1, "v": 5, "x": 10}

_BLANK = re.compile(r"\s+")
_HYPHENS = "-\u2010\u2011"
_ITEM = re.compile(r"(?:[-–•‣▪●○◦*]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s")
_ENDED = re.compile(r"[.!?:;…。！？؟।۔]['\"”’»)\]]*$")
_SENTENCE = re.compile(r"\A.*?[.!?…。！？؟।۔]['\"”’»)\]]*+(?:\s++|$)", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LAST = re.compile(rf"(?<![^\W\d_])([^\W\d_]++)([{_HYPHENS}])$")
_FIRST = re.compile(r"[^\W\d_]+")


@dataclass(slots=True)
class _Line:
    """A line of a page; lengths are in points, `y` is the height of its base above the bottom of the page.

    `angle` is that of its base to those of most lines, in degrees; an `aside` is no part of the text around it, such as
    a watermark.
    """

    text: str
    page: int
    left: float
    right: float
    y: float
    size: float
    page_height: float
    angle: int = 0
    aside: bool = False
    spread: bool = False
    """A number at its start or end is far from the words."""
    is_row: bool = False
    """Some of its words are far from each other, as cells of a row are."""
    filled: list[tuple[int, str]] = field(default_factory=list)
    """Values of fields within the line, each with the number of characters before it, without spaces."""

    @property
    def rounded(self) -> float:
        """The size, rounded for comparisons."""
        return round(self.size, 1)

    @property
    def in_margin(self) -> bool:
        return not self.page_height * _MARGIN < self.y < self.page_height * (1 - _MARGIN)


def read(data: bytes) -> Parsed:
    if b"%PDF-" not in data[:1024]:
        data = b"%PDF-1.4\n" + data
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD:
            raise Refused("encrypted_file", "The PDF is encrypted: upload a copy without a password.") from None
        raise Refused("broken_file", f"The PDF cannot be opened: {error}") from None
    with document:
        pages = len(document)
        if document.get_formtype() != raw.FORMTYPE_NONE:
            document.init_forms()
        reader = _Reader(document)
        lines = [line for number in range(pages) for line in reader.lines(number)]
        title = one_line(clean(document.get_metadata_value("Title"))) or None
    if not lines:
        if pages and len(reader.broken) == pages:
            raise Refused("broken_file", "None of the pages of the PDF can be read.")
        raise Refused("no_text", "The PDF holds no text: its pages may be scanned images.")
    _set_aside(lines)
    titles, left_out = _running(lines)
    dropped = set(map(id, (*titles, *left_out)))
    body = list(_with_whole_rows(line for line in lines if id(line) not in dropped))
    pieces = _with_titles(list(_pieces(body)), titles)
    warnings = [f"page {number} cannot be read" for number in reader.broken]
    warnings += counted(len(left_out), "line taken for a running title", "lines taken for running titles")
    warnings += counted(reader.hidden, "hidden field left out", "hidden fields left out")
    warnings += counted(reader.comments, "comment left out", "comments left out")
    return Parsed(pieces, pages, title, warnings)


class _Reader:
    """Reads the pages of a document; counts what it leaves out."""

    def __init__(self, document: pdfium.PdfDocument) -> None:
        self._document = document
        self.broken: list[int] = []
        self.hidden = self.comments = 0

    def lines(self, number: int) -> list[_Line]:
        """The lines of a page from 0, and the values of its fields; none if it is broken."""
        try:
            page = self._document[number]
        except pdfium.PdfiumError:
            self.broken.append(number + 1)
            return []
        try:
            text = page.get_textpage()
        except pdfium.PdfiumError:
            self.broken.append(number + 1)
            page.close()
            return []
        try:
            found = _lines(self._document, page, text, number + 1)
            self._annotations(page, text, number + 1, found)
            for line in found:
                _write_filled(line)
            return found
        finally:
            text.close()
            page.close()

    def _annotations(self, page: pdfium.PdfPage, text: pdfium.PdfTextPage, number: int, lines: list[_Line]) -> None:
        """Add what was filled into fields, and free texts."""
        for index in range(raw.FPDFPage_GetAnnotCount(page)):
            annotation = raw.FPDFPage_GetAnnot(page, index)
            if not annotation:
                continue
            kind = raw.FPDFAnnot_GetSubtype(annotation)
            is_hidden = raw.FPDFAnnot_GetFlags(annotation) & (raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW)
            if kind == raw.FPDF_ANNOT_WIDGET and self._document.formenv:
                if value := _value(self._document.formenv, annotation):
                    if is_hidden:
                        self.hidden += 1
                    else:
                        _fill_in(page, text, number, lines, annotation, self._document.formenv, value)
            elif kind not in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_WIDGET):
                words = _string(partial(raw.FPDFAnnot_GetStringValue, annotation, b"Contents"))
                if kind == raw.FPDF_ANNOT_FREETEXT and words.strip() and not is_hidden:
                    _fill_in(page, text, number, lines, annotation, None, words)
                else:
                    self.comments += bool(words.strip())
            raw.FPDFPage_CloseAnnot(annotation)


def _lines(document: pdfium.PdfDocument, page: pdfium.PdfPage, text: pdfium.PdfTextPage, number: int) -> list[_Line]:
    signs = "".join(map(_sign, (raw.FPDFText_GetUnicode(text, index) for index in range(text.count_chars()))))
    spans, angles = [], []
    for found in _LINE.finditer(signs):
        for start, line, angle in _level_parts(text, found[0], found.start()):
            spans.append((start, line))
            angles.append(angle)
    weights = Counter[int]()
    for angle, (_, line) in zip(angles, spans, strict=True):
        weights[angle] += len(line)
    upright = max(weights, key=lambda angle: weights[angle], default=0)
    base = round(upright / _DEGREES) * _DEGREES % 360
    low, high = _extent(page, base)
    suffixes = _addresses(document, page, text, spans)
    lines = []
    for (start, line), angle in zip(spans, angles, strict=True):
        whole = _with_scripts(text, line, start) if angle == 0 else [*line]
        if _RIGHT_TO_LEFT.search(line):
            _turn_ligatures(text, whole, start)
        for place, suffix in suffixes.get(start, ()):
            whole[place] += suffix
        if angle == 0 and _RIGHT_TO_LEFT.search(line):
            whole = _in_reading_order(text, whole, start)
        if written := _tidy("".join(whole)):
            turned = (angle - base) % 360
            lines.append(_line(text, written, line, start, angle, number, low, high - low, turned))
    upward = sum(line.y > before.y for before, line in pairwise(lines))
    return lines[::-1] if len(lines) > 2 and upward > 0.8 * (len(lines) - 1) else lines


def _level_parts(text: pdfium.PdfTextPage, line: str, start: int) -> Iterator[tuple[int, str, int]]:
    """A line, divided where the direction of its base changes: the start, text and direction of each part."""
    if not line.strip():
        return
    first, last = len(line) - len(line.lstrip()), len(line.rstrip()) - 1
    angle = _angle(text, start + first)
    if angle == _angle(text, start + last):
        yield start, line, angle
        return
    angles = [None if sign.isspace() else _angle(text, start + at) for at, sign in enumerate(line)]
    for at in range(1, len(angles)):
        angles[at] = angles[at - 1] if angles[at] is None else angles[at]
    place = 0
    for same, part in groupby(angles):
        end = place + len(list(part))
        if line[place:end].strip():
            yield start + place, line[place:end], same or 0
        place = end


def _sign(code: int) -> str:
    return chr(code) if code < 0x110000 else "\ufffd"


def _angle(text: pdfium.PdfTextPage, index: int) -> int:
    """The direction of a character's base, in degrees, as the page is stored."""
    matrix = raw.FS_MATRIX()
    if not raw.FPDFText_GetMatrix(text, index, matrix) or not (matrix.a or matrix.b):
        return 0
    return round(math.degrees(math.atan2(matrix.b, matrix.a))) % 360


def _turned(x: float, y: float, angle: int) -> tuple[float, float]:
    """A point in the frame where a base at this angle is level."""
    if angle == 0:
        return x, y
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * cos + y * sin, y * cos - x * sin


def _extent(page: pdfium.PdfPage, angle: int) -> tuple[float, float]:
    """The lowest and the highest point of a page, in the frame of this angle."""
    box = raw.FS_RECTF()
    if not raw.FPDF_GetPageBoundingBox(page, box):
        return 0.0, float(page.get_height())
    corners = [_turned(x, y, angle)[1] for x in (box.left, box.right) for y in (box.bottom, box.top)]
    return min(corners), max(corners)


def _line(
    text: pdfium.PdfTextPage,
    written: str,
    line: str,
    start: int,
    angle: int,
    page: int,
    bottom: float,
    height: float,
    turned: int,
) -> _Line:
    first = start + len(line) - len(line.lstrip())
    last = start + len(line.rstrip()) - 1
    left, low, right, high = _box(text, first, angle)
    right = max(right, _box(text, last, angle)[2])
    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(text, first, x, y)
    size = max(_height(text, line, start, angle, high - low), 1.0)
    if angle % _DEGREES:  # boxes are not turned
        matrix = raw.FS_MATRIX()
        raw.FPDFText_GetMatrix(text, first, matrix)
        size = max(raw.FPDFText_GetFontSize(text, first) * math.hypot(matrix.c, matrix.d), 1.0)
    level = _turned(x.value, y.value, angle)[1] - (bottom if turned == 0 else 0)
    found = _Line(written, page, left, right, level, size, height, turned, turned != 0)
    found.spread = found.in_margin and _is_spread(text, line, start, angle, size)
    found.is_row = bool(_LEADER.search(line)) or _has_wide_gap(text, line, start, angle, size, right - left)
    return found


def _has_wide_gap(text: pdfium.PdfTextPage, line: str, start: int, angle: int, size: float, width: float) -> bool:
    """True if two words are far from each other; `width` is that of the line, by which most have no such words."""
    line = line.rstrip()
    if width < 0.5 * size * len(line):
        return False
    return any(
        _gap(text, start + blank.start() - 1, start + blank.end(), angle) > _WIDE_GAP * size
        for blank in _BLANK.finditer(line)
        if blank.start()
    )


def _is_spread(text: pdfium.PdfTextPage, line: str, start: int, angle: int, size: float) -> bool:
    """True if a number at the start or the end of a line is more than twice the size from the words."""
    line = line.rstrip()
    if last := _LAST_NUMBER.search(line):
        word = len(line[: last.start()].rstrip()) - 1
        if word >= 0 and _gap(text, start + word, start + last.start(), angle) > 2 * size:
            return True
    blank = len(line) - len(line.lstrip())
    if first := _FIRST_NUMBER.match(line, blank):
        word = len(line) - len(line[first.end() :].lstrip())
        return word < len(line) and _gap(text, start + first.end() - 1, start + word, angle) > 2 * size
    return False


def _gap(text: pdfium.PdfTextPage, left: int, right: int, angle: int) -> float:
    return _box(text, right, angle)[0] - _box(text, left, angle)[2]


def _height(text: pdfium.PdfTextPage, line: str, start: int, angle: int, first: float) -> float:
    """The size of most of a line, whose first character may be an initial and whose last the mark of a note."""
    places = [at for at, sign in enumerate(line) if not sign.isspace() and sign != "\x02"]
    if len(places) < 3:
        return first
    boxes = [_box(text, start + places[at], angle) for at in (len(places) // 2, -1)]
    return sorted((first, *(high - low for _, low, _, high in boxes)))[1]


def _box(text: pdfium.PdfTextPage, index: int, angle: int) -> tuple[float, float, float, float]:
    """The left, low, right and high end of a character, in the frame of this angle."""
    left, low, right, high = text.get_charbox(index, loose=True)
    if angle == 0:
        return left, low, right, high
    xs, ys = zip(*(_turned(x, y, angle) for x in (left, right) for y in (low, high)), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _with_scripts(text: pdfium.PdfTextPage, line: str, start: int) -> list[str]:
    """The characters of a level line, with raised and lowered digits written as such."""
    signs = [*line]
    last = -1
    for found in _RAISED.finditer(line):
        place = found.start()
        if place <= last:
            continue
        _, before_low, _, before_high = text.get_charbox(start + place - 1, loose=True)
        _, low, _, high = text.get_charbox(start + place, loose=True)
        size = before_high - before_low
        if high - low > 0.85 * size or abs(low - before_low) < 0.05 * size:
            continue
        last = place
        while last + 1 < len(line) and line[last + 1].isdecimal():
            _, next_low, _, next_high = text.get_charbox(start + last + 1, loose=True)
            if abs(next_low - low) > 0.05 * size or next_high - next_low > 0.85 * size:
                break
            last += 1
        write = raised if low > before_low else lowered
        signs[place : last + 1] = [
            write(line[max(0, place - 5) : place], line[place : last + 1]),
            *[""] * (last - place),
        ]
    return signs


def _turn_ligatures(text: pdfium.PdfTextPage, signs: list[str], start: int) -> None:
    """Put the letters of each ligature in order, which PDFium reverses with the line: they have one origin."""
    x, y = ctypes.c_double(), ctypes.c_double()
    origins: list[tuple[float, float] | None] = []
    for at, sign in enumerate(signs):
        is_letter = bool(_RIGHT_TO_LEFT.match(sign)) and raw.FPDFText_GetCharOrigin(text, start + at, x, y)
        origins.append((x.value, y.value) if is_letter else None)
    place = 0
    for origin, part in groupby(origins):
        end = place + len(list(part))
        if origin and end - place > 1 and not _LAM_ALEF.fullmatch("".join(signs[place:end])):
            signs[place:end] = signs[place:end][::-1]
        place = end


def _in_reading_order(text: pdfium.PdfTextPage, signs: list[str], start: int) -> list[str]:
    """The characters of a line of Hebrew or Arabic from right to left, as they are read.

    PDFium turns what programs draw from left to right. Others draw from right to left, and theirs is turned wrong:
    letters, or words, whose places rise from left to right are turned back.
    """
    places = []
    for at, sign in enumerate(signs):
        box = text.get_charbox(start + at) if _RIGHT_TO_LEFT.match(sign) else None
        places.append((box[0] + box[2]) / 2 if box else None)
    words: list[tuple[str, float | None]] = []
    for is_blank, part in groupby(range(len(signs)), lambda at: signs[at].isspace()):
        word = list(part)
        if is_blank:
            continue
        known = [place for at in word if (place := places[at]) is not None]
        written = "".join(signs[at] for at in word)
        if _rises(known):
            written = _reversed(list(written))
        words.append((written, known[0] if known else None))
    if not _rises([place for _, place in words if place is not None]):
        return list(" ".join(word for word, _ in words))
    turned: list[str] = []
    for is_left_to_right, same in groupby(reversed(words), lambda each: bool(_LEFT_TO_RIGHT.fullmatch(each[0]))):
        part_of = [word for word, _ in same]
        turned += reversed(part_of) if is_left_to_right else part_of
    return list(" ".join(turned))


def _rises(places: list[float]) -> bool:
    steps = [after - before for before, after in pairwise(places) if after != before]
    return sum(step > 0 for step in steps) * 2 > len(steps)


def _reversed(word: list[str]) -> str:
    """A word from its end, with numbers and words of other scripts in it as they are."""
    backwards = "".join(reversed(word))
    return _LEFT_TO_RIGHT.sub(lambda found: found[0][::-1], backwards)


def _tidy(line: str) -> str:
    """The line with combined surrogate pairs, and a hyphen where a word is split at its end."""
    line = line.strip().encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    line = _FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), line)
    return one_line(clean(re.sub("[\x02\xad\ufffe]$", "\u2010", line)))


def _addresses(
    document: pdfium.PdfDocument, page: pdfium.PdfPage, text: pdfium.PdfTextPage, spans: list[tuple[int, str]]
) -> dict[int, list[tuple[int, str]]]:
    """The addresses to write into lines, by the start of the line: after which character, and what."""
    links = list(_links(document, page))
    if not links:
        return {}
    centres = [
        [((left + right) / 2, (low + high) / 2) for left, low, right, high in boxes]
        for boxes in ([text.get_charbox(start + at) for at in range(len(line))] for start, line in spans)
    ]
    found: dict[str, tuple[int, int, str]] = {}
    kept: list[tuple[int, int, str, str]] = []
    for address, (left, low, right, high) in links:
        for number, (_, line) in enumerate(spans):
            within = [
                at for at, (x, y) in enumerate(centres[number])
                if left <= x <= right and low <= y <= high and not line[at].isspace()
            ]  # fmt: skip
            if not within:
                continue
            words = line[within[0] : within[-1] + 1]
            if address in found and found[address][0] == number - 1:  # goes on in the next line
                kept = [each for each in kept if each[:3] != (*found[address][:2], address)]
            found[address] = (number, within[-1], words)
            kept.append((number, within[-1], address, words))
    suffixes: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for number, place, address, words in kept:
        if suffix := linked(words, address)[len(words) :]:
            suffixes[spans[number][0]].append((place, suffix))
    return suffixes


def _links(
    document: pdfium.PdfDocument, page: pdfium.PdfPage
) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """The addresses and areas of the links of a page."""
    place, link, area = ctypes.c_int(0), raw.FPDF_LINK(), raw.FS_RECTF()
    for _ in range(_MOST_LINKS):
        if not raw.FPDFLink_Enumerate(page, place, link):
            return
        action = raw.FPDFLink_GetAction(link)
        if not action or raw.FPDFAction_GetType(action) != raw.PDFACTION_URI:
            continue
        size = raw.FPDFAction_GetURIPath(document, action, None, 0)
        buffer = ctypes.create_string_buffer(min(size, 2**16))
        raw.FPDFAction_GetURIPath(document, action, buffer, len(buffer))
        if raw.FPDFLink_GetAnnotRect(link, area):
            low, high = sorted((area.bottom, area.top))
            yield clean(buffer.value.decode("utf-8", "replace")), (area.left, low, area.right, high)


def _string(get: Callable[[Any, int], int]) -> str:
    """A text of PDFium, which gives its size in bytes first."""
    size = get(None, 0)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    get(ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return clean(buffer.raw[: size - 2].decode("utf-16-le", "replace"))


def _value(forms: Any, annotation: Any) -> str:
    """The text that a field shows: its value, or a mark for one that is ticked or not; "" for buttons and passwords."""
    kind = raw.FPDFAnnot_GetFormFieldType(forms, annotation)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
        return "[x]" if raw.FPDFAnnot_IsChecked(forms, annotation) else "[ ]"
    if kind in (raw.FPDF_FORMFIELD_PUSHBUTTON, raw.FPDF_FORMFIELD_SIGNATURE):
        return ""
    if (
        raw.FPDFAnnot_GetFormFieldFlags(forms, annotation) & raw.FPDF_FORMFLAG_TEXT_PASSWORD
        and kind == raw.FPDF_FORMFIELD_TEXTFIELD
    ):
        return ""
    return _string(partial(raw.FPDFAnnot_GetFormFieldValue, forms, annotation)).strip()


def _fill_in(
    page: pdfium.PdfPage,
    text: pdfium.PdfTextPage,
    number: int,
    lines: list[_Line],
    annotation: Any,
    forms: Any,
    value: str,
) -> None:
    """Write a value between or next to the words on its row, else with the name of its field on a line of its own."""
    area = raw.FS_RECTF()
    raw.FPDFAnnot_GetRect(annotation, area)
    low, high = sorted((area.bottom, area.top))
    bottom, top = _extent(page, 0)
    middle = (area.left + area.right) / 2
    low, high = low - bottom, high - bottom
    row = [line for line in lines if line.angle == 0 and low - line.size / 3 <= line.y < high and not line.aside]
    before = [line for line in row if line.right <= area.left + line.size]
    after = [line for line in row if line.left >= area.right - line.size]
    around = [line for line in row if line.left < area.left and line.right > area.right and "\n" not in value]
    if around and forms:
        line = around[0]
        base = line.y + bottom
        left = text.get_text_bounded(line.left, base - 1, middle, base + 0.6 * line.size)
        line.filled.append((len("".join(left.split())), one_line(value)))
    elif value in ("[x]", "[ ]") and after:
        label = min(after, key=lambda line: line.left)
        label.text = f"{value} {label.text}"
    elif before and forms and "\n" not in value:
        label = max(before, key=lambda line: line.right)
        label.text = f"{label.text} {one_line(value)}"
        label.right = area.right
    else:
        name = ""
        if forms and value != "[ ]":
            for get in (raw.FPDFAnnot_GetFormFieldAlternateName, raw.FPDFAnnot_GetFormFieldName):
                name = name or one_line(_string(partial(get, forms, annotation)))
        words = one_line(f"{name}: {value}" if name else value)
        place = next((at for at, line in enumerate(lines) if line.angle == 0 and line.y < low), len(lines))
        size = lines[place - 1].size if place else max(min(high - low, 12.0), 1.0)
        lines.insert(place, _Line(words, number, area.left, area.right, low, size, top - bottom))


def _write_filled(line: _Line) -> None:
    """Write the values of fields into the line between its words."""
    for place, value in sorted(line.filled, reverse=True):
        at = next((found.end() for found in islice(re.finditer(r"\S", line.text), max(place - 1, 0), None)), 0)
        line.text = one_line(f"{line.text[:at]} {value} {line.text[at:]}")


def _set_aside(lines: list[_Line]) -> None:
    """Mark large lines that lie over others: watermarks."""
    large = _body(lines) * _LARGE
    by_page = defaultdict(list)
    for line in lines:
        by_page[line.page].append(line)
    for found in by_page.values():
        for line in [line for line in found if line.size > large and not line.aside][:20]:
            line.aside = any(
                other is not line
                and not other.aside
                and line.y - 0.1 * line.size < other.y < line.y + 0.7 * line.size
                and other.left < line.right
                and line.left < other.right
                and other.size < line.size / _LARGE
                for other in found
            )


def _running(lines: list[_Line]) -> tuple[list[_Line], list[_Line]]:
    """The running titles, each once, and the lines left out: the same ones on other pages, and page numbers.

    They have equal words at equal places of many pages, apart from the number of the page, and are separated from the
    text. Large ones with numbers at the top of pages are headings of chapters.
    """
    pages = len({line.page for line in lines})
    large = _body(lines) * 1.1
    spacing = _spacing(lines)
    candidates = {
        id(line): keys for line in lines if (line.in_margin or line.aside) and (keys := _keys(line, line.size > large))
    }

    def repeated() -> set[int]:
        seen: dict[object, set[int]] = defaultdict(set)
        for line in lines:
            for key, _ in candidates.get(id(line), ()):
                seen[key].add(line.page)
        for line in lines:
            if keys := candidates.get(id(line)):
                candidates[id(line)] = [(key, least) for key, least in keys if len(seen[key]) >= max(least, pages / 4)]
        return {at for at, keys in candidates.items() if keys}

    apart = _apart(lines, repeated(), spacing)
    for at in [at for at in candidates if at not in apart]:
        del candidates[at]
    found = repeated()
    counts = Counter(key for at in found for key, _ in candidates[at])
    titles: dict[object, _Line] = {}
    left_out = []
    for line in lines:
        if id(line) in found:
            key = max(candidates[id(line)], key=lambda each: counts[each[0]])[0]
            if key in titles or not re.search(r"[^\W\d_]", _NUMBER.sub("", line.text)):
                left_out.append(line)
            else:
                titles[key] = line
    return list(titles.values()), left_out


def _keys(line: _Line, is_large: bool) -> list[tuple[object, int]]:
    """The keys that are equal for the same running title on other pages: its words, place and numbers, one of which may
    rise with the pages; each with the number of pages that are many."""
    words = _NUMBER.sub("#", line.text)
    place = (round(line.y), line.angle, round(line.left) if line.angle else 0)
    numbers = [_value_of(found[0]) for found in _NUMBER.finditer(line.text)]
    keys: list[tuple[object, int]] = [((words, place, tuple(numbers)), 2 if line.aside else _MANY)]
    if line.aside or (is_large and line.y > line.page_height / 2):
        return keys
    if re.search(r"[^\W\d_]", words) and not (_PAGE_WORD.search(words) or _DIVIDED.search(words) or line.spread):
        return keys  # the number may be one of the text, such as that of an invoice
    for at, number in enumerate(numbers[:4]):
        others = (*numbers[:at], "+", *numbers[at + 1 :])
        keys.append(((words, place, others, number - line.page), 2))
    return keys


def _value_of(number: str) -> int:
    """The value of a number in digits or Roman ones."""
    if number.isdecimal():
        return int(number[:18])
    values = [_ROMAN[letter] for letter in number]
    return sum(-value if value < after else value for value, after in zip_longest(values, values[1:], fillvalue=0))


def _apart(lines: list[_Line], repeated: set[int], spacing: float) -> set[int]:
    """Of the repeated lines, those that are separated from all others: by more than the distance of lines."""
    by_page = defaultdict(list)
    found = set()
    for line in lines:
        if line.aside:
            found.add(id(line))
        else:
            by_page[line.page].append(line)
    for on_page in by_page.values():
        group: list[_Line] = []
        ordered: list[_Line | None] = [*sorted(on_page, key=lambda line: -line.y), None]
        for at in ordered:
            if group and (at is None or group[-1].y - at.y > 1.25 * spacing * max(at.size, group[-1].size)):
                if all(id(each) in repeated for each in group):
                    found.update(map(id, group))
                group = []
            if at is not None:
                group.append(at)
    return found & repeated


def _with_whole_rows(lines: Iterable[_Line]) -> Iterator[_Line]:
    """The lines; cells of a row that PDFium separates are one line."""
    before: _Line | None = None
    for line in lines:
        if before and _is_next_cell(before, line):
            is_row = before.is_row or line.is_row or line.left - before.right > _WIDE_GAP * line.size
            before = replace(before, text=f"{before.text} {line.text}", right=line.right, is_row=is_row)
            continue
        if before:
            yield before
        before = line
    if before:
        yield before


def _is_next_cell(before: _Line, line: _Line) -> bool:
    if before.page != line.page or before.angle != line.angle or before.aside or line.aside:
        return False
    return abs(before.y - line.y) < 0.2 * line.size and line.left > before.right and before.rounded == line.rounded


def _with_titles(pieces: list[Piece], titles: Iterable[_Line]) -> list[Piece]:
    """The pieces, with running titles before or after those of the page where they are first."""
    pages = [piece.page or 0 for piece in pieces]
    before = defaultdict(list)
    for line in titles:
        find = bisect_left if line.y >= line.page_height / 2 else bisect_right
        before[find(pages, line.page)].append(line)
    found: list[Piece] = []
    for number in range(len(pieces) + 1):
        heading = found[-1].heading if found else None
        found += [Piece(line.text, line.page, heading) for line in before[number]]
        found += pieces[number : number + 1]
    return found


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
        begins, carried = not carried, ""
        if level := 0 if first.aside else levels.get(first.rounded, 0):
            outline.enter(level, text)
        elif after and after[0].page > first.page and _goes_on(paragraph[-1], after[0]):
            rest = _whole([line.text for line in after], vocabulary)
            sentence = _SENTENCE.match(rest)
            carried = sentence[0] if sentence else rest
            text = _whole([text, carried.rstrip()], vocabulary)
        elif begins and _are_rows(paragraph):
            text = "\n".join(line.text for line in paragraph)
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
    if line.aside != before.aside or line.angle != before.angle:
        return True
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


def _are_rows(lines: list[_Line]) -> bool:
    """True for the rows of a table or a log, whose lines are no sentences together."""
    if len(lines) > 1 and sum(line.is_row for line in lines) * 2 > len(lines):
        return True
    return len(lines) > 2 and are_records([line.text for line in lines])


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
    written = _written([line for line in lines if not line.aside])
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
    upright = [line for line in lines if not line.aside] or lines
    return max(_written(upright).items(), key=lambda each: each[1], default=(1.0, 0))[0]


def _spacing(lines: list[_Line]) -> float:
    """The most common distance of two lines, as a multiple of their size, weighted by text."""
    found = Counter[float]()
    for before, line in pairwise(lines):
        fall = (before.y - line.y) / line.size
        if before.page == line.page and before.rounded == line.rounded and 0.5 < fall < 2.5:
            found[round(fall, 1)] += len(line.text)
    return max(found, key=lambda fall: found[fall]) if found else 1.2
