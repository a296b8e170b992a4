"""The tenants of an installation."""

from __future__ import annotations

from typing import LiteralString

from psycopg import AsyncConnection, errors

TENANTS: LiteralString = """
WITH RECURSIVE found AS (
    (SELECT tenant_id FROM headrace.commands WHERE status = 'accepted' ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant_id FROM headrace.commands WHERE status = 'accepted' AND tenant_id > found.tenant_id
            ORDER BY tenant_id LIMIT 1)
    FROM found WHERE found.tenant_id IS NOT NULL
)
SELECT tenant_id FROM found WHERE tenant_id <> '_house'
"""
"""The tenants with an accepted command, by name: a typing error in a subject makes none, and
the house is none. One index step per tenant."""


async def tenants(url: str) -> list[str]:
    """The tenants that have had a command accepted, by name. Raises: OperationalError."""
    async with await AsyncConnection.connect(url, connect_timeout=5) as connection:
        try:
            found = await (await connection.execute(TENANTS)).fetchall()
        except errors.UndefinedTable:
            return []
    return [tenant for (tenant,) in found]
