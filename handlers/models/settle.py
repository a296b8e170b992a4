"""Settles the leases of workers that died, by the calls that the log has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

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
        """Settle what has run out now, and return it. One that cannot be settled now waits for the next time.

        Raises: Unavailable.
        """
        settled = []
        for lease in await self.quotas.expired():
            try:
                used = sum([await self._used(lease, call) for call in lease.calls])
                await self._settle(lease, used)
            except Unavailable as error:  # frozen, or changed by many workers at once
                log.warning("lease not settled", tenant=lease.tenant, lease=lease.lease, reason=str(error))
            else:
                log.warning("lease settled", tenant=lease.tenant, window=lease.window, lease=lease.lease, used=used)
                settled.append(lease)
        return settled

    async def _used(self, lease: ExpiredLease, id: str) -> int:
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

    async def _settle(self, lease: ExpiredLease, used: int) -> None:
        at = datetime.now(UTC)

        def settle(window: QuotaWindow | None) -> QuotaWindow:
            assert window is not None
            held = window.leases.get(lease.lease)
            if held and held["until"] == lease.until:  # else its worker lives
                window.settle(at, lease.lease, used)
            return window

        metadata = Metadata(commit_id(lease.window, f"{lease.lease}:ran out"), lease.tenant, lease.window, actor=ACTOR)
        await self.repository.change(QuotaWindow, lease.window, metadata, settle)
