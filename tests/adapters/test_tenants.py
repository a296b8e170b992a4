from __future__ import annotations

from psycopg import AsyncConnection

from adapters.postgres.tenants import tenants


async def test_the_tenants_that_have_had_a_command_accepted(database_url: str) -> None:
    assert await tenants(database_url) == []
    async with await AsyncConnection.connect(database_url) as connection:
        await connection.execute("CREATE SCHEMA headrace")
        await connection.execute("CREATE TABLE headrace.commands (tenant_id text, status text)")
        await connection.execute(
            "INSERT INTO headrace.commands VALUES ('b', 'rejected'), ('a', 'accepted'), ('b', 'accepted'), "
            "('_', 'rejected'), ('acme.eu', 'rejected'), ('_house', 'accepted')"
        )
    assert await tenants(database_url) == ["a", "b"]
