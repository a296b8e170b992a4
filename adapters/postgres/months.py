"""Months of the audit that are over for long enough to be erased."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adapters.postgres.tables import connect
from domain.access.door import month

_KEPT = """
SELECT DISTINCT tenant_id, date_trunc('month', created_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', person_id
FROM headrace.door_events
WHERE (address IS NOT NULL OR browser IS NOT NULL OR search IS NOT NULL) AND person_id IS NOT NULL
    AND created_at < %s ORDER BY 1, 2, 3
"""


async def over(url: str, kept: timedelta) -> list[tuple[str, str, str]]:
    """The months that ended at least `kept` ago, of which a tenant has an address, a browser or a search, and the
    persons with whose keys they are sealed: of the month, or of an account. Raises: psycopg.Error.
    """
    due = datetime.now(UTC) - kept
    first = due.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    async with connect(url) as connection:
        rows = await (await connection.execute(_KEPT, (first,))).fetchall()
    return [(tenant, month(begin), person) for tenant, begin, person in rows]
