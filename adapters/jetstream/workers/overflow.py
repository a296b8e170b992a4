"""Messages of a tenant that a worker has no room for: the time after which each is delivered again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

SHORTEST_S = 0.5
"""Shortest delay before such a message is delivered again, in seconds."""

FAR_S, SPACING_S = 60.0, 0.005
"""Messages that are scheduled for later than this are only so far apart, in seconds: the server delivers them before
new messages, so their rate must stay far below what a worker can take."""

ALIGNED_S, TICK_S = 10.0, 0.5
"""Messages that are away for longer than this come at whole ticks: for each moment at which one is due, the server
looks through all messages that are out."""

WEIGHT = 1 / 16
"""Weight of the last turn in a tenant's mean interval between two turns."""

KEPT = 1000
"""Number of tenants after which those without such messages are forgotten."""


@dataclass(slots=True)
class _Schedule:
    """`began`: the last turn. `interval`: mean time between two. `until`: time of the last scheduled delivery."""

    began: float
    interval: float
    until: float

    def mean(self, now: float) -> float:
        """The mean interval if a turn began now."""
        return self.interval + (now - self.began - self.interval) * WEIGHT


class Overflow:
    """Spreads the messages over the time that the tenant's turns take, at twice their pace.

    So a tenant's queue neither runs dry, nor are its messages delivered again and again in vain.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._schedules: dict[str, _Schedule] = {}

    def begun(self, tenant: str) -> None:
        """Count a turn of the tenant."""
        if schedule := self._schedules.get(tenant):
            now = self._now()
            schedule.interval, schedule.began = schedule.mean(now), now

    def delay(self, tenant: str) -> float:
        """Seconds until another message of the tenant should be delivered again; it grows from message to message."""
        now = self._now()
        schedule = self._schedules.get(tenant) or self._first(tenant, now)
        # While a worker takes many messages at once, no turn begins: the time since the last one is no interval.
        interval = max(schedule.interval, schedule.mean(now))
        last = max(schedule.until, now)
        schedule.until = min(last + interval / 2, max(now + FAR_S, last + SPACING_S))
        delay = max(SHORTEST_S, schedule.until - now) * random.uniform(0.5, 1)
        return delay if delay < ALIGNED_S else math.ceil((now + delay) / TICK_S) * TICK_S - now

    def _first(self, tenant: str, now: float) -> _Schedule:
        if len(self._schedules) >= KEPT:
            self._schedules = {name: found for name, found in self._schedules.items() if found.until > now}
        return self._schedules.setdefault(tenant, _Schedule(now, 0.0, now))
