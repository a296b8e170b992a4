"""Media types by file names, the same on every machine, and of images and recordings by their first bytes."""

from __future__ import annotations

import mimetypes
from pathlib import PurePosixPath

_OFFICE = "application/vnd.openxmlformats-officedocument"

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".docm": "application/vnd.ms-word.document.macroenabled.12",
    ".docx": f"{_OFFICE}.wordprocessingml.document",
    ".dotx": f"{_OFFICE}.wordprocessingml.template",
    ".epub": "application/epub+zip",
    ".htm": "text/html",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".markdown": "text/markdown",
    ".md": "text/markdown",
    ".ndjson": "application/x-ndjson",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".pdf": "application/pdf",
    ".ppsx": f"{_OFFICE}.presentationml.slideshow",
    ".pptm": "application/vnd.ms-powerpoint.presentation.macroenabled.12",
    ".pptx": f"{_OFFICE}.presentationml.presentation",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".xhtml": "application/xhtml+xml",
    ".xls": "application/vnd.ms-excel",
    ".xlsb": "application/vnd.ms-excel.sheet.binary.macroenabled.12",
    ".xlsm": "application/vnd.ms-excel.sheet.macroenabled.12",
    ".xlsx": f"{_OFFICE}.spreadsheetml.sheet",
}


def media_type_of(name: str) -> str | None:
    """The media type of a file with this name, None when unknown."""
    return MEDIA_TYPES.get(PurePosixPath(name.lower()).suffix) or mimetypes.guess_type(name)[0]


_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}

IMAGES = ("image/gif", "image/jpeg", "image/png", "image/webp")
"""Media types of images that questions may have; a browser shows them without running a program in them."""

_SOUND = {
    b"ID3": "audio/mpeg",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
    b"\x1aE\xdf\xa3": "audio/webm",
    b"#!AMR": "audio/amr",
}
_CONTAINER = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}
"""Formats in a RIFF container."""

_MP4 = (b"M4A ", b"M4B ", b"isom", b"iso2", b"mp41", b"mp42", b"dash")
"""Brands of MP4 files that may hold sound alone."""


def kind_by_bytes(data: bytes) -> tuple[str, str]:
    """The type of a file of a question by its first bytes, `image`, `audio` or `document`, and the media type of an
    image or a recording; empty for a document."""
    found = next((type for mark, type in (_IMAGES | _SOUND).items() if data.startswith(mark)), "")
    if data[:4] == b"RIFF":
        found = _CONTAINER.get(data[8:12], "")
    elif data[4:8] == b"ftyp" and data[8:12] in _MP4:
        found = "audio/mp4"
    elif len(data) > 2 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2:  # a frame of MPEG, layer 3
        found = "audio/mpeg"
    return found.partition("/")[0] or "document", found


def media_type_as(type: str, data: bytes, name: str) -> str | None:
    """The media type of a file of a question that is given as one of this type; None when its bytes are of another."""
    kind, found = kind_by_bytes(data)
    if kind != type:
        return None
    return found or media_type_of(name) or "application/octet-stream"
