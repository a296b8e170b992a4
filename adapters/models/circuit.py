"""A circuit breaker: a provider that does not answer is cut off for a time that grows, for all workers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from adapters.models.faults import Fault
from domain.aggregate import new_id
from handlers.ports.log import Unavailable
from handlers.ports.models import Rest
from handlers.ports.outages import Decide, Outage, Outages

log = structlog.get_logger(__name__)

LIMIT = 5
"""Calls in a row without an answer after which a provider is cut off."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
"""Time for which a provider is cut off, in seconds; it doubles with each call that is let through in vain."""


class LocalOutages:
    """Outages that only this process knows."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Outage] = {}

    def known(self, tenant: str, provider: str) -> Outage | None:
        return self._known.get((tenant, provider))

    async def change(self, tenant: str, provider: str, decide: Decide) -> Outage | None:
        outage = decide(self.known(tenant, provider))
        if outage:
            self._known[tenant, provider] = outage
        else:
            self._known.pop((tenant, provider), None)
        return outage


class Circuit:
    """The way to one address of a tenant's provider.

    Only what shows that the provider does not answer counts: no connection, silence, and statuses from 500. Any answer,
    also a refusal, ends an outage. While the outages cannot be read or written, calls are made.
    """

    def __init__(
        self, outages: Outages, tenant: str, address: str, probe_s: float, now: Callable[[], float] = time.time
    ) -> None:
        """`probe_s`: time after which a call that was let through counts as lost, in seconds."""
        self._outages = outages
        self._tenant = tenant
        self._address = address
        self._provider = hashlib.sha256(address.encode()).hexdigest()[:32]
        self._probe_s = probe_s
        self._now = now
        self._failures = 0
        self._loaded = False

    def refusal(self) -> Fault | None:
        """The fault of a call that would be made now, as far as this process knows."""
        outage = self._outages.known(self._tenant, self._provider)
        return self._fault(outage) if outage and self._now() < outage.until else None

    def rest(self) -> Rest | None:
        """The time until which the provider is cut off, as far as this process knows."""
        outage = self._outages.known(self._tenant, self._provider)
        return Rest(outage.until, self._fault(outage).error, True) if outage and self._now() < outage.until else None

    async def enter(self) -> Call | Fault:
        """Begin a call, or return why it cannot be made; one call is let through after each pause."""
        if self._loaded and self._outages.known(self._tenant, self._provider) is None:
            return Call(self, "")
        if fault := self.refusal():
            return fault
        probe = new_id()

        def let_through(outage: Outage | None) -> Outage | None:
            if outage is None or self._now() < outage.until:
                return outage
            return replace(outage, until=self._now() + self._probe_s, probe=probe)

        outage = await self._change(let_through)
        self._loaded = True
        if outage and outage.probe != probe:
            return self._fault(outage)
        return Call(self, probe)

    async def answered(self) -> None:
        self._failures = 0
        if self._outages.known(self._tenant, self._provider):
            await self._change(lambda _: None)
            log.info("provider answers again", tenant=self._tenant, server=self._address)

    async def failed(self, fault: Fault, probe: str) -> None:
        """Count a call without an answer; `probe` is its name when it was let through after a pause."""
        self._failures += 1
        if not probe and (self._failures < LIMIT or self._outages.known(self._tenant, self._provider)):
            return

        def cut_off(outage: Outage | None) -> Outage | None:
            if outage and probe and outage.probe == probe:
                pause = min(2 * outage.pause_s, LONGEST_PAUSE_S)
                return Outage(fault.reason, outage.failures + 1, pause, self._now() + pause)
            if outage is None and self._failures >= LIMIT:
                return Outage(fault.reason, self._failures, FIRST_PAUSE_S, self._now() + FIRST_PAUSE_S)
            return outage

        if outage := await self._change(cut_off):
            self._failures = 0
            log.warning("provider cut off", tenant=self._tenant, server=self._address, pause_s=outage.pause_s)

    async def _change(self, decide: Decide) -> Outage | None:
        try:
            return await self._outages.change(self._tenant, self._provider, decide)
        except Unavailable as error:
            log.warning("outages not shared", tenant=self._tenant, server=self._address, reason=str(error))
            return None

    def _fault(self, outage: Outage) -> Fault:
        at = datetime.fromtimestamp(outage.until, UTC).isoformat(timespec="seconds")
        return Fault(
            "provider_unavailable",
            f"{self._address} is not called, since it did not answer {outage.failures} times in a row. It is tried "
            f"again after {at}. The last fault: {outage.reason}",
        )


class Call:
    """A call that is let through; `probe` is its name when it is the one that is tried after a pause."""

    __slots__ = ("_circuit", "_probe")

    def __init__(self, circuit: Circuit, probe: str) -> None:
        self._circuit = circuit
        self._probe = probe

    async def answered(self) -> None:
        await self._circuit.answered()

    async def failed(self, fault: Fault) -> None:
        """End the call with a fault, which may be an answer, too."""
        if fault.outage:
            await self._circuit.failed(fault, self._probe)
        elif fault.code != "unreachable":  # as an address that may not be called
            await self._circuit.answered()
