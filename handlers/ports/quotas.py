"""Port of the state of quotas, for settling leases and giving alerts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from domain.models.quota import Window


class ExpiredLease(NamedTuple):
    """A lease whose worker neither renewed nor settled it, with the ids of all calls that name it."""

    tenant: str
    window: str
    lease: str
    until: str
    calls: Sequence[str]


class Spent(NamedTuple):
    """Amount that calls have used of a quota in its window; amounts are as windows count them."""

    tenant: str
    window: Window
    used: int
    limit: int


class Quotas(Protocol):
    async def expired(self) -> Sequence[ExpiredLease]:
        """Leases that have been expired for some time, once all calls of before are known. Raises: Unavailable."""
        ...

    async def spent(self) -> Sequence[Spent]:
        """The windows of now in which a further step of an alert is reached. Raises: Unavailable."""
        ...
