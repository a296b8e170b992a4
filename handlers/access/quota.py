"""Counts what a tenant sends and spends, and refuses what is over a limit."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from domain.access.limits import OPERATOR, SECONDS, TENANT, Counted, Limits, Quantity, Side, counted, least
from domain.aggregate import Rejection
from domain.chat.conversation import Conversation
from domain.log import Metadata
from handlers.commands.fields import Command
from handlers.ports.counters import Counter, Counters, Waiting
from handlers.ports.log import Blobs, Frozen, Unavailable
from handlers.repository import Repository

log = structlog.get_logger(__name__)

HELD_S = 5.0
"""Time for which the limits of a tenant are kept in memory, in seconds: a change holds after it at the latest."""

HELD = 10_000
"""Maximum number of tenants whose limits are kept in memory."""

RETRY_WAITING_S = 10
"""Advice on when to try again what waits for other work to end, in seconds."""


class Bound(NamedTuple):
    """A limit that holds for a command."""

    counted: Counted
    subject: str
    most: int

    def counter(self, tenant: str, at: datetime) -> Counter:
        """Names of apps, users and keys may have any character."""
        digest = hashlib.sha256(self.subject.encode()).hexdigest()[:32] if self.subject else "all"
        number = int(at.timestamp()) // SECONDS[self.counted.period]
        return Counter(tenant, self.counted.period, number, f"{self.counted.quantity}.{self.counted.scope}.{digest}")


@dataclass(frozen=True, slots=True)
class _Held:
    until: float
    sides: tuple[Side, ...]
    counted: Sequence[Counted]

    def bounds(self, quantities: Sequence[str], subjects: Mapping[str, str | None]) -> Iterator[Bound]:
        """The limits of these quantities for the subjects, by scope."""
        for each in self.counted:
            subject = subjects.get(each.scope)
            if each.quantity in quantities and subject is not None:
                most = least(self.sides, each, subject)
                if most is not None:
                    yield Bound(each, subject, most)


@dataclass(frozen=True, slots=True)
class Quota:
    """`defaults` are limits of every tenant, which the operator's for one tenant replace."""

    repository: Repository
    blobs: Blobs
    counters: Counters
    waiting: Waiting
    defaults: Side = field(default_factory=dict)
    held_s: float = HELD_S
    _held: dict[str, _Held] = field(default_factory=dict, init=False)

    async def take(self, cause: Metadata, quantities: Sequence[Quantity], command: Command, at: datetime) -> None:
        """Count a command, which the log took at `at`; one that is over a limit counts for nothing.

        Raises: Rejection `over_quota`; Unavailable.
        """
        held = await self._limits(cause.tenant)
        scopes = {each.scope for each in held.counted if each.quantity in quantities}
        if not scopes:
            return
        subjects: dict[str, str | None] = {"tenant": "", "key": cause.actor}
        if scopes & {"app", "user"}:
            subjects |= await of_chat(self.repository, cause, command)
        bounds = list(held.bounds(quantities, subjects))
        waiting = [bound for bound in bounds if bound.counted.period == "waiting"]
        for bound in waiting:
            if (count := self.waiting.count(cause.tenant, bound.counted.quantity)) >= bound.most:
                raise _over(bound, count, 1, RETRY_WAITING_S, command)
        if others := [bound for bound in bounds if bound not in waiting]:
            await self._count(cause.tenant, others, command, at)
        for bound in waiting:
            self.waiting.begin(cause.tenant, bound.counted.quantity)

    async def spend(self, cause: Metadata, app: str | None, tokens: int) -> None:
        """Count the tokens of a model call. A count that fails is left out: the call is made and recorded."""
        try:
            held = await self._limits(cause.tenant)
            subjects = {"tenant": "", "key": cause.actor, "app": app, "user": cause.person}
            at = datetime.now(UTC)
            counters = [bound.counter(cause.tenant, at) for bound in held.bounds(("tokens",), subjects)]
            await asyncio.gather(*(self.counters.add(counter, tokens) for counter in counters))
        except Unavailable as error:
            log.warning("tokens not counted", tenant=cause.tenant, tokens=tokens, reason=str(error))

    async def _count(self, tenant: str, bounds: Sequence[Bound], command: Command, at: datetime) -> None:
        size = await self._size(tenant, command) if any(each.counted.quantity == "bytes" for each in bounds) else 0
        amounts = [{"bytes": size, "tokens": 0}.get(bound.counted.quantity, 1) for bound in bounds]
        counters = [bound.counter(tenant, at) for bound in bounds]
        counts = await asyncio.gather(*map(self.counters.add, counters, amounts))
        for bound, amount, count in zip(bounds, amounts, counts, strict=True):
            if count > bound.most or (bound.counted.quantity == "tokens" and count == bound.most):
                taken = [(each, -amount) for each, amount in zip(counters, amounts, strict=True) if amount]
                await asyncio.gather(*(self.counters.add(each, back) for each, back in taken))
                length = SECONDS[bound.counted.period]
                raise _over(bound, count - amount, amount, length - int(at.timestamp()) % length, command)

    async def _size(self, tenant: str, command: Command) -> int:
        """Bytes of the files that a command uploads; 0 where there is none."""
        if (text := getattr(command, "text", None)) is not None:
            return len(text.encode())
        digests = [getattr(each, "digest", None) for each in (command, *(getattr(command, "files", None) or ()))]
        return sum(filter(None, [await self.blobs.size(tenant, digest) for digest in digests if digest]))

    async def _limits(self, tenant: str) -> _Held:
        held = self._held.get(tenant)
        if held is None or held.until < time.monotonic():
            operator, own = await asyncio.gather(*(self._side(tenant, side) for side in (OPERATOR, TENANT)))
            sides = ({**self.defaults, **operator}, own)
            kinds = dict.fromkeys(counted(name)[0] for side in sides for name in side)
            held = _Held(time.monotonic() + self.held_s, sides, tuple(kinds))
            self._held.pop(tenant, None)
            self._held[tenant] = held
            if len(self._held) > HELD:
                del self._held[next(iter(self._held))]
        return held

    async def _side(self, tenant: str, side: str) -> Side:
        """The limits of one side; none where its aggregate is frozen: that must not stop the whole tenant."""
        try:
            limits = await self.repository.get(Limits, tenant, side)
        except Frozen as frozen:
            log.warning("limits not applied", tenant=tenant, side=side, reason=str(frozen))
            return {}
        return limits.most if limits else {}


async def of_chat(repository: Repository, cause: Metadata, command: Command) -> dict[str, str | None]:
    """The app and the user of a command: those that it names, or those of its conversation."""
    app, person, conversation = getattr(command, "app", None), cause.person, getattr(command, "conversation", None)
    if conversation and not app:
        first = await repository.first(Conversation, cause.tenant, conversation)
        if first:
            app, person = getattr(first.events[0], "app", None), first.metadata.person
    return {"app": app, "user": person}


def _over(bound: Bound, count: int, amount: int, retry_after_s: int, command: Command) -> Rejection:
    quantity, period, scope = bound.counted
    details: dict[str, str | int] = {"limit": str(bound.counted), "most": bound.most, "count": count}
    if amount > bound.most:
        advice = "A larger limit is needed."
    else:
        details["retry_after_s"] = retry_after_s
        advice = f"Try again in {retry_after_s:,} s."
    whose = {"tenant": "the tenant", "app": "this app", "user": "this user", "key": "this key"}[scope]
    when = "may wait or be in progress" if period == "waiting" else f"a {period} are allowed"
    size = f", and {amount:,} more are asked for" if quantity == "bytes" else ""
    message = f"At most {bound.most:,} {quantity} {when} for {whose}; there are {count:,}{size}. {advice}"
    return Rejection("over_quota", message, scope if scope in type(command).model_fields else None, details)
