"""Failed logins, counted by address, by account and in all: a few are free, each further one doubles the next pause."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import TypeVar

import structlog

Value = TypeVar("Value")

log = structlog.get_logger(__name__)

FREE, FREE_OF_ACCOUNT, FREE_IN_ALL = 5, 10, 50
"""Failures without a pause: of one address, with one account, and of all together."""

LONGEST_S, LONGEST_OF_ACCOUNT_S, LONGEST_IN_ALL_S = 60.0, 10.0, 10.0
"""Longest pause in seconds: of one address, with one account, and of all together."""

OPEN_IN_ALL = 12
"""Maximum number of passwords of addresses that have not logged in which are checked, or wait for that, at a time: so
that others find a place and a short queue."""

KEPT_S = 3600.0
"""Time without a failure after which earlier ones do not count, in seconds."""

LOGGED_S = 60.0
"""Minimum time between two lines about failures in the log, in seconds."""

ADDRESSES = 10_000
"""Maximum number of addresses that are remembered, and of accounts; the oldest goes first."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    at: float = 0.0
    open: int = 0
    """Guesses whose result is not known yet: they count as failures, so that many at once gain nothing."""

    def until(self, now: float, free: int, longest: float) -> float:
        """The time at which the next guess may come."""
        count = self.count + self.open
        if count <= free:
            return 0.0
        return (now if self.open else self.at) + min(longest, 2.0 ** min(count - free, 30))

    def add(self, now: float) -> None:
        self.count = self.count + 1 if now - self.at < KEPT_S else 1
        self.at = now


class Guesses:
    """The failures that this viewer has seen; an account is named by what was typed. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._by_address: dict[str, _Failures] = {}
        self._by_account: dict[str, _Failures] = {}
        self._all = _Failures()
        self._known: dict[str, None] = {}
        """Addresses, and addresses with accounts, that have logged in: guesses of others do not make them wait."""
        self._logged_at = -LOGGED_S
        self._unlogged: dict[str, int] = {}

    def wait(self, address: str, account: str = "") -> float:
        """Seconds until this address may try again, with this account; 0: now."""
        now, address = self._clock(), network(address)
        own = self._by_address.get(address, _Failures())
        # One password of an address is checked at a time, so that it takes no more than one of the threads for that.
        ends = [own.until(now, FREE, LONGEST_S), now + 1.0 if own.open else 0.0]
        if address not in self._known:
            ends.append(self._all.until(now, FREE_IN_ALL, LONGEST_IN_ALL_S))
            ends.append(now + 1.0 if self._all.open >= OPEN_IN_ALL else 0.0)
        if account and _both(address, account) not in self._known:
            with_it = self._by_account.get(_digest(account), _Failures())
            ends.append(with_it.until(now, FREE_OF_ACCOUNT, LONGEST_OF_ACCOUNT_S))
        return max(0.0, *(end - now for end in ends))

    @contextmanager
    def trying(self, address: str, account: str) -> Iterator[None]:
        """A guess whose result takes time."""
        counted = [self._all, *self._counters(network(address), account)]
        for failures in counted:
            failures.open += 1
        try:
            yield
        finally:
            for failures in counted:
                failures.open -= 1

    def failed(self, address: str, account: str = "") -> None:
        now, address = self._clock(), network(address)
        for failures in (self._all, *self._counters(address, account)):
            failures.add(now)
        _remember(self._unlogged, address, self._unlogged.pop(address, 0) + 1)
        self.report()

    def succeeded(self, address: str, account: str = "") -> None:
        address = network(address)
        self._by_address.pop(address, None)
        for known in (address, *([_both(address, account)] if account else [])):
            self._known.pop(known, None)
            _remember(self._known, known, None)

    def report(self) -> None:
        """Log the failures since the last line, unless that is newer than `LOGGED_S`."""
        if self._unlogged and self._clock() - self._logged_at >= LOGGED_S:
            self._logged_at = self._clock()
            worst = max(self._unlogged, key=self._unlogged.__getitem__)
            failures = sum(self._unlogged.values())
            log.warning("login.failed", address=worst, failures=failures, addresses=len(self._unlogged))
            self._unlogged.clear()

    def _counters(self, address: str, account: str) -> Iterator[_Failures]:
        """The counters of an address and of an account, which become the newest."""
        for held, name in ((self._by_address, address), (self._by_account, account and _digest(account))):
            if name:
                failures = held.pop(name, None) or _Failures()
                _remember(held, name, failures)
                yield failures


def _digest(account: str) -> str:
    """An account as it is counted: what was typed may be long."""
    return sha256(account.encode("utf-8", "replace")).hexdigest()


def _both(address: str, account: str) -> str:
    return f"{address} {_digest(account)}"


def _remember(held: dict[str, Value], name: str, value: Value) -> None:
    held[name] = value
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
