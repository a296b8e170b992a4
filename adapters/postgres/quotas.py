"""The state of quotas, by the read tables: leases that have run out, and the windows that reach a step of an alert."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import errors

from adapters.postgres.tables import connect, wait_for
from domain.log import EVENTS, Position
from domain.models.quota import Window, amount, span
from domain.models.quota_window import STEPS
from handlers.ports.log import Unavailable
from handlers.ports.quotas import ExpiredLease, Spent

LIMIT = 200
"""Maximum number of leases that are settled at a time."""

PATIENCE_S = 30.0
"""Time limit of a statement, and of the wait for the tables, in seconds."""

SUBJECTS = {
    "tenant": "''",
    "app": "t.app_id",
    "user": "c.person_id",
    "key": "(SELECT k.actor FROM headrace.commands k WHERE (k.tenant_id, k.id) = (c.tenant_id, c.correlation_id))",
    "provider": "c.provider",
    "model": "c.model",
}
"""The subject of a call, by the scope of a quota: of the call `c` and its trace `t`."""

ALERTS = """FROM jsonb_array_elements(w.alerts) alert
    WHERE w.rolling = 0 OR (alert ->> 'at')::timestamptz > now() - w.rolling * ('1 ' || w.period)::interval"""
"""The alerts of a window `w`; of a rolling one, those of its length."""

_UNITS = {"calls": "count(*)", "tokens": "coalesce(sum(c.prompt_tokens + c.completion_tokens), 0)"}
_MONEY = "coalesce(sum(c.cost), 0)"

_EXPIRED = """
SELECT w.tenant_id, w.id, lease.key, lease.value ->> 'until', ARRAY(
    SELECT c.id FROM headrace.model_calls c
    WHERE c.tenant_id = w.tenant_id AND c.created_at >= (lease.value ->> 'since')::timestamptz - interval '5 minutes'
        AND c.grants @> jsonb_build_array(jsonb_build_object('lease', lease.key))
    ORDER BY c.id
)
FROM headrace.quota_windows w, jsonb_each(w.leases) lease
WHERE w.leased_until < %(before)s AND (lease.value ->> 'until')::timestamptz < %(before)s
ORDER BY 4 LIMIT %(limit)s
"""

_RUN_OUT = "SELECT EXISTS (SELECT FROM headrace.quota_windows WHERE leased_until < %(before)s)"

_QUOTAS = """
SELECT q.tenant_id, q.id, q.scope, q.subject, q.unit, q.period, q.time_zone, q.rolling, q.most
FROM headrace.quotas q WHERE q.most > 0 ORDER BY 1, 2
"""

_ALERTS = f"""
SELECT w.id, coalesce((SELECT max((alert ->> 'percent')::int) {ALERTS}), 0)
FROM headrace.quota_windows w WHERE w.tenant_id = %(tenant)s AND w.id = ANY(%(ids)s)
"""

CURRENT = "w.begins_at <= now() AND (w.ends_at > now() OR w.rolling > 0)"
"""The windows `w` of now."""

OUTAGES = (psycopg.OperationalError, psycopg.InterfaceError, errors.UndefinedTable, errors.UndefinedColumn)


def spending(scope: str, unit: str, *, named: bool) -> str:
    """The statement for the use by calls of a tenant since `%(begins)s`: by subject, or (`named`) of one; with the
    number of calls that have no price."""
    subject = SUBJECTS[scope]
    # A budget of an earlier version names a user, not the person.
    one = "AND %(subject)s IN (c.person_id, t.end_user)" if scope == "user" else f"AND {subject} = %(subject)s"
    by = "%(subject)s::text" if named else subject
    return f"""
        SELECT {by} AS subject, {_UNITS.get(unit, _MONEY)} AS used,
            count(*) FILTER (WHERE c.cost IS NULL AND c.prompt_tokens IS NOT NULL) AS unpriced
        FROM headrace.model_calls c
        LEFT JOIN headrace.traces t ON (t.tenant_id, t.id) = (c.tenant_id, c.correlation_id)
        WHERE c.tenant_id = %(tenant)s AND c.created_at >= %(begins)s
            AND NOT (c.kind = 'embedding' AND c.provider = 'builtin')
            AND coalesce(c.error_code, '') NOT IN ('quota_exceeded', 'unpriced')
            {one if named else f"AND {subject} IS NOT NULL"}
        GROUP BY 1
    """


class PostgresQuotas:
    """`last` is the sequence of the last message of a stream: the tables must have come up to it."""

    def __init__(self, url: str, last: Callable[[str], Awaitable[int]], *, grace_s: float) -> None:
        self._url = url
        self._last = last
        self._grace = timedelta(seconds=grace_s)

    async def expired(self) -> Sequence[ExpiredLease]:
        values = {"before": datetime.now(UTC) - self._grace, "limit": LIMIT}
        try:
            async with connect(self._url) as connection:
                if await (await connection.execute(_RUN_OUT, values)).fetchone() != (True,):
                    return []
                # No call that names such a lease is recorded after this.
                last = await self._last(EVENTS)
                await wait_for(self._url, Position(EVENTS, last), PATIENCE_S, tables=("model_calls", "quota_windows"))
                rows = await (await connection.execute(_EXPIRED, values)).fetchall()
        except TimeoutError:
            raise Unavailable(f"The tables have not come up to {EVENTS} {last} in {PATIENCE_S:g} s.") from None
        except OUTAGES as error:
            raise Unavailable(f"The tables of quotas do not answer: {error}") from error
        return [ExpiredLease(*row) for row in rows]

    async def spent(self) -> Sequence[Spent]:
        now, found = datetime.now(UTC), list[Spent]()
        try:
            async with connect(self._url) as connection:
                await connection.execute(f"SET statement_timeout = {round(PATIENCE_S * 1000)}".encode())
                for tenant, quota, scope, subject, unit, period, zone, rolling, most in await (
                    await connection.execute(_QUOTAS)
                ).fetchall():
                    begins, ends = span(period, now, zone, rolling)
                    values = {"tenant": tenant, "subject": subject, "begins": begins}
                    named = scope == "tenant" or bool(subject)
                    statement = spending(scope, unit, named=named)
                    rows = await (await connection.execute(statement.encode(), values)).fetchall()
                    limit = amount(most, unit)
                    reached = [
                        Spent(tenant, Window(quota, scope, of, unit, period, begins, ends, zone, rolling), used, limit)
                        for of, used in ((of, amount(float(used), unit)) for of, used, _ in rows)
                        if used * 100 >= limit * STEPS[0]
                    ]
                    found += await self._unknown(connection, tenant, reached)
        except OUTAGES as error:
            raise Unavailable(f"The tables of quotas do not answer: {error}") from error
        return found

    async def _unknown(self, connection: Any, tenant: str, reached: Sequence[Spent]) -> list[Spent]:
        """Those with a step that their window has not alerted yet."""
        if not reached:
            return []
        values = {"tenant": tenant, "ids": [spent.window.id for spent in reached]}
        known = dict(await (await connection.execute(_ALERTS, values)).fetchall())
        return [
            spent
            for spent in reached
            if any(
                spent.used * 100 >= spent.limit * percent > spent.limit * known.get(spent.window.id, 0)
                for percent in STEPS
            )
        ]
