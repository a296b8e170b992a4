"""Ports of people and secrets."""

from __future__ import annotations

from typing import Protocol


class Erased(KeyError):
    """The bytes cannot be read any more: the person was erased."""


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

    async def seal(self, tenant: str, person: str, kind: str, plain: bytes) -> bytes:
        """Encrypt, bound to the tenant and the kind; equal bytes give equal ones. Raises: Erased."""
        ...

    async def open(self, tenant: str, person: str, kind: str, sealed: bytes) -> bytes:
        """Decrypt. Raises: Erased; ValueError for what was not sealed so, or was changed since."""
        ...

    def unpack(self, key: str, packed: bytes) -> bytes:
        """Decrypt a file that the sender of a command has encrypted. Raises: ValueError."""
        ...


class Vault(Protocol):
    """Secrets of tenants, encrypted at rest."""

    def seal(self, tenant: str, secret: str) -> str: ...

    def open(self, tenant: str, sealed: str) -> str: ...
