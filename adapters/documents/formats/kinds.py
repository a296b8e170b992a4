"""Detection of the kind of a file: by media type or name, then by its bytes, which take precedence."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Literal, get_args

from adapters.documents.formats import xml
from adapters.documents.formats.encodings import wide
from adapters.documents.formats.office import Package
from adapters.documents.formats.parsed import Refused
from adapters.documents.formats.zipped import Zipped

Kind = Literal["text", "markdown", "html", "pdf", "docx", "pptx", "sheets", "csv", "json", "epub", "mail"]

KINDS: tuple[Kind, ...] = get_args(Kind)

TITLES: dict[Kind, str] = {
    "text": "plain text",
    "markdown": "Markdown",
    "html": "HTML",
    "pdf": "a PDF",
    "docx": "a Word document",
    "pptx": "a PowerPoint presentation",
    "sheets": "a spreadsheet",
    "csv": "a table with separators",
    "json": "JSON",
    "epub": "an EPUB",
    "mail": "an email",
}

_OFFICE = "application/vnd.openxmlformats-officedocument."
_MEDIA_TYPES: dict[str, Kind] = {
    "text/plain": "text",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/x-pdf": "pdf",
    f"{_OFFICE}wordprocessingml.document": "docx",
    f"{_OFFICE}wordprocessingml.template": "docx",
    "application/vnd.ms-word.document.macroenabled.12": "docx",
    "application/vnd.ms-word.template.macroenabled.12": "docx",
    f"{_OFFICE}presentationml.presentation": "pptx",
    f"{_OFFICE}presentationml.slideshow": "pptx",
    f"{_OFFICE}presentationml.template": "pptx",
    "application/vnd.ms-powerpoint.presentation.macroenabled.12": "pptx",
    "application/vnd.ms-powerpoint.slideshow.macroenabled.12": "pptx",
    f"{_OFFICE}spreadsheetml.sheet": "sheets",
    f"{_OFFICE}spreadsheetml.template": "sheets",
    "application/vnd.ms-excel": "sheets",
    "application/vnd.ms-excel.sheet.macroenabled.12": "sheets",
    "application/vnd.ms-excel.sheet.binary.macroenabled.12": "sheets",
    "application/vnd.oasis.opendocument.spreadsheet": "sheets",
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/json": "json",
    "text/json": "json",
    "application/jsonl": "json",
    "application/x-jsonlines": "json",
    "application/x-ndjson": "json",
    "application/epub+zip": "epub",
    "message/rfc822": "mail",
    "multipart/related": "mail",
}
_SUFFIXES: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdx": "markdown",
    ".htm": "html",
    ".html": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".docm": "docx",
    ".dotx": "docx",
    ".dotm": "docx",
    ".pptx": "pptx",
    ".pptm": "pptx",
    ".ppsx": "pptx",
    ".ppsm": "pptx",
    ".potx": "pptx",
    ".xlsx": "sheets",
    ".xlsm": "sheets",
    ".xltx": "sheets",
    ".xlsb": "sheets",
    ".xls": "sheets",
    ".ods": "sheets",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".ipynb": "json",
    ".epub": "epub",
    ".eml": "mail",
    ".mht": "mail",
    ".mhtml": "mail",
}
_UNTOLD = ("", "application/octet-stream", "binary/octet-stream")
"""Media types without information."""

_NO_TEXT = ("image/", "audio/", "font/")
"""Media types of files without text; those of videos are given to some programs in TypeScript."""

_ZIP = b"PK"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_CONTAINERS = (b"%PDF-", b"PK\x03\x04", _OLE)
"""Signatures at the beginning of files."""

_PDF_PARTS = (b" obj", b"endobj", b"/Pages")
"""Words in each PDF, also in one whose head is missing."""

_MAIN: tuple[tuple[str, Kind], ...] = (
    ("wordprocessingml", "docx"),
    ("ms-word", "docx"),
    ("presentationml", "pptx"),
    ("ms-powerpoint", "pptx"),
    ("spreadsheetml", "sheets"),
    ("ms-excel", "sheets"),
)
"""Words in the content type of the main part of an Office document."""

_ROOTS: dict[str, Kind] = {"document": "docx", "presentation": "pptx", "workbook": "sheets"}
_TYPES = "[Content_Types].xml"
_FOLDERS: dict[str, Kind] = {"word/": "docx", "ppt/": "pptx", "xl/": "sheets"}
_MIMETYPES: dict[bytes, Kind] = {
    b"application/epub+zip": "epub",
    b"application/vnd.oasis.opendocument.spreadsheet": "sheets",
    b"application/vnd.oasis.opendocument.spreadsheet-template": "sheets",
}
_FILE_PASS = re.compile(rb"\x09\x08\x10\0\0\x06\x05\0.{12}(?:\x86\0\0\0)?\x2f\0", re.DOTALL)
"""The head of an encrypted XLS workbook."""

_SIGNATURES = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a ZIP archive",
    _OLE: "an old Office document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"{\\rtf": "RTF",
    b"\x7fELF": "a program",
    b"MZ\x90": "a program",
}
_SAMPLE = 2**16
_CONTROLS = bytes(sorted({*range(32)} - {*b"\t\n\v\f\r\x1b"}))
_MARKUP = re.compile(rb"\A\s*+(?:\xef\xbb\xbf)?\s*+<(?:!doctype html|html|head|body|table|meta)\b", re.IGNORECASE)


def kind_of(media_type: str, name: str) -> Kind | None:
    """The declared kind of a file, None when it cannot be read; the name counts when the media type has no
    information."""
    essence = media_type.partition(";")[0].strip().lower()
    if essence in _MEDIA_TYPES:
        return _MEDIA_TYPES[essence]
    if essence in _UNTOLD:
        return _SUFFIXES.get(PurePosixPath(name.lower()).suffix)
    if essence.endswith("+json"):
        return "json"
    return "text" if essence.startswith("text/") else None


def readable(data: bytes, media_type: str = "") -> bool:
    """True if the bytes identify their kind, whatever is declared, or are text that is not declared as an image or
    sound."""
    if data.startswith(_CONTAINERS):
        return True
    essence = media_type.partition(";")[0].strip().lower()
    if essence.startswith(_NO_TEXT) and not essence.endswith("+xml"):
        return False
    return not _instead(data) and _is_text(data[:_SAMPLE])


def _is_text(sample: bytes) -> bool:
    """True if bytes of an unknown kind are text: without control characters, and mostly ASCII or UTF-8."""
    if codec := wide(sample):
        text = sample[: len(sample) // 4 * 4].decode(codec, "replace")
        return not any(unicodedata.category(sign) in ("Cc", "Cn", "Co") and not sign.isspace() for sign in text)
    if not sample.strip() or len(sample.translate(None, _CONTROLS)) < len(sample):
        return False
    high = len(sample.translate(None, bytes(range(128))))
    return high < 0.3 * len(sample) or sample.decode("utf-8", "replace").count("\ufffd") <= 0.01 * high


def kind_by_bytes(said: Kind | None, data: bytes) -> Kind:
    """The actual kind of a file, which may differ from the declared one.

    Raises: Refused `empty_file`, `broken_file`, `encrypted_file` or `unsupported_type`.
    """
    if not data.strip(b"\0 \t\r\n\f\xef\xbb\xbf\xfe\xff"):
        raise Refused("empty_file", "The file is empty.")
    if data.startswith(b"%PDF-") or (said == "pdf" and _is_pdf(data)):
        return "pdf"
    if data.startswith(_ZIP + b"\x03\x04"):
        return _zipped(said, data)
    if data.startswith(_OLE):
        return _ole(said, data)
    if instead := _instead(data):
        raise _other(said, instead)
    if said is None and not _is_text(data[:_SAMPLE]):
        raise _other(said, "")
    if said in ("pdf", "docx", "pptx", "epub"):
        raise _other(said, "")
    sample = data[:_SAMPLE]
    if said is None:
        return "html" if _MARKUP.match(sample) else "text"
    if not wide(sample) and len(sample) - len(sample.translate(None, _CONTROLS)) > len(sample) * 0.3:
        raise Refused("broken_file", f"The file is not {TITLES[said]}: it holds binary data.")
    if said == "sheets":  # many programs export text with the suffix of a spreadsheet
        if _MARKUP.match(sample):
            return "html"
        if b"\t" in sample or sample.count(b";") > 1 or sample.count(b",") > 1:
            return "csv"
        raise _other(said, "")
    return said


def _zipped(said: Kind | None, data: bytes) -> Kind:
    file = Zipped(data)
    if "mimetype" in file:
        with file.open("mimetype") as part:
            declared = part.read(100).strip()
        if declared in _MIMETYPES:
            return _MIMETYPES[declared]
        if declared.startswith(b"application/vnd.oasis.opendocument."):
            raise Refused("unsupported_type", "Of OpenDocument only spreadsheets are read: save it as DOCX or PDF.")
    if "META-INF/container.xml" in file:
        return "epub"
    if (kind := _office(data)) or (kind := next((kind for name, kind in _FOLDERS.items() if file.holds(name)), None)):
        return kind
    raise _other(said, "a ZIP archive")


def _office(data: bytes) -> Kind | None:
    """The kind of an Office document by its main part: by its content type, else by its root element."""
    package = Package(data)
    main = package.main("").lower()
    if main not in package:
        return None
    types = package.sound(_TYPES) if _TYPES in package else ()
    for element in (each for root in types for each in xml.every(root, "Override")):
        if element.get("PartName", "").lstrip("/").lower() == main:
            content = element.get("ContentType", "").lower()
            return next((kind for word, kind in _MAIN if word in content), None)
    return next((_ROOTS.get(xml.name(root)) for root in package.sound(main)), None)


def _is_pdf(data: bytes) -> bool:
    return b"%PDF-" in data[:1024] or all(part in data for part in _PDF_PARTS)


def _ole(said: Kind | None, data: bytes) -> Kind:
    """The kind of an OLE container, by the names of its streams."""

    lower = data.lower()

    def has(*streams: str) -> bool:
        return any(stream.lower().encode("utf-16-le") in lower for stream in streams)

    workbook = has("Workbook", "Book\0")
    if has("EncryptedPackage") or _FILE_PASS.search(data):
        raise Refused("encrypted_file", "The file is encrypted: upload a copy without a password.")
    if workbook and said == "sheets":  # before Word, since it may contain Word documents
        return "sheets"
    if has("WordDocument", "PowerPoint Document"):
        raise Refused("unsupported_type", "The file is of Office 97 to 2003: save it as DOCX, PPTX or PDF.")
    if workbook:
        return "sheets"
    raise _other(said, "an old Office document")


def _other(said: Kind | None, instead: str) -> Refused:
    of = f": its bytes are those of {instead}" if instead else ""
    if said is None:
        return Refused("unsupported_type", f"No text can be had from the file{of}.")
    return Refused("broken_file", f"The file is not {TITLES[said]}{of}.")


def _instead(data: bytes) -> str:
    return next((what for sign, what in _SIGNATURES.items() if data.startswith(sign)), "")
