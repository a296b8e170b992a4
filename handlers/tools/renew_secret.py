"""Renews the secret of a toolset that expires."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from domain.aggregate import new_id
from domain.log import Metadata
from domain.tools.toolset import Secret, Toolset
from handlers.ports.people import Vault
from handlers.ports.tools import ToolError
from handlers.repository import Repository


@dataclass(frozen=True, slots=True)
class RenewSecret:
    repository: Repository
    vault: Vault
    turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def __call__(self, tenant: str, name: str, expired: str, fetch: Callable[[str], Awaitable[str]]) -> str:
        """The secret in place of an expired one: one that is there already, or what `fetch` makes of it, recorded.

        Raises: the errors of `fetch`; ToolError, Unavailable.
        """
        async with self.turns.setdefault((tenant, name), asyncio.Lock()):
            toolset = await self.repository.get(Toolset, tenant, name)
            if toolset is None or toolset.deleted or toolset.secret is None:
                raise ToolError("unauthorized", "The toolset was removed, or has no secret any more.")
            sealed = toolset.secret["sealed"]
            known = self.vault.open(tenant, sealed)
            if known != expired:
                return known
            new = await fetch(known)
            at, secret = datetime.now(UTC), Secret(sealed=self.vault.seal(tenant, new), hint="")

            def decide(now: Toolset | None) -> Toolset:
                assert now is not None
                if not now.deleted and now.secret and now.secret["sealed"] == sealed:
                    now.change(
                        at,
                        kind=now.kind,
                        description=now.description,
                        settings=now.settings,
                        secret=secret,
                        timeout_s=now.timeout_s,
                    )
                return now

            id = new_id()
            await self.repository.change(Toolset, name, Metadata(id, tenant, id), decide)
            return new
