"""Settles the leases of workers that died, by the calls that the log has."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from domain.aggregate import new_id
from domain.log import Metadata, commit_id
from domain.models.model_call import ModelCall
from domain.models.quota_window import QuotaWindow
from handlers.models.grants import ACTOR
from handlers.ports.log import Unavailable
from handlers.ports.quotas import ExpiredLease, Quotas
from handlers.repository import Repository

log = structlog.get_logger(__name__)

REASON = "The worker died with the call in flight, and its lease of a quota has run out."


@dataclass(frozen=True, slots=True)
class Settle:
    repository: Repository
    quotas: Quotas

    async def __call__(self) -> list[ExpiredLease]:
        """Settle what has run out now, and return it. What cannot be settled now waits for the next time.

        Raises: Unavailable.
        """
        windows: defaultdict[tuple[str, str], list[ExpiredLease]] = defaultdict(list)
        for lease in await self.quotas.expired():
            windows[lease.tenant, lease.window].append(lease)
        settled = []
        for (tenant, window), leases in windows.items():
            try:
                used = await asyncio.gather(*map(self._used, leases))
                await self._settle(tenant, window, list(zip(leases, used, strict=True)))
            except Unavailable as error:  # frozen, or changed by many workers at once
                log.warning("leases not settled", tenant=tenant, window=window, reason=str(error))
            else:
                log.warning("leases settled", tenant=tenant, window=window, leases=len(used), used=sum(used))
                settled += leases
        return settled

    async def _used(self, lease: ExpiredLease) -> int:
        """Return the amount that calls have used of the lease."""
        return sum([await self._paid(lease, call) for call in lease.calls])

    async def _paid(self, lease: ExpiredLease, id: str) -> int:
        """Return the amount that a call has used of the lease; one that has not ended is lost."""
        at = datetime.now(UTC)

        def lose(call: ModelCall | None) -> ModelCall:
            assert call is not None
            call.fail(at, code="lost", reason=REASON, response="", duration_ms=None)
            return call

        call = await self.repository.get(ModelCall, lease.tenant, id)
        if call and call.status == "requested":
            first = await self.repository.first(ModelCall, lease.tenant, id)
            assert first is not None
            metadata = first.metadata.caused(commit_id(lease.lease, f"{id}:lost"))
            call = (await self.repository.change(ModelCall, id, metadata, lose)).aggregate
        return sum(grant["amount"] for grant in call.paid if grant["lease"] == lease.lease) if call else 0

    async def _settle(self, tenant: str, id: str, used: Sequence[tuple[ExpiredLease, int]]) -> None:
        at = datetime.now(UTC)

        def settle(window: QuotaWindow | None) -> QuotaWindow:
            assert window is not None
            for lease, amount in used:
                held = window.leases.get(lease.lease)
                if held and held["until"] == lease.until:  # else its worker lives
                    window.settle(at, lease.lease, amount)
            return window

        metadata = Metadata(new_id(), tenant, id, actor=ACTOR)
        await self.repository.change(QuotaWindow, id, metadata, settle)
