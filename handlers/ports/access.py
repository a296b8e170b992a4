"""Ports of accounts, tenants and keys, and of sign-ins."""

from __future__ import annotations

from typing import Protocol

from domain.access.register import Register


class Registry(Protocol):
    async def now(self) -> Register:
        """The register as the log has it, at most a few seconds old. Raises: Unavailable."""
        ...

    async def again(self) -> Register:
        """The register after another look at the log, for what may be new. Raises: Unavailable."""
        ...


class SignIns(Protocol):
    async def end_all(self, actor: str, before: str | None = None) -> None:
        """End the sessions of an actor: all, or those that a sign-out at this time (ISO 8601) ends.

        Raises: Unavailable.
        """
        ...
