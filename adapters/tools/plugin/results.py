"""Results of tools of Dify: their pieces as texts, parts and files."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Mapping
from typing import Any

import orjson

from handlers.ports.tools import Output, Result, ToolError

MOST_FILES, LARGEST = 20, 64 * 2**20
"""Maximum number of files of a result, and their size together, in bytes."""

MOST_TEXT = 4 * 2**20
"""Maximum length of the texts of a result, in characters."""

MOST_PARTS = 200
"""Maximum number of parts."""


class Results:
    """Gathers the pieces of one result."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._length = 0
        self._parts: list[dict[str, Any]] = []
        self._files: list[Output] = []
        self._size = 0
        self._blobs: dict[str, bytearray] = {}
        self._variables: dict[str, Any] = {}

    def add(self, piece: Mapping[str, Any]) -> None:
        """Raises: ToolError `too_large`, `server_error`."""
        message, meta = _mapping(piece.get("message")), _mapping(piece.get("meta"))
        match piece.get("type"):
            case "text":
                self._text(str(message.get("text", "")))
            case "json":
                value = message.get("json_object")
                self._text(f"\n{orjson.dumps(value).decode()}\n")
                self._part({"type": "json", "value": value})
            case "link" | "image_link" | "image" as kind:
                self._link(str(message.get("text", "")), "Image" if kind != "link" else "")
            case "blob":
                self._file(_bytes(message), meta)
            case "blob_chunk":
                self._chunk(message, meta)
            case "file":
                self._link(str(_mapping(meta.get("file")).get("url", "")), "File")
            case "variable":
                self._variable(message)
            case "retriever_resources":
                self._text(str(message.get("context", "")))
                self._part({"type": "json", "value": message.get("retriever_resources")})

    def result(self) -> Result:
        if self._blobs:
            raise ToolError("server_error", "The tool gave a file that has no end.")
        texts = "".join(self._texts).strip()
        parts = list(self._parts)
        if self._variables:
            parts.append({"type": "json", "value": self._variables})
            texts = texts or orjson.dumps(self._variables).decode()
        return Result(texts, parts=parts, files=self._files)

    def _text(self, text: str) -> None:
        self._length += len(text)
        if self._length > MOST_TEXT:
            raise ToolError("too_large", f"The result has more than {MOST_TEXT:,} characters.")
        self._texts.append(text)

    def _part(self, part: dict[str, Any]) -> None:
        if len(self._parts) >= MOST_PARTS:
            raise ToolError("too_large", f"The result has more than {MOST_PARTS} parts.")
        self._parts.append(part)

    def _link(self, url: str, title: str) -> None:
        if url:
            self._text(f"\n{url}\n")
            self._part({"type": "link", "url": url, "title": title})

    def file(self, file: Output) -> None:
        """Add a whole file. Raises: ToolError `too_large`."""
        self._grow(len(file.data))
        if len(self._files) >= MOST_FILES:
            raise ToolError("too_large", f"The result has more than {MOST_FILES} files.")
        self._files.append(file)

    def _file(self, data: bytes, meta: Mapping[str, Any]) -> None:
        media_type = str(meta.get("mime_type") or "application/octet-stream")[:255]
        ending = mimetypes.guess_extension(media_type.partition(";")[0]) or ""
        name = str(meta.get("filename") or meta.get("file_name") or f"file{ending}")[:255]
        self.file(Output(name, media_type, data))

    def _chunk(self, message: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        id, data = str(message.get("id")), _bytes(message)
        held = self._blobs.setdefault(id, bytearray())
        if len(self._blobs) + len(self._files) > MOST_FILES:
            raise ToolError("too_large", f"The result has more than {MOST_FILES} files.")
        if len(held) + len(data) + self._size > LARGEST:
            raise ToolError("too_large", f"The files of the result have more than {LARGEST:,} bytes.")
        held += data
        if message.get("end"):
            del self._blobs[id]
            self._file(bytes(held), meta)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > LARGEST:
            raise ToolError("too_large", f"The files of the result have more than {LARGEST:,} bytes.")

    def _variable(self, message: Mapping[str, Any]) -> None:
        """A streamed one comes in pieces."""
        name, value = str(message.get("variable_name")), message.get("variable_value")
        if message.get("stream") and isinstance(value, str):
            self._length += len(value)
            if self._length > MOST_TEXT:
                raise ToolError("too_large", f"The result has more than {MOST_TEXT:,} characters.")
            value = f"{self._variables.get(name, '')}{value}"
        if name not in self._variables and len(self._variables) >= MOST_PARTS:
            raise ToolError("too_large", f"The result has more than {MOST_PARTS} variables.")
        self._variables[name] = value


def _bytes(message: Mapping[str, Any]) -> bytes:
    """Raises: ToolError."""
    try:
        return base64.b64decode(str(message.get("blob", "")))
    except (binascii.Error, ValueError):
        raise ToolError("server_error", "The tool gave a file that is not encoded as it must be.") from None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
