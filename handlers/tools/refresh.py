"""Lists the tools of a toolset, and stores the list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from domain.log import Commit, commit_id
from domain.tools.tool import listed
from domain.tools.toolset import Toolset
from handlers.ports.log import Blobs
from handlers.ports.tools import Toolboxes, ToolError
from handlers.repository import Repository

MOST_TOOLS = 1000
"""Maximum number of tools of a toolset."""

LARGEST = 4 * 2**20
"""Maximum bytes of a list of tools."""


@dataclass(frozen=True, slots=True)
class Refresh:
    repository: Repository
    blobs: Blobs
    toolboxes: Toolboxes

    async def __call__(self, commit: Commit) -> None:
        """Make the refresh that was requested last. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        toolset = await self.repository.get(Toolset, tenant, id)
        requested = [event for event in commit.events if isinstance(event, Toolset.RefreshRequested)][-1]
        refresh = requested.refresh
        if toolset is None or not toolset.refreshing or toolset.refresh != refresh:
            return
        try:
            toolbox = await self.toolboxes.get(tenant, toolset)
            found = await toolbox.list()
            if len(found.tools) > MOST_TOOLS:
                raise ToolError("too_large", f"It lists {len(found.tools):,} tools, at most {MOST_TOOLS:,} are read.")
            data = orjson.dumps(list(found.tools), option=orjson.OPT_SORT_KEYS)
            if len(data) > LARGEST:
                raise ToolError("too_large", f"Its list has {len(data):,} bytes, at most {LARGEST:,} are read.")
        except ToolError as error:
            code, reason = error.code, error.reason[:1000]
            await self._record(
                commit, lambda toolset, at: toolset.fail_refresh(at, code=code, reason=reason, refresh=refresh)
            )
            return
        digest = await self.blobs.put(tenant, data)
        tools, warnings = [listed(tool) for tool in found.tools], [each[:500] for each in found.warnings[:100]]
        await self._record(
            commit,
            lambda toolset, at: toolset.refreshed(at, refresh=refresh, digest=digest, tools=tools, warnings=warnings),
        )

    async def _record(self, commit: Commit, verb: Callable[[Toolset, datetime], None]) -> None:
        at = datetime.now(UTC)

        def decide(toolset: Toolset | None) -> Toolset:
            assert toolset is not None
            verb(toolset, at)
            return toolset

        metadata = commit.metadata.caused(commit_id(commit.metadata.id, "refreshed"))
        await self.repository.change(Toolset, commit.subject.id, metadata, decide)
