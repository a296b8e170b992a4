"""Alerts parts of quotas that are reached, each once in a window."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from domain.aggregate import new_id
from domain.log import Metadata
from domain.models.quota import shown
from domain.models.quota_window import QuotaWindow
from handlers.models.grants import ACTOR
from handlers.ports.log import Frozen
from handlers.ports.quotas import Quotas, Spent
from handlers.repository import Repository

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Alert:
    repository: Repository
    quotas: Quotas

    async def __call__(self) -> list[Spent]:
        """Record what is reached now, and return it. Raises: Unavailable."""
        found = list(await self.quotas.spent())
        for spent in found:
            try:
                percent = await self._alert(spent)
            except Frozen as frozen:
                log.warning("not alerted", tenant=spent.tenant, quota=spent.window.quota, reason=str(frozen))
                continue
            log.warning(
                "quota alert",
                tenant=spent.tenant,
                quota=spent.window.quota,
                subject=spent.window.subject,
                percent=percent,
                used=shown(spent.used, spent.window.unit),
                limit=shown(spent.limit, spent.window.unit),
            )
        return found

    async def _alert(self, spent: Spent) -> int:
        """The highest percentage that was alerted in the window."""
        at = datetime.now(UTC)

        def alert(window: QuotaWindow | None) -> QuotaWindow:
            window = window or QuotaWindow.open(at, spent.window)
            window.alert(at, spent.used, spent.limit)
            return window

        id = spent.window.id
        metadata = Metadata(new_id(), spent.tenant, id, actor=ACTOR)
        alerted = (await self.repository.change(QuotaWindow, id, metadata, alert)).aggregate.alerts
        return max(map(int, alerted), default=0)
