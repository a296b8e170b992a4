"""Files of documents and their segments, sealed with the key of the end user who uploaded the document, and icons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from handlers.ports.log import Blobs
from handlers.ports.people import People

Kind = Literal["file", "segments", "icon", "tools", "value"]


@dataclass(frozen=True, slots=True)
class Files:
    """Without a person, the blob holds the bytes as they are. Every method raises: Unavailable."""

    blobs: Blobs
    people: People

    async def put(self, tenant: str, person: str | None, kind: Kind, data: bytes) -> str:
        """Store the bytes; return the digest of the blob. Raises: Erased."""
        return await self.blobs.put(tenant, await self.people.seal(tenant, person, kind, data) if person else data)

    async def get(self, tenant: str, person: str | None, kind: Kind, digest: str) -> bytes:
        """Load the bytes of a blob. Raises: KeyError, also Erased; ValueError when they were changed."""
        data = await self.blobs.get(tenant, digest)
        return await self.people.open(tenant, person, kind, data) if person else data
