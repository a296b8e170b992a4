"""Rests of credentials and models that a server has refused, as all workers know them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError, Rest
from handlers.ports.outages import Outage, Outages

log = structlog.get_logger(__name__)

Key = tuple[str, str, str]
"""Provider, model and credential."""

OF_MODEL: Mapping[str, float] = {"rate_limited": 60.0, "overloaded": 10.0}
OF_CREDENTIAL: Mapping[str, float] = {"unauthorized": 60.0, "payment_required": 60.0}
"""Length of a first rest, in seconds, by error code: of one model with a credential, or of the credential."""

PREFIX = "rest"
"""Beginning of the names of rests among outages; those of addresses that do not answer are hexadecimal."""

LONGEST_S, LONGEST_ASKED_S = 300.0, 3600.0
"""The longest rest, in seconds: each doubles the one before, unless the server asks for its length."""


@dataclass(frozen=True, slots=True)
class Rests:
    outages: Outages
    now: Callable[[], float]

    def of(self, tenant: str, key: Key) -> Rest | None:
        """The rest of a model with a credential; None where it may be called."""
        known = [outage for name in _names(key) if (outage := self.outages.known(tenant, name))]
        last = max(known, key=lambda outage: outage.until, default=None)
        if last is None:
            return None
        code, _, reason = last.reason.partition(": ")
        return Rest(last.until, ModelError(code, reason), binding=last.asked)

    async def begin(self, tenant: str, key: Key, error: ModelError) -> None:
        """Let it rest, where the error asks for that."""
        length = OF_MODEL.get(error.code) or OF_CREDENTIAL.get(error.code)
        if length is None:
            return

        def rest(before: Outage | None) -> Outage:
            if error.pause_s:
                pause = min(error.pause_s, LONGEST_ASKED_S)
            else:
                pause = min(2 * before.pause_s, LONGEST_S) if before else length
            failures, reason = before.failures + 1 if before else 1, f"{error.code}: {error.reason}"[:500]
            return Outage(reason, failures, pause, self.now() + pause, asked=bool(error.pause_s))

        await self._change(tenant, _names(key)[error.code in OF_CREDENTIAL], rest)

    async def end(self, tenant: str, key: Key) -> None:
        """It has answered."""
        for name in _names(key):
            if self.outages.known(tenant, name):
                await self._change(tenant, name, lambda _: None)

    async def _change(self, tenant: str, name: str, decide: Callable[[Outage | None], Outage | None]) -> None:
        try:
            await self.outages.change(tenant, name, decide)
        except Unavailable as error:
            log.warning("rests not shared", tenant=tenant, reason=str(error))


def _names(key: Key) -> tuple[str, str]:
    """The names of a model with a credential, and of the credential."""
    provider, model, credential = key
    return _name("model", provider, credential, model), _name("credential", provider, credential)


def _name(*parts: str) -> str:
    return PREFIX + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
