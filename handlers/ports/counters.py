"""Ports of what is counted for limits."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Counter(NamedTuple):
    """A number that starts at 0: what `name` counts in one period of a tenant, the `number`-th since 1970."""

    tenant: str
    period: str
    number: int
    name: str


class Counters(Protocol):
    """Numbers that all processes share. They are forgotten some time after their period."""

    async def add(self, counter: Counter, amount: int) -> int:
        """Add to the number, which may be 0 or less than it, and return it as it is then.

        An addition that raises may have been made. Raises: Unavailable.
        """
        ...


class Waiting(Protocol):
    """The work of tenants that has not ended, about: as it was counted some seconds ago, and what began here since."""

    def count(self, tenant: str, quantity: str) -> int:
        """The number that is known; 0 where the last count is too old."""
        ...

    def begin(self, tenant: str, quantity: str) -> None:
        """One more begins."""
        ...
