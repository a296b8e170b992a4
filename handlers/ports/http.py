"""Port of requests to servers that authors of workflows choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Upload(NamedTuple):
    """A file in a form."""

    field: str
    name: str
    media_type: str
    data: bytes


class Sending(NamedTuple):
    """A request as it is sent: `content` is its body, or `fields` and `uploads` are those of a form."""

    method: str
    url: str
    params: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    content: bytes | None = None
    fields: Sequence[tuple[str, str]] = ()
    uploads: Sequence[Upload] = ()
    multipart: bool = False
    connect_s: float = 10.0
    read_s: float = 600.0
    write_s: float = 600.0


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class NoResponse(Exception):
    """A server did not respond: `code` is `unreachable`, `timeout` or `too_large`; the message is for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Http(Protocol):
    async def __call__(self, tenant: str, sending: Sending, most: int) -> Response:
        """Send a request, follow its redirects, and read at most this number of bytes. Raises: NoResponse."""
        ...
