"""The kinds of file: told from media type or name, and checked against the bytes."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from adapters.formats.parsed import Refused

Kind = Literal["text", "markdown", "html", "pdf"]

TITLES: dict[Kind, str] = {"text": "plain text", "markdown": "Markdown", "html": "HTML", "pdf": "PDF"}

_MEDIA_TYPES: dict[str, Kind] = {
    "text/plain": "text",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/x-pdf": "pdf",
}
_SUFFIXES: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".htm": "html",
    ".html": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
}
_SIGNATURES = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a ZIP archive or an Office document",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x1f\x8b": "a gzip archive",
    b"\x7fELF": "a program",
    b"MZ\x90": "a program",
}
_CONTROLS = bytes(sorted({*range(32)} - {*b"\t\n\v\f\r\x1b"}))
_BYTE_ORDER_MARK = re.compile(rb"\xef\xbb\xbf|\xff\xfe|\xfe\xff")


def kind_of(media_type: str, name: str) -> Kind | None:
    """The kind of a file, None when it is none that can be read; the name counts when the media type says nothing."""
    essence = media_type.partition(";")[0].strip().lower()
    if essence in _MEDIA_TYPES:
        return _MEDIA_TYPES[essence]
    if essence in ("", "application/octet-stream", "binary/octet-stream"):
        return _SUFFIXES.get(PurePosixPath(name.lower()).suffix)
    return "text" if essence.startswith("text/") else None


def check(kind: Kind, data: bytes) -> None:
    """Raises: Refused `empty_file` or `broken_file` when the bytes cannot be of the kind."""
    if not data.strip(b"\0 \t\r\n\f\xef\xbb\xbf\xfe\xff"):
        raise Refused("empty_file", "The file is empty.")
    if kind == "pdf":
        if b"%PDF-" not in data[:1024]:
            raise Refused("broken_file", f"The file is not a PDF{_instead(data)}.")
        return
    if instead := _instead(data):
        raise Refused("broken_file", f"The file is not {TITLES[kind]}{instead}.")
    sample = data[:65536]
    if not wide(sample) and len(sample) - len(sample.translate(None, _CONTROLS)) > len(sample) * 0.3:
        raise Refused("broken_file", f"The file is not {TITLES[kind]}: it holds binary data.")


def _instead(data: bytes) -> str:
    return next((f": its bytes are those of {what}" for sign, what in _SIGNATURES.items() if data.startswith(sign)), "")


def wide(sample: bytes) -> str | None:
    """The UTF-16 codec of a text, told by its byte order mark or by zeros in every other place; else None."""
    if _BYTE_ORDER_MARK.match(sample):
        return None if sample.startswith(b"\xef\xbb\xbf") else "utf-16"
    even, odd = sample[::2], sample[1::2]
    if len(sample) >= 4 and odd.count(0) > len(odd) * 0.4 and even.count(0) < len(even) * 0.05:
        return "utf-16-le"
    if len(sample) >= 4 and even.count(0) > len(even) * 0.4 and odd.count(0) < len(odd) * 0.05:
        return "utf-16-be"
    return None


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of bytes: UTF-16 or UTF-8 where they are that, else as `declared`, else Windows-1252."""
    if codec := wide(data[:65536]):
        return data.decode(codec, "replace")
    for codec in ("utf-8-sig", declared, "cp1252"):
        try:
            return data.decode(codec) if codec else data.decode("utf-8")
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("latin-1")
