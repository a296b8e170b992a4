"""The contract of the roles of SQL logins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import psycopg
import pytest
from psycopg import sql

from adapters.postgres import tables
from adapters.postgres.sql_roles import PostgresSqlRoles
from adapters.privacy.scram import verifier
from domain.access.sql_login import role_of
from domain.aggregate import new_id
from handlers.ports.sql_roles import NotAllowed, Role, SqlRoles
from tests.memory import MemorySqlRoles

FIRST, SECOND = verifier("first-password"), verifier("second-password")


@pytest.fixture(scope="module")
async def prepared_url(module_database_url: str) -> str:
    await tables.set_up(module_database_url)
    return module_database_url


@pytest.fixture(params=["memory", "postgres"])
async def roles(request: pytest.FixtureRequest, prepared_url: str) -> AsyncIterator[SqlRoles]:
    if request.param == "memory":
        yield MemorySqlRoles()
        return
    yield PostgresSqlRoles(prepared_url, connections=3, seconds=60)
    await drop_all(prepared_url)


async def drop_all(url: str) -> None:
    """Roles are those of the whole server, which outlives the databases of tests."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute("DELETE FROM headrace_access.logins RETURNING role::text")
        for (role,) in await found.fetchall():
            await connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


@pytest.fixture
def role() -> str:
    return role_of("acme", new_id())


async def ours(roles: SqlRoles) -> Mapping[str, Role]:
    return {role: found for role, found in (await roles.held()).items() if found.tenant}


async def test_a_role_is_made_and_ended(roles: SqlRoles, role: str) -> None:
    await roles.make("acme", role, FIRST)
    assert await ours(roles) == {role: Role("acme", FIRST)}
    await roles.end(role)
    assert role not in await roles.held()


async def test_both_may_be_repeated(roles: SqlRoles, role: str) -> None:
    for _ in range(2):
        await roles.make("acme", role, FIRST)
    assert await ours(roles) == {role: Role("acme", FIRST)}
    for _ in range(2):
        await roles.end(role)
    assert await ours(roles) == {}
    await roles.make("acme", role, SECOND)
    assert await ours(roles) == {role: Role("acme", SECOND)}


async def test_the_last_verifier_counts(roles: SqlRoles, role: str) -> None:
    for each in (FIRST, SECOND):
        await roles.make("acme", role, each)
    assert await ours(roles) == {role: Role("acme", SECOND)}


async def test_a_role_is_never_given_to_another_tenant(roles: SqlRoles, role: str) -> None:
    await roles.make("acme", role, FIRST)
    with pytest.raises(NotAllowed, match="another"):
        await roles.make("other", role, SECOND)
    assert await ours(roles) == {role: Role("acme", FIRST)}


async def test_roles_are_independent(roles: SqlRoles, role: str) -> None:
    other = role_of("other", new_id())
    await roles.make("acme", role, FIRST)
    await roles.make("other", other, SECOND)
    await roles.end(role)
    assert await ours(roles) == {other: Role("other", SECOND)}
