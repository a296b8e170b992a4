"""Work that is overdue, by the read tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import LiteralString

from adapters.postgres.tables import connect
from handlers.ports.log import PendingWork
from handlers.work.recover import EXPIRED, EXPIRED_FORM
from handlers.work.work import PENDING, WAITING, WORKS, Pending, callers
from handlers.workflows.schedules import Waiting

RECOVER_LOCK = 0x6865616472616365 + 100
"""Advisory lock of the database."""

LIMIT = 1000


async def overdue(url: str, deadline_s: float, limit: int = LIMIT) -> list[PendingWork]:
    """Return the open work that has not changed for `deadline_s` seconds, the oldest first.

    That is the pending work of the table of works, calls of models and tools whose cause has ended or is gone, and
    calls of tools and forms of runs that have waited for a person as long as they may.
    """
    async with connect(url) as connection:
        cursor = await connection.execute(_overdue(), {"deadline": deadline_s, "limit": limit})
        return [PendingWork(*row) for row in await cursor.fetchall()]


async def due(url: str, now: datetime, limit: int = LIMIT) -> list[Waiting]:
    """Return the schedules whose next time has come, those that wait longest last."""
    async with connect(url) as connection:
        cursor = await connection.execute(_DUE, {"now": now, "limit": limit})
        return [Waiting(*row) for row in await cursor.fetchall()]


async def waiting(url: str) -> dict[str, dict[str, int]]:
    """Return the number of open works, by tenant and by the quantity that limits count them in."""
    found: dict[str, dict[str, int]] = {}
    async with connect(url) as connection:
        cursor = await connection.execute(_waiting())
        for tenant, quantity, count in await cursor.fetchall():
            found.setdefault(tenant, {})[quantity] = count
    return found


def _waiting() -> str:
    return " UNION ALL ".join(_count(*each) for each in WAITING.items())


def _count(quantity: str, work: str) -> str:
    pending = PENDING[work]
    table = f"headrace.{pending.rows.table}"
    return f"SELECT tenant_id, '{quantity}', count(*) FROM {table} WHERE {_open(pending)} GROUP BY tenant_id"


def _overdue() -> str:
    parts = [_work(name, pending) for name, pending in PENDING.items()]
    parts += [_calls("model_call"), _calls("tool_call"), _calls("effect"), _EXPIRED, _EXPIRED_FORMS]
    return " UNION ALL ".join(parts) + " ORDER BY 7 LIMIT %(limit)s"


_QUIET = "updated_at < now() - %(deadline)s * interval '1 second'"


def _work(name: str, pending: Pending) -> str:
    rows = pending.rows
    return (
        f"SELECT '{name}', tenant_id, {rows.aggregate}, id, {rows.status}, {rows.attempt}, updated_at, log_position,"
        f" ARRAY['{name}'], {rows.correlation}, {rows.person}"
        f" FROM headrace.{rows.table} WHERE {_open(pending)} AND {_QUIET}"
    )


def _calls(noun: str) -> str:
    causes = sorted({work.calls for work in WORKS.values() if work.calls})
    consumers = " ".join(f"WHEN '{cause}' THEN {_array(callers(cause))}" for cause in causes)
    owned = "".join(
        f" AND NOT EXISTS (SELECT FROM headrace.{pending.rows.table} cause WHERE cause.tenant_id = call.tenant_id"
        f" AND cause.id = call.cause_id AND {_open(pending)})"
        for pending in PENDING.values()
    )
    return (
        f"SELECT '{noun}', tenant_id, id, id, status, 0, updated_at, log_position,"
        f" CASE cause_noun {consumers} END, correlation_id, person_id FROM headrace.{noun}s call"
        f" WHERE status = 'requested' AND {_QUIET} AND cause_noun = ANY({_array(causes)}){owned}"
    )


_EXPIRED = (
    f"SELECT '{EXPIRED}', tenant_id, id, id, status, attempt, updated_at, log_position, ARRAY['resume'],"
    " correlation_id, person_id FROM headrace.tool_calls WHERE status = 'held' AND held_until < now()"
)


_EXPIRED_FORMS = (
    f"SELECT '{EXPIRED_FORM}', tenant_id, workflow_run_id, step, status, 0, updated_at, log_position, ARRAY[]::text[],"
    " correlation_id, person_id FROM headrace.human_input_forms WHERE status = 'waiting' AND expiration_time < now()"
)
"""No consumer moves a form: its time ends while a worker owns the run, too."""


_DUE: LiteralString = (
    "SELECT tenant_id, app_id, version, node_id, cron, timezone, next_at FROM headrace.schedules"
    " WHERE enabled AND next_at <= %(now)s ORDER BY next_at DESC LIMIT %(limit)s"
)


def _open(pending: Pending) -> str:
    return f"{pending.rows.status} = ANY({_array(pending.rows.open)}) AND {pending.rows.also}"


def _array(names: tuple[str, ...] | list[str]) -> str:
    return "ARRAY[" + ", ".join(f"'{name}'" for name in names) + "]"


@asynccontextmanager
async def only_one(url: str) -> AsyncIterator[bool]:
    """Yield True when no other process recovers work; none begins to before the context ends."""
    async with connect(url) as connection:
        cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (RECOVER_LOCK,))
        yield await cursor.fetchone() == (True,)
