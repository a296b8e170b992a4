"""Graphs by their digests, which never change, so that a loaded one is kept."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from domain.workflows.graph import Graph, load
from handlers.ports.log import Blobs

KEPT = 200
"""Maximum number of graphs in memory."""


@dataclass(frozen=True, slots=True)
class Graphs:
    blobs: Blobs
    _loaded: dict[tuple[str, str], Graph] = field(default_factory=dict, init=False)

    async def get(self, tenant: str, digest: str) -> Graph:
        """The graph of a blob. Raises: KeyError, Unavailable."""
        key = tenant, digest
        if (graph := self._loaded.pop(key, None)) is None:
            text = await self.blobs.get(tenant, digest)
            graph = await asyncio.to_thread(lambda: load(json.loads(text)))
        self._loaded[key] = graph
        if len(self._loaded) > KEPT:
            del self._loaded[next(iter(self._loaded))]
        return graph
