"""The works of tenants that have not ended, about: their numbers are announced on `waiting.<tenant>`, on plain NATS.

One process counts the rows of the tables, every few seconds, and those that dispatch commands listen. There is nothing
to correct: a count is replaced by the next one, or forgotten.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from handlers.ports.log import Unavailable

INTERVAL_S = 5.0
"""Interval between two counts, in seconds."""

KEPT_S = 3 * INTERVAL_S
"""Time after which a count is forgotten, in seconds."""

KEPT = 10_000
"""Number of tenants above which counts that are forgotten are removed from memory."""


@dataclass(slots=True)
class _Known:
    at: float
    counts: Mapping[str, int] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)


class NatsWaiting:
    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._known: dict[str, _Known] = {}

    async def start(self) -> None:
        await self._nc.subscribe("waiting.*", cb=self._hear)

    def count(self, tenant: str, quantity: str) -> int:
        known = self._of(tenant)
        return known.counts.get(quantity, 0) + known.begun[quantity] if known else 0

    def begin(self, tenant: str, quantity: str) -> None:
        known = self._of(tenant)
        if known is None:
            if len(self._known) >= KEPT:
                self._known = {tenant: known for tenant, known in self._known.items() if _is_young(known)}
            known = self._known[tenant] = _Known(time.monotonic())
        known.begun[quantity] += 1

    def _of(self, tenant: str) -> _Known | None:
        known = self._known.get(tenant)
        return known if known and _is_young(known) else None

    async def _hear(self, message: Msg) -> None:
        with suppress(ValueError):
            self._known[message.subject.partition(".")[2]] = _Known(time.monotonic(), orjson.loads(message.data))


class Announcer:
    """Announces counts, and 0 for a tenant that has none any more."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._announced: set[str] = set()

    async def announce(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Announce the counts by tenant and quantity. Raises: Unavailable."""
        try:
            for tenant in self._announced | set(counts):
                await self._nc.publish(f"waiting.{tenant}", orjson.dumps(counts.get(tenant, {})))
        except nats.errors.Error as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        self._announced = set(counts)


def _is_young(known: _Known) -> bool:
    return time.monotonic() - known.at < KEPT_S
