"""Rows of one tenant are seen by no login of another: every table, every kind of role, whatever the login tries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, LiteralString, NamedTuple
from uuid import uuid4

import pytest
from psycopg import AsyncConnection, errors, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from sqlalchemy import ARRAY, JSON, Boolean, Column, DateTime, Text

from adapters.postgres import rebuild, tables
from adapters.postgres.policies import GATEWAY, READER, TENANTS
from projections.catalog import READ_MODELS
from tests.adapters.test_postgres import RecordedBlobs, RecordedLog, caught_up, following, query, rebuilt
from tests.projections.history import History
from tests.projections.wandering import wander

Connection = AsyncConnection[TupleRow]

OURS, THEIRS = "one", "two"
"""The tenants of the history."""

VIEWS = ("model_call_requests",)

SOURCES = (*(model.name for model in READ_MODELS), *VIEWS)


class Installation(NamedTuple):
    """A database with rows of two tenants in every table, and logins by name."""

    url: str
    history: History
    logins: dict[str, str]
    """Addresses by the kind of login: ours, theirs, unknown, outside, reader, gateway."""

    @asynccontextmanager
    async def connected(self, login: str) -> AsyncIterator[Connection]:
        async with await AsyncConnection.connect(self.logins[login], autocommit=True) as connection:
            yield connection


GROUP_OF_LOGIN = {"ours": TENANTS, "theirs": TENANTS, "unknown": TENANTS, "both": f"{TENANTS}, {READER}, {GATEWAY}"} | {
    "outside": None,
    "reader": READER,
    "gateway": GATEWAY,
}
"""Groups by the kind of login. The login `unknown` is of no tenant, `both` of tenant one and in every group."""


@pytest.fixture(scope="module")
async def installation(module_database_url: str) -> AsyncIterator[Installation]:
    url = module_database_url
    history = wander(Random(14), 500, few=3)
    async with following(url, history):
        await caught_up(url, history)
    logins = {kind: f"t_{uuid4().hex[:16]}" for kind in GROUP_OF_LOGIN}
    async with tables.connect(url) as owner:
        for kind, login in logins.items():
            await owner.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x'".encode())
            if group := GROUP_OF_LOGIN[kind]:
                await owner.execute(f"GRANT {group} TO {login}".encode())
        for kind, tenant in (("ours", OURS), ("theirs", THEIRS), ("both", OURS)):
            await owner.execute("INSERT INTO headrace_access.logins VALUES (%s, %s)", (logins[kind], tenant))
        await fill(owner)
        urls = {kind: make_conninfo(url, user=login, password="x") for kind, login in logins.items()}
        yield Installation(url, history, urls)
        for login in logins.values():
            await owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(login)))


async def fill(owner: Connection) -> None:
    """Give both tenants a row in each table that has none of theirs."""
    for model in READ_MODELS:
        for tenant in (OURS, THEIRS):
            columns = [
                sql.Literal(tenant) if column.name == "tenant_id" else sql.SQL(_value(column))
                for column in model.table.columns
            ]
            await owner.execute(
                sql.SQL("INSERT INTO {0} SELECT {1} WHERE NOT EXISTS (SELECT FROM {0} WHERE tenant_id = {2})").format(
                    tables.name(model), sql.SQL(", ").join(columns), sql.Literal(tenant)
                )
            )


def _value(column: Column[Any]) -> LiteralString:
    """Some value of the column's type."""
    if column.nullable:
        return "NULL"
    match column.type:
        case Text():
            return "'x'"
        case DateTime():
            return "now()"
        case Boolean():
            return "true"
        case JSON() | ARRAY():
            return "'{}'"
    return "0"


async def seen(connection: Connection, sources: Iterable[str] = SOURCES) -> dict[str, set[str]]:
    """The tenants whose rows a session sees, by table."""
    return {
        source: {*await query(connection, f"SELECT DISTINCT tenant_id FROM headrace.{source}")} for source in sources
    }


def each(*tenants: str) -> dict[str, set[str]]:
    return {source: {*tenants} for source in SOURCES}


async def check(installation: Installation) -> None:
    """Every table and view, every kind of role, own and foreign tenant."""
    for login, tenants in (("ours", [OURS]), ("theirs", [THEIRS]), ("unknown", []), ("reader", [OURS, THEIRS])):
        async with installation.connected(login) as connection:
            assert await seen(connection) == each(*tenants), login
    async with installation.connected("both") as connection:
        assert await seen(connection) == each(), "in two groups, a login sees what both let through"
        await connection.execute("SET headrace.tenant = 'one'")
        assert await seen(connection) == each(OURS)
        await connection.execute("SET headrace.tenant = 'two'")
        assert await seen(connection) == each()
    async with installation.connected("outside") as connection:
        for source in SOURCES:
            with pytest.raises(errors.InsufficientPrivilege):
                await connection.execute(f"SELECT FROM headrace.{source}".encode())
    async with installation.connected("gateway") as connection:
        assert await seen(connection) == each()
        for tenant in (OURS, THEIRS):
            async with connection.transaction():
                await connection.execute("SELECT set_config('headrace.tenant', %s, true)", (tenant,))
                assert await seen(connection) == each(tenant)
            assert await seen(connection) == each(), "the setting ends with its transaction"


async def test_no_login_sees_rows_of_another_tenant_before_and_after_a_rebuild_and_an_undo(
    installation: Installation,
) -> None:
    await check(installation)
    async with tables.connect(installation.url) as owner:
        await rebuilt(installation.url, installation.history, "messages")
        await fill(owner)
        await check(installation)
        await rebuilt(installation.url, installation.history)
        await fill(owner)
        await check(installation)
        log, blobs = RecordedLog(installation.history), RecordedBlobs(installation.history)
        await rebuild.undo(installation.url, log, blobs)
        await fill(owner)
        await check(installation)


async def test_no_login_of_a_tenant_reads_tables_that_are_not_live(installation: Installation) -> None:
    await rebuilt(installation.url, installation.history, "messages")
    async with installation.connected("ours") as connection:
        for source in ("headrace_old.messages", "headrace_projection.groups", "headrace_access.logins"):
            with pytest.raises(errors.InsufficientPrivilege):
                await connection.execute(f"SELECT FROM {source}".encode())
