"""Ports of files in questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Fetched(NamedTuple):
    """A file from an address: its bytes, the media type that was given with it (empty for none), and the address that
    sent it, after redirects."""

    data: bytes
    media_type: str
    address: str


class NotFetched(Exception):
    """A file was not fetched: `code` is `unreachable`, `timeout` or `too_large`, the message is for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Fetch(Protocol):
    async def __call__(self, tenant: str, url: str, most: int) -> Fetched:
        """Fetch a file of at most `most` bytes from an address that is not trusted. Raises: NotFetched."""
        ...


class Ranking(Protocol):
    async def ranked(self, tenant: str, question: str, passages: Sequence[str]) -> list[int]:
        """The numbers of the passages, the best for the question first; without shared words, in their order.

        In a contained process, within a time limit. Raises: ModelError; Unavailable.
        """
        ...
