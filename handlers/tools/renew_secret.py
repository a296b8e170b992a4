"""Renews the secret of a toolset, or that of an end user for it, which expires."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from domain.aggregate import new_id
from domain.log import Metadata
from domain.tools.toolset import Secret, Toolset
from domain.tools.user_secrets import UserSecret, UserSecrets
from handlers.ports.people import People, Vault
from handlers.ports.tools import ToolError
from handlers.repository import Repository
from handlers.user_secrets import opened, seal


@dataclass(frozen=True, slots=True)
class RenewSecret:
    repository: Repository
    vault: Vault
    people: People
    turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def __call__(
        self, tenant: str, name: str, person: str, expired: str, fetch: Callable[[str], Awaitable[str]]
    ) -> str:
        """The secret in place of an expired one: one that is there already, or what `fetch` makes of it, recorded.

        `person` is empty for the secret of the toolset itself. Raises: the errors of `fetch`; ToolError, Erased,
        Unavailable.
        """
        async with self.turns.setdefault((tenant, name, person), asyncio.Lock()):
            toolset = await self.repository.get(Toolset, tenant, name)
            if toolset is None or toolset.deleted:
                raise ToolError("unauthorized", "The toolset was removed.")
            if person:
                known = await opened(self.repository, self.people, tenant, name, person)
            elif toolset.secret:
                known = self.vault.open(tenant, toolset.secret["sealed"])
            else:
                raise ToolError("unauthorized", "The toolset has no secret any more.")
            if known != expired:
                return known
            new = await fetch(known)
            if person:
                await self._change_of_person(tenant, toolset, person, known, new)
            else:
                await self._change(tenant, toolset, new)
            return new

    async def _change_of_person(self, tenant: str, toolset: Toolset, person: str, known: str, new: str) -> None:
        at = datetime.now(UTC)
        before, sealed = [await seal(self.people, tenant, person, each) for each in (known, new)]

        def decide(now: UserSecrets | None) -> UserSecrets:
            assert now is not None
            if now.secrets.get(toolset.id) == UserSecret(sealed=before, place=toolset.place):
                now.set(at, toolset=toolset.id, sealed=sealed, place=toolset.place)
            return now

        id = new_id()
        await self.repository.change(UserSecrets, person, Metadata(id, tenant, id, person=person), decide)

    async def _change(self, tenant: str, toolset: Toolset, new: str) -> None:
        at, secret = datetime.now(UTC), Secret(sealed=self.vault.seal(tenant, new), hint="")

        def decide(now: Toolset | None) -> Toolset:
            assert now is not None
            if not now.deleted and now.secret == toolset.secret:
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
        await self.repository.change(Toolset, toolset.id, Metadata(id, tenant, id), decide)
