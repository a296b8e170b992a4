"""Files that plugins of Dify upload: each to an address of its own, once, which their proxy answers itself."""

from __future__ import annotations

import asyncio
import re
import secrets
from asyncio import StreamReader
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple

import orjson

from handlers.ports.tools import Output

HOST = "uploads.headrace.internal"

LARGEST = 64 * 2**20
"""Maximum size of an upload, in bytes."""

MOST_WAITING = 100
"""Maximum number of addresses of a session that nothing was uploaded to yet."""


_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d{1,12})\r\n", re.IGNORECASE)
_BOUNDARY = re.compile(rb'\r\ncontent-type: ?multipart/form-data; ?boundary="?([^"\r\n;]{1,70})', re.IGNORECASE)


class _Expected(NamedTuple):
    tenant: str
    name: str
    media_type: str
    take: Callable[[Output], None]


class Uploads:
    def __init__(self) -> None:
        self._expected: dict[str, _Expected] = {}

    @contextmanager
    def session(self, tenant: str, take: Callable[[Output], None]) -> Iterator[Callable[[str, str], str]]:
        """Makes addresses for files with a name and a media type, which hold until the session ends; `take` gets the
        files."""
        paths: list[str] = []

        def address(name: str, media_type: str) -> str:
            """Raises: ValueError."""
            if sum(path in self._expected for path in paths) >= MOST_WAITING:
                raise ValueError(f"It has {MOST_WAITING} addresses that it uploaded nothing to.")
            path = f"/{secrets.token_urlsafe(32)}"
            self._expected[path] = _Expected(tenant, name, media_type, take)
            paths.append(path)
            return f"http://{HOST}{path}"

        try:
            yield address
        finally:
            for path in paths:
                self._expected.pop(path, None)

    async def receive(self, tenant: str, path: str, head: bytes, reader: StreamReader) -> tuple[int, str]:
        """Read the file of a request; return the status and the text of the answer."""
        expected = self._expected.get(path)
        if expected is None or expected.tenant != tenant:
            return 404, "There is no such upload."
        length, boundary = _LENGTH.search(head), _BOUNDARY.search(head)
        if length is None or boundary is None:
            return 400, "The request must be multipart/form-data with a content-length."
        if int(length[1]) > LARGEST:
            return 413, f"A file has at most {LARGEST:,} bytes."
        body = await reader.readexactly(int(length[1]))
        data = await asyncio.to_thread(_content, body, boundary[1])
        if data is None:
            return 400, "The request must have one part, the file."
        if self._expected.pop(path, None) is None:
            return 404, "The file was uploaded already."
        expected.take(Output(expected.name, expected.media_type, data))
        about = {"id": path[1:], "name": expected.name, "size": len(data), "mime_type": expected.media_type}
        return 201, orjson.dumps({**about, "extension": PurePosixPath(expected.name).suffix}).decode()


def _content(body: bytes, boundary: bytes) -> bytes | None:
    """The content of the only part of a body; None for another one."""
    start, end = body.find(b"\r\n\r\n"), body.rfind(b"\r\n--" + boundary + b"--")
    if not body.startswith(b"--" + boundary + b"\r\n") or not 0 <= start < end:
        return None
    content = body[start + 4 : end]
    return None if b"\r\n--" + boundary in content else content
