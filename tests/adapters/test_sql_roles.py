"""Roles of SQL logins in PostgreSQL, beyond the contract in tests/contracts/test_sql_roles.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from adapters.postgres import tables
from adapters.postgres.reader import login
from adapters.postgres.sql_roles import PostgresSqlRoles
from adapters.privacy.scram import new_password, verifier
from domain.access.sql_login import role_of
from domain.aggregate import new_id
from handlers.ports.sql_roles import Role
from ops.servers.embedded import EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.doctor import Finding, examine
from tests.adapters.test_rights import ATTACKS
from tests.contracts.test_sql_roles import drop_all

PASSWORD = new_password()
VERIFIER = verifier(PASSWORD)


@pytest.fixture(scope="module")
async def url(module_database_url: str) -> AsyncIterator[str]:
    await tables.set_up(module_database_url)
    yield module_database_url
    await drop_all(module_database_url)


@pytest.fixture
def role() -> str:
    return role_of("acme", new_id())


@pytest.fixture
async def owner(url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


def roles(url: str, connections: int = 3, seconds: float = 60) -> PostgresSqlRoles:
    return PostgresSqlRoles(url, connections=connections, seconds=seconds)


@pytest.mark.parametrize(("connections", "seconds"), [(4, 60.0), (3, 30.0)])
async def test_a_role_with_the_limits_of_earlier_settings_is_made_again(
    url: str, role: str, connections: int, seconds: float
) -> None:
    await roles(url).make("acme", role, VERIFIER)
    changed = roles(url, connections, seconds)
    assert (await changed.held())[role] == Role("acme", "")
    await changed.make("acme", role, VERIFIER)
    assert (await changed.held())[role] == Role("acme", VERIFIER)


@pytest.mark.parametrize(
    "change",
    ["ALTER ROLE {} NOLOGIN", "REVOKE headrace_tenants FROM {}", "ALTER ROLE {} PASSWORD NULL", "DROP ROLE {}"],
)
async def test_what_was_taken_from_a_role_is_missed(
    url: str, role: str, owner: AsyncConnection[TupleRow], change: str
) -> None:
    await roles(url).make("acme", role, VERIFIER)
    await owner.execute(sql.SQL(change).format(sql.Identifier(role)))
    assert (await roles(url).held())[role] == Role("acme", "")


async def test_a_role_without_a_row_is_not_ours_and_reads_nothing(
    url: str, role: str, owner: AsyncConnection[TupleRow]
) -> None:
    await roles(url).make("acme", role, VERIFIER)
    await owner.execute("DELETE FROM headrace_access.logins WHERE role = %s", (role,))
    assert (await roles(url).held())[role].tenant is None
    await roles(url).end(role)
    assert role not in await roles(url).held()


async def test_a_role_with_rights_of_an_administrator_cannot_log_in_any_more(
    url: str, role: str, owner: AsyncConnection[TupleRow]
) -> None:
    await roles(url).make("acme", role, VERIFIER)
    await owner.execute("CREATE TABLE IF NOT EXISTS public.of_the_administrator ()")
    name = sql.Identifier(role)
    await owner.execute(sql.SQL("GRANT SELECT ON public.of_the_administrator TO {}").format(name))
    await roles(url).end(role)
    with pytest.raises(psycopg.OperationalError):
        await AsyncConnection.connect(make_conninfo(url, user=role, password=PASSWORD))
    await owner.execute(sql.SQL("DROP OWNED BY {}").format(name))
    await roles(url).end(role)
    assert role not in await roles(url).held()


async def test_tenants_cannot_take_the_connections_of_headrace(url: str, role: str) -> None:
    ours = await login(url, bytes(32))
    await roles(url, connections=100).make("acme", role, VERIFIER)
    async with AsyncExitStack() as stack:

        async def take_all() -> None:
            for _ in range(100):
                session = await AsyncConnection.connect(make_conninfo(url, user=role, password=PASSWORD))
                await stack.enter_async_context(session)

        with pytest.raises(psycopg.OperationalError, match="pg_use_reserved_connections"):
            await take_all()
        async with await AsyncConnection.connect(ours) as reader:
            await reader.execute("SELECT count(*) FROM headrace.apps")


@pytest.mark.parametrize(
    "flood",
    [
        "SELECT repeat('x', 1000000)::int",
        "DO $$ BEGIN FOR i IN 1..10 LOOP RAISE LOG '%', repeat('x', 100000); END LOOP; END $$",
        "DO $$ BEGIN RAISE WARNING '%', repeat('x', 1000000); END $$",
    ],
)
async def test_neither_tenants_nor_readers_fill_the_disk_with_the_servers_log(
    url: str, role: str, postgres: EmbeddedPostgres, flood: str
) -> None:
    await roles(url).make("acme", role, VERIFIER)
    for who in (make_conninfo(url, user=role, password=PASSWORD), await login(url, bytes(32))):
        async with await AsyncConnection.connect(who, autocommit=True) as session:
            before = sum(file.stat().st_size for file in (postgres.home / "log").iterdir())
            with suppress(psycopg.Error):
                await session.execute(flood.encode())
            assert sum(file.stat().st_size for file in (postgres.home / "log").iterdir()) - before < 10_000
            for statement in ("SET log_min_messages = 'debug5'", "ALTER ROLE session_user RESET log_min_messages"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await session.execute(statement.encode())


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks_of_a_tenant_are_refused(url: str, role: str, attack: str) -> None:
    await roles(url).make("acme", role, VERIFIER)
    async with await AsyncConnection.connect(make_conninfo(url, user=role, password=PASSWORD)) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await session.execute(ATTACKS[attack].encode())


async def test_the_doctor_counts_logins_without_a_role(
    url: str, role: str, owner: AsyncConnection[TupleRow], nats_url: str, tmp_path: Path
) -> None:
    settings = Settings.load(home=tmp_path, nats_url=nats_url, postgres_url=url)

    async def look() -> Finding:
        [found] = [finding async for finding in examine(settings) if finding.what == "SQL logins"]
        return found

    assert await look() == Finding("SQL logins", True, "0 active")
    await owner.execute(
        "INSERT INTO headrace.sql_logins (tenant_id, id, name, role, status, created_by, created_at, log_position) "
        "VALUES ('acme', 'a', 'bi', %s, 'active', 'anon', now(), 1)",
        (role,),
    )
    found = await look()
    assert (found.good, found.found) == (False, "1 of 1 have no role in PostgreSQL")
    await roles(url).make("acme", role, VERIFIER)
    assert await look() == Finding("SQL logins", True, "1 active")
