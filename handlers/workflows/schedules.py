"""Begins the runs of schedules: one for each time that has come, by any number of workers.

Times that passed without a worker are missed, not made up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog

from domain.chat.app import App
from domain.log import Metadata, commit_id
from domain.workflows.run import Run
from domain.workflows.schedule import Schedule
from domain.workflows.workflow import Workflow
from handlers.commands.runs import started, system_values
from handlers.files import Files
from handlers.ports.log import Frozen, Unavailable
from handlers.repository import Repository
from handlers.run_values import RunValues

log = structlog.get_logger(__name__)

INTERVAL_S = 2.0
"""Time between two looks."""

GRACE = timedelta(minutes=1)
"""Time after which a time counts as missed."""


class Waiting(NamedTuple):
    """A schedule whose next time has come."""

    tenant: str
    app: str
    version: int
    node: str
    cron: str
    timezone: str
    next_at: datetime


@dataclass(frozen=True, slots=True)
class Tick:
    repository: Repository
    files: Files
    due: Callable[[datetime], Awaitable[Sequence[Waiting]]]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def __call__(self) -> None:
        """Begin a run for each time that has come. Raises: Unavailable."""
        now = self.now()
        for waiting in await self.due(now):
            schedule = Schedule(waiting.cron, waiting.timezone)
            if time := schedule.due(now, next_at=waiting.next_at, grace=GRACE):
                await self._begin(waiting, time, now)

    async def _begin(self, waiting: Waiting, time: datetime, now: datetime) -> None:
        try:
            await self._run(waiting, time, now)
        except Frozen as frozen:
            log.warning("schedule.not_run", tenant=waiting.tenant, app=waiting.app, reason=str(frozen))
        except Unavailable:
            raise
        except Exception:
            log.exception("schedule.not_run", tenant=waiting.tenant, app=waiting.app)

    async def _run(self, waiting: Waiting, time: datetime, now: datetime) -> None:
        tenant = waiting.tenant
        app = await self.repository.get(App, tenant, waiting.app)
        workflow = await self.repository.get(Workflow, tenant, waiting.app)
        if app is None or app.deleted or not app.triggers_enabled:
            return
        if workflow is None or workflow.newest is None or len(workflow.versions) != waiting.version:
            return
        id = run_id(waiting, time)
        system = system_values(app.id, id, "", timestamp=int(time.timestamp()))
        fields = started(
            app.id,
            workflow.newest["graph"],
            waiting.version,
            trigger="schedule",
            user="",
            inputs={},
            system=await RunValues(self.files, tenant, None).put(system),
            entry=waiting.node,
        )
        metadata = Metadata(id, tenant, id, actor="scheduler")
        await self.repository.change(
            Run, id, metadata, lambda known: known or Run.begin(Run.Started, id, now, **fields), new=True
        )


def run_id(waiting: Waiting, time: datetime) -> str:
    """The id of the run of a time, and of its commit: the same for every worker."""
    return commit_id(waiting.app, f"schedule/{waiting.version}/{time.astimezone(UTC).isoformat()}")
