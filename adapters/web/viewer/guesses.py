"""Failed logins, counted by address and in all: a few are free, each further one doubles the pause before the next."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

import structlog

Value = TypeVar("Value")

log = structlog.get_logger(__name__)

FREE, FREE_IN_ALL = 5, 50
"""Failures without a pause: of one address, and of all together."""

LONGEST_S, LONGEST_IN_ALL_S = 60.0, 10.0
"""Longest pause in seconds: of one address, and of all together."""

KEPT_S = 3600.0
"""Time without a failure after which earlier ones do not count, in seconds."""

ADDRESSES = 10_000
"""Maximum number of addresses that are remembered; the oldest goes first."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    at: float = 0.0

    def pause(self, free: int, longest: float) -> float:
        """Pause after the last failure, in seconds."""
        return min(longest, 2.0 ** min(self.count - free, 30)) if self.count > free else 0.0


class Guesses:
    """The failures that this viewer has seen. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._by_address: dict[str, _Failures] = {}
        self._all = _Failures()
        self._known: dict[str, None] = {}
        """Addresses that have logged in: guesses of others do not make them wait."""

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0: now."""
        now, address = self._clock(), network(address)
        own = self._by_address.get(address, _Failures())
        waits = [own.at + own.pause(FREE, LONGEST_S) - now]
        if address not in self._known:
            waits.append(self._all.at + self._all.pause(FREE_IN_ALL, LONGEST_IN_ALL_S) - now)
        return max(0.0, *waits)

    def failed(self, address: str) -> None:
        now, address = self._clock(), network(address)
        own = self._by_address.pop(address, _Failures())
        for failures in (own, self._all):
            failures.count = failures.count + 1 if now - failures.at < KEPT_S else 1
            failures.at = now
        _remember(self._by_address, address, own)
        log.warning("login.failed", address=address, failures=own.count, in_all=self._all.count)

    def succeeded(self, address: str) -> None:
        address = network(address)
        self._by_address.pop(address, None)
        self._known.pop(address, None)
        _remember(self._known, address, None)


def _remember(held: dict[str, Value], address: str, value: Value) -> None:
    held[address] = value
    if len(held) > ADDRESSES:
        del held[next(iter(held))]


def network(address: str) -> str:
    """The address, of IPv6 the network that one user has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
