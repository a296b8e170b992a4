"""Ports of people and secrets."""

from __future__ import annotations

from typing import Protocol


class People(Protocol):
    """The ids of end users, and the keys that encrypt their words. Every method raises: Unavailable."""

    async def person(self, tenant: str, user: str) -> str:
        """The id of the person with this name now: a new one after each erasure."""
        ...

    async def last_person(self, tenant: str, user: str) -> tuple[str, bool]:
        """The id of the last person with this name, and True if there ever was one."""
        ...

    async def erase(self, tenant: str, person: str) -> None:
        """Erase the person's key for good: none of their words can be read any more."""
        ...


class Vault(Protocol):
    """Secrets of tenants, encrypted at rest."""

    def seal(self, tenant: str, secret: str) -> str: ...

    def open(self, tenant: str, sealed: str) -> str: ...
