"""Admits tenants to the bus: those with logins or keys are written where its server reads them, and open logins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from domain.access.api_key import ApiKey
from domain.access.bus_login import BusLogin
from domain.log import Commit
from handlers.repository import Repository

Write = Callable[[str, str, str], Awaitable[None]]
"""Writes a login (tenant, name) with the issue of its password; an empty issue removes it. The tenant has an account
after it, also where the name is empty. Raises: Unavailable."""


class Admit:
    def __init__(self, repository: Repository, write: Write) -> None:
        self._repository = repository
        self._write = write

    async def __call__(self, commit: Commit) -> None:
        """React to a change of a login by writing its state now, whichever commit that is, and to a key for the bus.

        Raises: Unavailable.
        """
        tenant, noun, name = commit.subject
        if noun == ApiKey.TOPIC:
            if any(isinstance(event, ApiKey.Created) and _for_the_bus(event) for event in commit.events):
                await self._write(tenant, "", "")
            return
        login = await self._repository.get(BusLogin, tenant, name)
        await self._write(tenant, name, "" if login is None or login.deleted else login.issue)


def _for_the_bus(key: ApiKey.Created) -> bool:
    """True for a key that can connect, since it covers the whole tenant."""
    return not key.apps and not key.datasets and "read" in key.permissions
