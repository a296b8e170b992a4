"""Recovers orphaned work: what is open without a worker is retried, or ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from domain.aggregate import Aggregate
from domain.log import Metadata, commit_id
from domain.models.model_call import ModelCall
from domain.tools.tool_call import ToolCall
from domain.workflows.effect import Effect
from domain.workflows.run import Run
from handlers.ports.log import Frozen, Live, PendingWork, Unavailable
from handlers.repository import Repository
from handlers.work.work import PENDING, WORKS

log = structlog.get_logger(__name__)

INTERVAL_S = 10.0
"""Time between two runs."""

DEADLINE_S = 60.0
"""Time without a change after which work without a worker counts as orphaned."""


Lost = ModelCall | ToolCall | Effect

CALLS: Mapping[str, type[Lost]] = {"model_call": ModelCall, "tool_call": ToolCall, "effect": Effect}
"""Calls whose cause may end without them."""


EXPIRED = "expired_hold"
"""The kind of overdue work for a call of a tool that has waited for a person as long as it may."""


EXPIRED_FORM = "expired_form"
"""The kind of overdue work for a form that no person has answered in time."""


def orphaned(pending: Sequence[PendingWork], done: Mapping[str, int]) -> list[PendingWork]:
    """The work that no consumer will move: each that might has acknowledged everything up to its sequence in `done`."""
    return [work for work in pending if all(work.position <= done.get(consumer, 0) for consumer in work.consumers)]


@dataclass(frozen=True, slots=True)
class Recover:
    repository: Repository
    live: Live
    overdue: Callable[[], Awaitable[Sequence[PendingWork]]]
    done: Callable[[], Awaitable[Mapping[str, int]]]

    async def __call__(self) -> list[PendingWork]:
        """Retry or end what is orphaned now, and return it. Those who watch what ends get the frame `failed`.

        Raises: Unavailable.
        """
        done = await self.done()  # before the tables are read: what comes later has a worker
        found = orphaned(await self.overdue(), done)
        for work in found:
            log.warning("recover", work=work.work, tenant=work.tenant, id=work.id, status=work.status)
            try:
                await self._stall(work)
            except Frozen as frozen:
                log.warning("not recovered", work=work.work, tenant=work.tenant, id=work.id, reason=str(frozen))
            except Unavailable:
                raise
            except Exception:
                log.exception("not recovered", work=work.work, tenant=work.tenant, id=work.id)
        return found

    async def _stall(self, work: PendingWork) -> None:
        at = datetime.now(UTC)
        cause = Metadata(
            commit_id(work.id, f"swept:{work.position}"),
            work.tenant,
            work.correlation,
            work.correlation,
            "sweeper",
            person=work.person,
        )
        if work.work == EXPIRED:
            await self.repository.change(ToolCall, work.id, cause, lambda call: _expire(call, at))
            return
        if work.work == EXPIRED_FORM:
            await self.repository.change(Run, work.aggregate, cause, lambda run: _time_out(run, at, work.id))
            return
        if work.work in CALLS:
            await self.repository.change(CALLS[work.work], work.id, cause, lambda call: _lose(call, at))
            return
        pending, failed = PENDING[work.work], False
        reason = f"No worker has taken a step since {work.since.isoformat(timespec='seconds')}."

        def decide(aggregate: Aggregate | None) -> Aggregate:
            nonlocal failed
            assert aggregate is not None
            failed = False
            if not _has_moved(aggregate, work):
                pending.stall(aggregate, work.id, at, reason)
                failed = not pending.is_open(aggregate, work.id)
            return aggregate

        await self.repository.change(WORKS[work.work].noun, work.aggregate, cause, decide)
        if failed and WORKS[work.work].watched:
            frame = {"type": "failed", "code": "stalled", "reason": reason}
            await self.live.publish(work.tenant, work.aggregate, work.id, frame)


def _has_moved(aggregate: Aggregate, work: PendingWork) -> bool:
    """Return whether the work has changed since its row was written: then it has a worker."""
    pending = PENDING[work.work]
    # By the kind of work, not by the ids: the first message of a conversation has the conversation's id.
    if pending.rows.is_whole:
        return aggregate.modified_on > work.since
    waited = work.status == pending.rows.open[0]
    state = pending.attempts(aggregate, work.id), pending.waits(aggregate, work.id)
    return state != (work.attempt, waited)


def _expire(call: ToolCall | None, at: datetime) -> ToolCall:
    assert call is not None
    call.expire(at)
    return call


def _time_out(run: Run | None, at: datetime, step: str) -> Run:
    assert run is not None
    run.time_out(at, key=step)
    return run


def _lose(call: Lost | None, at: datetime) -> Lost:
    assert call is not None
    call.lose(at, "The worker died with the call in flight, and what it was made for has ended.")
    return call
