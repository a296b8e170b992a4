"""Admits tenants' services to the bus: their open logins are written where its server reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from domain.access.bus_login import BusLogin
from domain.log import Commit
from handlers.repository import Repository

Write = Callable[[str, str, str], Awaitable[None]]
"""Writes a login (tenant, name) with the issue of its password; an empty issue removes it. Raises: Unavailable."""


class Admit:
    def __init__(self, repository: Repository, write: Write) -> None:
        self._repository = repository
        self._write = write

    async def __call__(self, commit: Commit) -> None:
        """React to a change of a login by writing its state now, whichever commit that is. Raises: Unavailable."""
        tenant, name = commit.subject.tenant, commit.subject.id
        login = await self._repository.get(BusLogin, tenant, name)
        await self._write(tenant, name, "" if login is None or login.deleted else login.issue)
