"""Port of who there is: accounts, tenants and API keys."""

from __future__ import annotations

from typing import Protocol

from domain.access.register import Register


class Registry(Protocol):
    async def now(self) -> Register:
        """The register as the log has it, at most a few seconds old. Raises: Unavailable."""
        ...
