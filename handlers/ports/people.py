"""Ports of people and secrets."""

from __future__ import annotations

from typing import Protocol


class People(Protocol):
    """Who end users are: the keys that their words are kept under. Every method raises: Unavailable."""

    async def person(self, tenant: str, user: str) -> str:
        """The id of who goes by this name now: another one each time that somebody of the name was erased."""
        ...

    async def last_person(self, tenant: str, user: str) -> tuple[str, bool]:
        """The id of who went by this name last, and whether anybody ever did."""
        ...

    async def erase(self, tenant: str, person: str) -> None:
        """Throw the person's key away for good: nothing that was said can be read any more."""
        ...


class Vault(Protocol):
    """Secrets of tenants, encrypted at rest."""

    def seal(self, tenant: str, secret: str) -> str: ...

    def open(self, tenant: str, sealed: str) -> str: ...
