"""Rates of models: requests and tokens a minute with one credential, counted over all workers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from domain.access.limits import SECONDS
from handlers.models.rests import Key
from handlers.ports.counters import Counter, Counters
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError, Rest

log = structlog.get_logger(__name__)

PERIOD = "minute"


class Rate(NamedTuple):
    """Maximum requests and tokens a minute; None for no limit."""

    rpm: int | None = None
    tpm: int | None = None


class Taken(NamedTuple):
    """The tokens that a call has taken of a minute."""

    counter: Counter
    tokens: int


@dataclass(frozen=True, slots=True)
class Rates:
    counters: Counters
    now: Callable[[], float]

    async def take(self, tenant: str, key: Key, rate: Rate, tokens: int) -> Rest | Taken | None:
        """Count a call of about as many tokens; return the rest until the next minute where it would be over the rate.

        A call that alone has more tokens than a minute allows is made when the minute has no other. While counters do
        not answer, calls are made.
        """
        requests, used = self._counter(tenant, key, "requests"), self._counter(tenant, key, "tokens")
        wanted = [(requests, 1, rate.rpm), (used, tokens, rate.tpm)]
        counted = [(counter, amount, most) for counter, amount, most in wanted if most is not None]
        if not counted:
            return None
        try:
            sums = await asyncio.gather(*(self.counters.add(counter, amount) for counter, amount, _ in counted))
            over = any(sum > most and sum > amount for sum, (_, amount, most) in zip(sums, counted, strict=True))
            if over:
                await asyncio.gather(*(self.counters.add(counter, -amount) for counter, amount, _ in counted))
        except Unavailable as error:
            log.warning("rates not counted", tenant=tenant, reason=str(error))
            return None
        if over:
            provider, model, _ = key
            ends = (requests.number + 1) * SECONDS[PERIOD]
            reason = f"{provider}/{model} has a rate of {_shown(rate)}, which is reached for this minute."
            return Rest(float(ends), ModelError("rate_limited", reason), binding=True)
        return Taken(used, tokens) if rate.tpm is not None else None

    async def settle(self, taken: Taken, tokens: int) -> None:
        """Correct the tokens of a call by those that it has used."""
        if tokens == taken.tokens:
            return
        try:
            await self.counters.add(taken.counter, tokens - taken.tokens)
        except Unavailable as error:
            log.warning("rates not counted", tenant=taken.counter.tenant, reason=str(error))

    def _counter(self, tenant: str, key: Key, quantity: str) -> Counter:
        digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:32]
        return Counter(tenant, PERIOD, int(self.now()) // SECONDS[PERIOD], f"model.{quantity}.{digest}")


def _shown(rate: Rate) -> str:
    parts = {"requests": rate.rpm, "tokens": rate.tpm}
    return " and ".join(f"{most:,} {what} a minute" for what, most in parts.items() if most is not None)
