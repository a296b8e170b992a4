"""Months of the audit whose addresses, browsers and searches are due to be erased."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adapters.postgres.tables import connect
from domain.access.door import month
from domain.access.end_user import person_id

ERASURES = 10
"""Maximum number of erasures of one month that are distinguished."""

_KEPT = """
SELECT DISTINCT tenant_id, person_id, date_trunc('month', created_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
FROM headrace.door_events
WHERE (address IS NOT NULL OR browser IS NOT NULL OR search IS NOT NULL) AND created_at < %s
"""


async def over(url: str, kept: timedelta) -> list[tuple[str, str]]:
    """The months that ended at least `kept` ago and have such a value, with their tenants; not those of accounts.

    Raises: psycopg.Error.
    """
    due = datetime.now(UTC) - kept
    first = due.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    async with connect(url) as connection:
        rows = await (await connection.execute(_KEPT, (first,))).fetchall()
    return sorted(
        {
            (tenant, name)
            for tenant, person, begin in rows
            if person in (person_id(name := month(begin), erasures) for erasures in range(ERASURES))
        }
    )
