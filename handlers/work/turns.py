"""Slots that tenants take in turn, so that no tenant holds all of them."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Place = tuple[asyncio.Future[None], int]
"""A turn that waits, and its cost."""


class Turns:
    """At most `slots` turns at a time, of which one tenant has at most `each`.

    A quarter of the slots is kept for tenants that have none. Tenants that wait are served one after the other, the
    turns of one tenant in their order. `queued` is the maximum cost of the turns that wait, in the caller's
    unit; the tenants that wait share it.
    """

    def __init__(self, slots: int, each: int, queued: int = sys.maxsize) -> None:
        self._free = slots
        self._reserve = slots // 4
        self._each = each
        self._queued = queued
        self._held = Counter[str]()
        self._cost = Counter[str]()
        self._waiting: OrderedDict[str, deque[Place]] = OrderedDict()

    def has_room(self, tenant: str, cost: int = 1) -> bool:
        """Return whether a turn of this tenant may wait; the first of a tenant always may."""
        if tenant not in self._waiting:
            return True
        return self._cost[tenant] + cost <= self._queued // len(self._waiting)

    @asynccontextmanager
    async def turn(self, tenant: str, cost: int = 1) -> AsyncIterator[None]:
        """Wait for a slot, and hold it within the context."""
        if self._may_begin(tenant):
            self._begin(tenant)
        else:
            await self._wait(tenant, cost)
        try:
            yield
        finally:
            self._end(tenant)

    async def _wait(self, tenant: str, cost: int) -> None:
        place: Place = asyncio.get_running_loop().create_future(), cost
        self._waiting.setdefault(tenant, deque()).append(place)
        self._cost[tenant] += cost
        try:
            await place[0]
        except asyncio.CancelledError:
            if place[0].cancelled():
                self._leave(tenant, place)
            else:  # it was this one's turn at the same moment
                self._end(tenant)
            raise

    def _leave(self, tenant: str, place: Place) -> None:
        line = self._waiting[tenant]
        line.remove(place)
        self._cost[tenant] -= place[1]
        if not line:
            del self._waiting[tenant], self._cost[tenant]

    def _may_begin(self, tenant: str) -> bool:
        held = self._held[tenant]
        return held < self._each and self._free > (self._reserve if held else 0)

    def _begin(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _end(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while next_one := self._next():
            next_one.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        """The turn that begins next, which has its slot from now on."""
        for tenant, line in self._waiting.items():
            place = next((place for place in line if not place[0].done()), None)  # some may be cancelled
            if place and self._may_begin(tenant):
                self._leave(tenant, place)
                if tenant in self._waiting:
                    self._waiting.move_to_end(tenant)
                self._begin(tenant)
                return place[0]
        return None
