"""Named objects: bytes by a path, in a folder or in a bucket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol


class Found(NamedTuple):
    """An object as it is stored: its size in bytes, and the time of its last write by the clock of the store."""

    name: str
    size: int
    at: datetime


class Objects(Protocol):
    """A write is atomic: a reader gets the earlier object, or the whole new one.

    Every method raises: Unavailable, when the store does not answer.
    """

    def list(self, prefix: str) -> AsyncGenerator[Sequence[Found]]:
        """The objects whose path begins with the folders of `prefix`, some hundreds at a time, in any order."""
        ...

    async def find(self, name: str) -> Found | None: ...

    async def get(self, name: str, limit: int | None = None) -> bytes | None:
        """Raises: ValueError when it is larger than the limit, in bytes."""
        ...

    async def create(self, name: str, data: bytes) -> bool:
        """Write a new object; False when the name is taken."""
        ...

    async def replace(self, name: str, data: bytes) -> None:
        """Write an object, and overwrite it if it is there."""
        ...

    async def remove(self, names: Sequence[str]) -> None:
        """Remove objects; one that is missing is no error."""
        ...
