"""Reserves what a call of a model may use of the hard quotas that hold for it, in leases that this process has taken.

A lease is taken by one commit of its window, used in memory by many calls, and settled with what they have used. The
request of a call names its leases, and its end what is charged to them. So a worker that dies leaves nothing unknown:
once its leases run out, `settle` charges them with the calls that the log has.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import structlog

from domain.aggregate import Rejection, new_id
from domain.log import Metadata, commit_id
from domain.models.model import Model, model_id
from domain.models.model_call import Grant, ModelCall, TokenUsage
from domain.models.quota import NANO, OPERATOR, TENANT, Bound, Definition, Quota, bounds, every, of_side, shown
from domain.models.quota_window import PARTS, Parts, QuotaWindow, free_again, length, used
from handlers.cause import Cause
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from handlers.repository import Change, Repository

log = structlog.get_logger(__name__)

HELD_S = 2.5
"""Time after which the quotas of a tenant are read again, in seconds. Calls wait for that only after twice the time, so
that a change holds by then."""

HELD = 10_000
"""Maximum number of tenants whose quotas are kept in memory."""

LEASE_S = 60.0
"""Length of a lease, in seconds; it is renewed while calls that use it are in progress."""

GRACE_S = 30.0
"""Time after the end of a lease before others settle it, in seconds. Clocks of machines may differ by less."""

IDLE_S = 2.0
"""Time without a call after which a lease is returned, in seconds."""

PATIENCE_S = 5.0
"""Maximum wait for others to return what they hold of a window, in seconds."""

PAUSE_S = 0.25
"""Interval at which leases are looked after, in seconds."""

SEEN_S = 1.0
"""Time for which the state of a window is kept in memory for commands, in seconds."""

ACTOR = "quota"
"""The actor of the commits of windows."""

Price = Callable[[str, str, str, datetime, Mapping[str, Any], Mapping[str, Any] | None], float | None]
"""US dollars for the tokens of a call, by provider, server, model, time, usage, and the prices of the tenant's entry of
the model; None when no price is known."""


@dataclass(slots=True, eq=False)
class Lease:
    """A lease of this process: `until` is in seconds since 1970; `used` is charged by calls that have ended.

    No call begins after `closes`, in seconds since 1970: a lease of a rolling window counts from when it is settled.
    """

    bound: Bound
    tenant: str
    id: str
    amount: int
    until: float
    closes: float
    used: int = 0
    reserved: int = 0
    calls: int = 0
    touched: float = field(default_factory=time.monotonic)
    lost: bool = False
    """A call of it has an end that is unknown here: it is settled by the log."""

    @property
    def free(self) -> int:
        return self.amount - self.used - self.reserved

    def has(self, amount: int, margin_s: float) -> bool:
        """Return whether a call that begins now may use this amount."""
        now = time.time()
        return not self.lost and self.free >= amount and now + margin_s < self.until and now < self.closes


@dataclass(slots=True, eq=False)
class Reservation:
    """The amounts of leases that one call may use; none where no quota holds for it."""

    holds: Sequence[tuple[Lease, int]] = ()
    price: Callable[[Mapping[str, Any]], float | None] = lambda _: None
    open: bool = True

    @property
    def grants(self) -> list[Grant]:
        """The reserved amounts, as the request of the call names them."""
        return [
            Grant(window=lease.bound.window.id, lease=lease.id, unit=lease.bound.window.unit, amount=amount)
            for lease, amount in self.holds
        ]

    @property
    def has_run_out(self) -> bool:
        """True once a lease may be settled by others: a call that was not recorded before must not be sent."""
        return any(time.time() >= lease.until for lease, _ in self.holds)

    def charge(self, call: ModelCall, at: datetime, usage: TokenUsage | None, *, sent: bool = True) -> None:
        """Charge a call that ends with what it has used; a call that was not sent has used nothing."""
        if not call.reserved:
            return
        amounts = {"calls": int(sent), "tokens": 0, "money": 0}
        if usage:
            amounts["tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
            amounts["money"] = _nano(self.price(usage))
            if usage["estimated"]:  # a guess does not exceed what the call was allowed
                reserved = {grant["unit"]: grant["amount"] for grant in call.reserved}
                amounts = {unit: min(amount, reserved.get(unit, amount)) for unit, amount in amounts.items()}
        call.charge(at, amounts)

    def settle(self, call: ModelCall) -> None:
        """Free what the call has not used, by what is recorded of it."""
        paid = {grant["lease"]: grant["amount"] for grant in call.paid}
        for lease, _ in self.holds:
            if self.open:
                lease.used += paid.get(lease.id, 0)
        self.release()

    def release(self) -> None:
        """Free all of it: the call was not made."""
        if self.open:
            self.open = False
            for lease, amount in self.holds:
                lease.reserved -= amount
                lease.calls -= 1
                lease.touched = time.monotonic()

    def abandon(self) -> None:
        """Leave the leases to be settled by the log: whether the call, or its end, was recorded is not known."""
        if self.open:
            for lease, _ in self.holds:
                lease.lost = True
            self.release()


NOTHING = Reservation()
"""The reservation of a call that no quota holds for."""


@dataclass(slots=True)
class _Held:
    at: float
    quotas: Mapping[str, Definition]


class _State(NamedTuple):
    """A window as it was at a moment; its aggregate goes on to change. `used` is by parts."""

    used: Parts
    left: int
    leased: bool
    exhausted: bool


@dataclass(slots=True, eq=False)
class _Pool:
    """The leases of one window that this process has: those for calls, and those that no call can use any more."""

    tenant: str
    window: str
    leases: list[Lease] = field(default_factory=list)
    returned: list[Lease] = field(default_factory=list)
    wanted: int = 0
    """Sum of the needs of those that wait for a lease; they take turns."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    seen: tuple[float, _State] | None = None
    """When the window may be looked at again, after something did not fit; and how it was then."""

    def free(self, amount: int, margin_s: float) -> Lease | None:
        """A lease that a call which begins now may use for this amount."""
        return next((lease for lease in self.leases if lease.has(amount, margin_s)), None)

    def retire(self, is_done: Callable[[Lease], bool]) -> None:
        """Take leases away from calls, to be settled."""
        self.returned += [lease for lease in self.leases if is_done(lease)]
        self.leases[:] = [lease for lease in self.leases if lease not in self.returned]

    def note(self, window: QuotaWindow) -> None:
        """Forget what is settled."""
        self.returned[:] = [lease for lease in self.returned if lease.id in window.leases]

    @property
    def is_empty(self) -> bool:
        return not (self.leases or self.returned or self.wanted)


class Grants:
    """`price` is needed where a quota of money holds: without one, and for models without a price, it refuses calls.

    The leases are looked after by a task of this process, which ends when there are none.
    """

    def __init__(
        self,
        repository: Repository,
        price: Price = lambda *_: None,
        *,
        held_s: float = HELD_S,
        lease_s: float = LEASE_S,
        idle_s: float = IDLE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._repository = repository
        self._price = price
        self._held_s = held_s
        self._lease_s = lease_s
        self._idle_s = idle_s
        self._patience_s = patience_s
        self._held: dict[str, _Held] = {}
        self._reading: dict[str, asyncio.Task[_Held]] = {}
        self._pools: dict[str, _Pool] = {}
        """By window."""
        self._seen: dict[str, tuple[float, Parts | None]] = {}
        """Time until which it holds, and the used parts of an exhausted window; None for one that is not."""
        self._used: dict[str, Parts] = {}
        """Used parts by window, as last seen: they only grow."""
        self._upkeep: asyncio.Task[None] | None = None

    async def reserve(
        self, cause: Cause, provider: str, server: str, model: str, *, prompt_tokens: int, max_tokens: int
    ) -> Reservation:
        """Reserve the most that a call may use; `prompt_tokens` must not be less than the server will count.

        Raises: ModelError `quota_exceeded`, or `unpriced` where a quota of money holds and no price is known;
        Unavailable.
        """
        quotas = await self._quotas(cause.metadata.tenant)
        if not quotas:
            return NOTHING
        at = datetime.now(UTC)
        found = list(bounds(quotas, _subjects(cause, provider, model), at))
        if not found:
            return NOTHING

        def price(usage: Mapping[str, Any]) -> float | None:
            return self._price(provider, server, model, at, usage, entry)

        amounts = {"calls": 1, "tokens": prompt_tokens + max_tokens}
        entry: Mapping[str, Any] | None = None
        if any(bound.window.unit == "money" for bound in found):
            known = await self._repository.get(Model, cause.metadata.tenant, model_id(provider, model))
            entry = known.entry["prices"] if known and known.entry else None
            amounts["money"] = _most(price, prompt_tokens, max_tokens, provider, model) if amounts["tokens"] else 0
        found = [bound for bound in found if amounts[bound.window.unit]]  # a filter's server takes no tokens
        for bound in found:  # before a lease of another is taken in vain
            parts = self._used.get(bound.window.id, {})
            left = bound.limit - used(parts, at)
            if amounts[bound.window.unit] > left:
                if await self._exhausted(cause.metadata.tenant, bound) is None:
                    await self._exhaust(cause.metadata.tenant, bound, amounts[bound.window.unit])
                raise _refused(bound, parts, amounts[bound.window.unit], max(0, left))
        holds: list[tuple[Lease, int]] = []
        reservation = Reservation(holds, price)
        try:
            for bound in found:
                amount = amounts[bound.window.unit]
                lease = await self._take(cause.metadata.tenant, bound, amount)
                lease.reserved += amount
                lease.calls += 1
                holds.append((lease, amount))
        except BaseException:
            reservation.release()
            raise
        return reservation

    async def admit(self, tenant: str, subjects: Mapping[str, str | None], fields: Iterable[str]) -> None:
        """Refuse a command whose calls some quota would refuse. Raises: Rejection `quota_exceeded`; Unavailable."""
        quotas = await self._quotas(tenant)
        for bound in bounds(quotas, subjects, datetime.now(UTC)):
            if (parts := await self._exhausted(tenant, bound)) is not None:
                scope, at = bound.window.scope, datetime.now(UTC)
                free_at = free_again(bound.window, parts, at)
                details: dict[str, str | int] = {
                    "quota": bound.window.quota,
                    "scope": scope,
                    "limit": shown(bound.limit, bound.window.unit),
                    "period": bound.window.period,
                    "retry_after_s": max(1, math.ceil((free_at - at).total_seconds())),
                }
                if bound.window.rolling:
                    details["rolling"] = bound.window.rolling
                raise Rejection("quota_exceeded", _sentence(bound, parts), scope if scope in fields else None, details)

    async def close(self) -> None:
        """Return what no call uses. Leases with calls in progress are settled by the log."""
        if self._upkeep:
            self._upkeep.cancel()
            await asyncio.wait((self._upkeep,))
        for pool in self._pools.values():
            pool.retire(_is_unused)
            await self._tend(pool)
        self._pools.clear()

    # --- quotas ---

    async def _quotas(self, tenant: str) -> Mapping[str, Definition]:
        """The hard quotas of a tenant, by side and name. Raises: Unavailable."""
        held = self._held.get(tenant)
        age = time.monotonic() - held.at if held else math.inf
        if held and age < self._held_s:
            return held.quotas
        reading = self._reading.get(tenant)
        if reading is None:
            reading = self._reading[tenant] = asyncio.create_task(self._read(tenant))
            reading.add_done_callback(lambda task: self._has_read(tenant, task))
        if held and age < 2 * self._held_s:
            return held.quotas
        return (await asyncio.shield(reading)).quotas

    async def _read(self, tenant: str) -> _Held:
        began = time.monotonic()
        sides = await asyncio.gather(*(self._repository.get(Quota, tenant, side) for side in (OPERATOR, TENANT)))
        found = {**of_side(OPERATOR, sides[0]), **of_side(TENANT, sides[1])}
        return _Held(began, {quota: definition for quota, definition in found.items() if definition["hard"]})

    def _has_read(self, tenant: str, reading: asyncio.Task[_Held]) -> None:
        del self._reading[tenant]
        self._held.pop(tenant, None)
        if reading.cancelled():
            return
        if error := reading.exception():
            log.warning("quotas not read", tenant=tenant, reason=str(error))
            return
        self._held[tenant] = reading.result()
        if len(self._held) > HELD:
            del self._held[next(iter(self._held))]

    async def _exhausted(self, tenant: str, bound: Bound) -> Parts | None:
        """The used parts of a window that is exhausted; None for one that is not."""
        now = time.monotonic()
        until, parts = self._seen.get(bound.window.id, (0.0, None))
        if until < now:
            window = await self._repository.get(QuotaWindow, tenant, bound.window.id)
            if window:
                parts = window.parts if window.is_exhausted(bound.limit, datetime.now(UTC)) else None
            else:
                parts = None if bound.limit else {}
            if len(self._seen) > HELD:
                self._seen.clear()
            self._seen[bound.window.id] = now + min(SEEN_S, self._held_s), parts
        return parts

    # --- leases ---

    async def _take(self, tenant: str, bound: Bound, amount: int) -> Lease:
        """A lease that has this amount; wait a little while others hold what is left of the window.

        Raises: ModelError `quota_exceeded`; Unavailable.
        """
        pool = self._pools.get(bound.window.id) or self._pools.setdefault(
            bound.window.id, _Pool(tenant, bound.window.id)
        )
        margin_s, until = self._lease_s / 4, time.monotonic() + self._patience_s
        if lease := pool.free(amount, margin_s):
            return lease
        pool.wanted += amount
        try:
            while True:
                async with pool.turn:
                    if lease := pool.free(amount, margin_s):
                        return lease
                    again, state = pool.seen or (0.0, None)
                    if state is None or time.monotonic() >= again or amount <= state.left:
                        state = await self._grant(pool, bound, amount, until)
                    if lease := pool.free(amount, margin_s):
                        return lease
                    pool.seen = time.monotonic() + PAUSE_S / 2, state
                in_vain = used(state.used, datetime.now(UTC)) + amount > bound.limit
                if time.monotonic() > until or in_vain or not state.leased:
                    if not state.exhausted:
                        await self._exhaust(tenant, bound, amount)
                    raise _refused(bound, state.used, amount, state.left)
                await asyncio.sleep(random.uniform(0.5, 1.0) * PAUSE_S)
        finally:
            pool.wanted -= amount
            if pool.is_empty:
                self._pools.pop(bound.window.id, None)

    async def _grant(self, pool: _Pool, bound: Bound, amount: int, until: float) -> _State:
        """Take a lease if its amount is left, and return the window as it is then. Raises: Unavailable."""
        id = new_id()
        pool.retire(_is_unused)  # what is left in other leases is too little, and is returned with the same commit

        def decide(window: QuotaWindow | None) -> QuotaWindow:
            at = datetime.now(UTC)
            window = window or QuotaWindow.open(at, bound.window)
            for lease in pool.returned:
                window.settle(at, lease.id, lease.used)
            window.grant(at, id, amount, pool.wanted, bound.limit, at + timedelta(seconds=self._lease_s))
            return window

        while True:
            try:
                window = (await self._change(pool.tenant, pool.window, f"{id}:granted", decide)).aggregate
                break
            except Unavailable:  # many workers at once take leases of a window
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(random.uniform(0.0, PAUSE_S))
        self._note(pool, window)
        if taken := window.leases.get(id):
            ends_at = datetime.fromisoformat(taken["until"]).timestamp()
            pool.leases.append(Lease(bound, pool.tenant, id, taken["amount"], ends_at, self._closes(bound)))
            if self._upkeep is None or self._upkeep.done():
                self._upkeep = asyncio.create_task(self._look_after())
        limit, at = bound.limit, datetime.now(UTC)
        return _State(window.parts, window.left(limit, at), bool(window.leases), window.is_exhausted(limit, at))

    def _closes(self, bound: Bound) -> float:
        """When a lease that is taken now is closed: after a step of a rolling window."""
        window = bound.window
        if not window.rolling:
            return math.inf
        return time.time() + max(length(window.period, window.rolling).total_seconds() / PARTS, self._idle_s)

    def _note(self, pool: _Pool, window: QuotaWindow) -> None:
        pool.note(window)
        if len(self._used) > HELD:
            self._used.clear()
        self._used[pool.window] = window.parts

    async def _exhaust(self, tenant: str, bound: Bound, amount: int) -> None:
        """Record that a reservation did not fit, so that commands are refused. Where that fails, the next one does."""

        def decide(window: QuotaWindow | None) -> QuotaWindow:
            at = datetime.now(UTC)
            window = window or QuotaWindow.open(at, bound.window)
            window.exhaust(at, amount, bound.limit)
            return window

        try:
            await self._change(tenant, bound.window.id, f"{new_id()}:exhausted", decide)
        except Unavailable as error:
            log.info("not recorded as exhausted", window=bound.window.id, reason=str(error))
        self._seen.pop(bound.window.id, None)

    async def _look_after(self) -> None:
        """Return leases that no call uses, renew those that calls go on to use, and drop those that are lost."""
        while self._pools:
            await asyncio.sleep(random.uniform(0.5, 1.0) * PAUSE_S)
            for pool in list(self._pools.values()):
                pool.retire(self._is_done)
                await self._tend(pool)
                pool.leases[:] = [lease for lease in pool.leases if not self._is_gone(lease)]
                if pool.is_empty:
                    self._pools.pop(pool.window, None)

    def _is_done(self, lease: Lease) -> bool:
        idle = time.monotonic() - lease.touched >= self._idle_s
        return _is_unused(lease) and (idle or not lease.free or not lease.has(0, self._lease_s / 4))

    def _runs_out(self, lease: Lease) -> bool:
        return bool(lease.calls) and not lease.lost and time.time() + self._lease_s / 2 >= lease.until

    def _is_gone(self, lease: Lease) -> bool:
        return time.time() >= lease.until + GRACE_S and (lease.lost or not lease.calls)

    async def _tend(self, pool: _Pool) -> None:
        """Settle the leases that are returned, and hold those for longer that run out during calls."""
        running_out = [lease for lease in pool.leases if self._runs_out(lease)]
        if not (pool.returned or running_out):
            return
        until = datetime.now(UTC) + timedelta(seconds=self._lease_s)

        def decide(window: QuotaWindow | None) -> QuotaWindow:
            assert window is not None
            at = datetime.now(UTC)
            for lease in pool.returned:
                window.settle(at, lease.id, lease.used)
            for lease in running_out:
                window.renew(at, lease.id, until)
            return window

        try:
            change = await self._change(pool.tenant, pool.window, f"{new_id()}:tended", decide)
        except Unavailable as error:  # the next time, or by the log
            log.info("leases not returned yet", window=pool.window, reason=str(error))
            return
        self._note(pool, change.aggregate)
        for lease in running_out:
            if lease.id in change.aggregate.leases:
                lease.until = until.timestamp()
            else:  # it ran out, and was settled by the log
                lease.lost = True

    async def _change(
        self, tenant: str, window: str, step: str, decide: Callable[[QuotaWindow | None], QuotaWindow]
    ) -> Change[QuotaWindow]:
        """Change a window. Its commits belong to no person, although the calls do."""
        metadata = Metadata(commit_id(window, step), tenant, window, actor=ACTOR)
        return await self._repository.change(QuotaWindow, window, metadata, decide)


def _is_unused(lease: Lease) -> bool:
    return not lease.calls and not lease.lost


def _subjects(cause: Cause, provider: str, model: str) -> dict[str, str | None]:
    """The subjects of a call, by scope."""
    metadata = cause.metadata
    return {
        "tenant": "",
        "app": cause.app,
        "user": metadata.person,
        "key": metadata.actor,
        "provider": provider,
        "model": model,
    }


def _most(
    price: Callable[[Mapping[str, Any]], float | None], prompt: int, completion: int, provider: str, model: str
) -> int:
    """The most that a call may cost, in billionths of a US dollar. Raises: ModelError `unpriced`."""
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached_tokens": None,
        "cache_write_tokens": None,
    }
    costs = [price(usage), price({**usage, "cache_write_tokens": prompt})]
    known = [cost for cost in costs if cost is not None]
    if not known:
        raise ModelError(
            "unpriced",
            f"The model was not called, since a hard quota of money holds, and {model} at {provider} has no price that "
            "is known. Add its price, or set a quota of calls or tokens.",
        )
    return _nano(max(known))


def _nano(cost: float | None) -> int:
    """US dollars in billionths, rounded up."""
    return math.ceil(round((cost or 0.0) * NANO, 3))


def _refused(bound: Bound, parts: Parts, needed: int, left: int) -> ModelError:
    return ModelError("quota_exceeded", _sentence(bound, parts, needed, left), scope=bound.window.scope)


def _sentence(bound: Bound, parts: Parts, needed: int | None = None, left: int = 0) -> str:
    window = bound.window
    whose = "the tenant" if window.scope == "tenant" else f"this {window.scope}"
    when = every(window.period, window.time_zone, window.rolling)
    most = f"{shown(bound.limit, window.unit)} {when} for {whose}"
    if needed is None or needed == 1:
        rest = "all of it is used"
    else:
        rest = f"the call may need {shown(needed, window.unit)}, of which {shown(left, window.unit)} can be had now"
    free = free_again(window, parts, datetime.now(UTC)).isoformat(timespec="seconds")
    return f"The quota {window.quota} is {most}: {rest}. {'Some' if window.rolling else 'It'} is free again at {free}."
