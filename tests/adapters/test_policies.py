"""Rows of one tenant are seen by no login of another: every table, every kind of role, whatever the login tries."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, LiteralString, NamedTuple
from uuid import uuid4

import pytest
from psycopg import AsyncConnection, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from sqlalchemy import ARRAY, JSON, Boolean, Column, DateTime, Text

from adapters.postgres import attachments, policies, rebuild, tables
from adapters.postgres.policies import GATEWAY, READER, ROLES, TENANTS
from domain.access.tenant import HOUSE
from ops.servers.embedded import EmbeddedPostgres, postgres_binary
from projections.catalog import READ_MODELS
from tests.adapters.test_postgres import RecordedLog, caught_up, following, query, rebuilt, recorded_files
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
    """Addresses by the kind of login, see `GROUP_OF_LOGIN`."""

    def role(self, login: str) -> str:
        return str(conninfo_to_dict(self.logins[login])["user"])

    @asynccontextmanager
    async def connected(self, login: str) -> AsyncIterator[Connection]:
        async with await AsyncConnection.connect(self.logins[login], autocommit=True) as connection:
            yield connection


GROUP_OF_LOGIN = {
    "ours": TENANTS,
    "theirs": TENANTS,
    "unknown": TENANTS,
    "outside": None,
    "reader": READER,
    "gateway": GATEWAY,
}
"""Groups by the kind of login. The login `unknown` is of no tenant."""


@pytest.fixture(scope="module")
async def installation(module_database_url: str) -> AsyncIterator[Installation]:
    url = module_database_url
    history = wander(Random(24), 1200, few=3)
    async with following(url, history):
        await caught_up(url, history)
    logins = {kind: f"t_{uuid4().hex[:16]}" for kind in GROUP_OF_LOGIN}
    async with tables.connect(url) as owner:
        for kind, login in logins.items():
            await owner.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x'".encode())
            if group := GROUP_OF_LOGIN[kind]:
                await owner.execute(f"GRANT {group} TO {login}".encode())
        for kind, tenant in (("ours", OURS), ("theirs", THEIRS)):
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


@asynccontextmanager
async def in_every_group(installation: Installation) -> AsyncIterator[None]:
    """Our login is in the groups of readers and doors as well."""
    more, ours = f"{READER}, {GATEWAY}", installation.role("ours")
    async with tables.connect(installation.url) as owner:
        await owner.execute(f"GRANT {more} TO {ours}".encode())
        yield
        await owner.execute(f"REVOKE {more} FROM {ours}".encode())


async def check(installation: Installation) -> None:
    """Every table and view, every kind of role, own and foreign tenant."""
    for login, tenants in (("ours", [OURS]), ("theirs", [THEIRS]), ("unknown", [])):
        async with installation.connected(login) as connection:
            assert await seen(connection) == each(*tenants), login
    async with installation.connected("reader") as connection:
        assert await seen(connection) == each(OURS, THEIRS) | {
            name: {OURS, THEIRS, HOUSE} for name in ("accounts", "plugins")
        }
    async with in_every_group(installation), installation.connected("ours") as connection:
        assert await seen(connection) == each(), "in several groups, a login sees what all of them let through"
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
        log, blobs = RecordedLog(installation.history), recorded_files(installation.history)
        await rebuild.undo(installation.url, log, blobs)
        await fill(owner)
        await check(installation)


async def test_a_swap_that_is_cut_off_leaves_the_policies(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_off(connection: Connection, _: object) -> None:
        async with tables.connect(installation.url) as other:
            await other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        await connection.execute("SELECT 1")

    with monkeypatch.context() as patch:
        patch.setattr(attachments, "attach", cut_off)
        with pytest.raises(errors.AdminShutdown):
            await rebuilt(installation.url, installation.history)
    await check(installation)
    async with installation.connected("ours") as connection:
        with pytest.raises(errors.InsufficientPrivilege):
            await connection.execute("SELECT FROM headrace_next.messages")
    await rebuilt(installation.url, installation.history)
    async with tables.connect(installation.url) as owner:
        await fill(owner)
    await check(installation)


async def test_no_login_of_a_tenant_reads_tables_that_are_not_live(installation: Installation) -> None:
    await rebuilt(installation.url, installation.history, "messages")
    async with tables.connect(installation.url) as owner:
        await fill(owner)
    async with installation.connected("ours") as connection:
        for source in ("headrace_old.messages", "headrace_projection.groups", "headrace_access.logins"):
            with pytest.raises(errors.InsufficientPrivilege):
                await connection.execute(f"SELECT FROM {source}".encode())


async def test_no_login_of_a_tenant_gets_around_the_policies(installation: Installation) -> None:
    ours, theirs, reader = (
        conninfo_to_dict(installation.logins[each])["user"] for each in ("ours", "theirs", "reader")
    )
    refused = [
        f"SET ROLE {theirs}",
        f"SET ROLE {reader}",
        f"SET ROLE {READER}",
        f"SET ROLE {GATEWAY}",
        f"SET SESSION AUTHORIZATION {theirs}",
        "ALTER TABLE headrace.messages DISABLE ROW LEVEL SECURITY",
        f"DROP POLICY {TENANTS} ON headrace.messages",
        f"CREATE POLICY mine ON headrace.messages TO {ours} USING (true)",
        f"UPDATE headrace_access.logins SET tenant_id = '{THEIRS}'",
        "SELECT headrace_access.tenant()",
        f"ALTER ROLE {ours} BYPASSRLS",
        f"GRANT {READER} TO {ours}",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE FUNCTION headrace.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COPY headrace.messages FROM STDIN",
        "DELETE FROM headrace.messages",
        "UPDATE headrace.messages SET tenant_id = 'one'",
        "TRUNCATE headrace.messages",
        "DO $$ BEGIN LOCK TABLE headrace.messages IN EXCLUSIVE MODE; END $$",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_authid",
        "SELECT pg_read_file('/etc/hostname')",
        "CREATE TABLE public.mine (tenant_id text)",
        "SET row_security = off; SELECT FROM headrace.messages",
    ]
    async with installation.connected("ours") as connection:
        for statement in refused:
            with pytest.raises(errors.InsufficientPrivilege):
                await connection.execute(statement.encode())
            await connection.execute("RESET ALL")
        # Neither settings nor a role change who logged in.
        around = f"SET headrace.tenant = '{THEIRS}'; SET search_path = headrace_access, headrace; SET ROLE {TENANTS}"
        await connection.execute(around.encode())
        assert await seen(connection) == each(OURS)


HIDDEN = {
    "a count": "SELECT count(*) FROM headrace.messages WHERE tenant_id = 'two'",
    "a prepared statement": "PREPARE p AS SELECT count(*) FROM headrace.messages WHERE tenant_id <> 'one'; EXECUTE p",
    "a cursor": "BEGIN; DECLARE c CURSOR FOR SELECT count(*) FROM headrace.messages WHERE tenant_id <> 'one'; "
    "FETCH c; COMMIT",
    "XML": "SELECT position('<id>' IN query_to_xml("
    "$$SELECT id FROM headrace.messages WHERE tenant_id <> 'one'$$, true, false, '')::text)",
    "a copy": "COPY (SELECT id FROM headrace.messages WHERE tenant_id <> 'one') TO STDOUT",
    "statistics": "SELECT count(*) FROM pg_stats WHERE schemaname = 'headrace'",
    "extended statistics": "SELECT count(*) FROM pg_stats_ext WHERE schemaname = 'headrace'",
    "an error in a filter": "SELECT count(*) FROM headrace.messages "
    "WHERE 1 / (CASE tenant_id WHEN 'one' THEN 1 ELSE 0 END) = 0",
    "an error in a cast": "SELECT count(*) FROM headrace.messages "
    "WHERE CASE tenant_id WHEN 'one' THEN 0 ELSE ('x' || id)::int END <> 0",
    "the function of a view": "SELECT jsonb_array_length(sources) FROM headrace.put_together("
    """'two', jsonb_build_object('messages', jsonb_build_array(jsonb_build_object('role', 'user', 'pieces',
        jsonb_build_array(jsonb_build_object('quotes', 'x', 'from', 'history'))))))""",
    "a join": "SELECT count(*) FROM headrace.turns t JOIN headrace.model_calls c ON c.id = t.model_call_id "
    "WHERE c.tenant_id = 'two' OR t.tenant_id = 'two'",
    "statements of others": "SELECT count(*) FROM pg_stat_activity "
    "WHERE usename <> user AND query NOT IN ('<insufficient privilege>', '')",
    "parallel workers": "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET debug_parallel_query = on; "
    "SET min_parallel_table_scan_size = 0; SELECT count(*) FROM headrace.messages WHERE tenant_id <> 'one'",
}
"""Statements by what they try."""


@pytest.mark.parametrize("way", HIDDEN)
async def test_what_a_tenant_asks_finds_nothing_of_another(installation: Installation, way: str) -> None:
    async with installation.connected("ours") as connection, connection.cursor() as cursor:
        if HIDDEN[way].startswith("COPY"):
            async with cursor.copy(HIDDEN[way].encode()) as copy:
                assert [part async for part in copy] == []
            return
        await cursor.execute(HIDDEN[way].encode())
        found = list[Any]()
        while True:
            found += await cursor.fetchall() if cursor.description else []
            if not cursor.nextset():
                break
        assert found in ([], [(0,)])


async def test_a_description_of_a_table_shows_nothing_of_its_rows(installation: Installation) -> None:
    command = [str(postgres_binary("psql")), "-X", installation.logins["ours"], "-c", r"\d+ headrace.*"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"POLICY {TENANTS!r}".replace("'", '"') in done.stdout
    async with tables.connect(installation.url) as owner:
        words = await query(owner, "SELECT query FROM headrace.messages WHERE tenant_id = 'two' AND length(query) > 8")
    assert words
    assert not [word for word in words if word in done.stdout]


ANSWERS: dict[str, tuple[str, str]] = {
    "a view with the rights of its owner": (
        "CREATE VIEW headrace.every AS SELECT * FROM headrace.messages; GRANT SELECT ON headrace.every TO PUBLIC",
        "the view headrace.every shows rows with the rights of its owner",
    ),
    "a view elsewhere": (
        "CREATE SCHEMA bi; CREATE VIEW bi.every AS SELECT * FROM headrace.messages; GRANT USAGE ON SCHEMA bi TO PUBLIC;"
        "GRANT SELECT (id) ON bi.every TO headrace_tenants",
        "the view bi.every shows rows with the rights of its owner",
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW headrace.every AS SELECT * FROM headrace.messages;"
        "GRANT SELECT ON headrace.every TO headrace_gateway",
        "the materialized view headrace.every shows rows of all tenants",
    ),
    "a table": (
        "CREATE TABLE headrace.every AS SELECT * FROM headrace.messages; GRANT SELECT ON headrace.every TO PUBLIC",
        "the table headrace.every has no row-level security",
    ),
    "a schema": (
        "GRANT USAGE ON SCHEMA headrace_projection TO headrace_tenants",
        "the role headrace_tenants may use the schema headrace_projection",
    ),
    "a function": (
        "CREATE FUNCTION headrace.every() RETURNS SETOF headrace.messages LANGUAGE sql SECURITY DEFINER "
        "AS 'SELECT * FROM headrace.messages'",
        "the function headrace.every() runs with the rights of its owner",
    ),
    "no row-level security": (
        "ALTER TABLE headrace.messages DISABLE ROW LEVEL SECURITY",
        "the policies of the table messages are missing or altered",
    ),
    "no policy": (
        "DROP POLICY headrace_tenants_only ON headrace.messages",
        "the policies of the table messages are missing or altered",
    ),
    "another condition": (
        "ALTER POLICY headrace_tenants_only ON headrace.messages USING (true)",
        "the policies of the table messages are missing or altered",
    ),
    "another role": (
        "ALTER POLICY headrace_reader ON headrace.messages TO PUBLIC",
        "the policies of the table messages are missing or altered",
    ),
}
"""By what may lead to rows of others: statements, and the sentence about them."""


@pytest.mark.parametrize("way", ANSWERS)
async def test_what_leads_around_the_policies_is_found(database_url: str, way: str) -> None:
    await tables.set_up(database_url)
    names = [model.name for model in READ_MODELS]
    statements, sentence = ANSWERS[way]
    async with tables.connect(database_url) as owner:
        assert await policies.crossings(owner, names) == []
        await owner.execute(statements.encode())
        assert sentence in await policies.crossings(owner, names)
        if sentence.startswith("the policies"):
            await tables.set_up(database_url)
            assert await policies.crossings(owner, names) == []


async def test_a_login_that_can_do_more_than_its_tenant_is_found(installation: Installation) -> None:
    names, ours = [model.name for model in READ_MODELS], installation.role("ours")
    async with tables.connect(installation.url) as owner:
        assert await policies.crossings(owner, names) == []
        async with in_every_group(installation):
            assert await policies.crossings(owner, names) == [f"the login {ours} is in {GATEWAY}, {READER}"]
        await owner.execute(f"ALTER ROLE {ours} BYPASSRLS CREATEROLE".encode())
        found = await policies.crossings(owner, names)
        await owner.execute(f"ALTER ROLE {ours} NOBYPASSRLS NOCREATEROLE".encode())
    assert found == [f"the login {ours} is free from policies, able to make roles"]


async def test_tables_of_an_earlier_version_get_their_policies(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who could read them go on to see all rows, whom others bound stay bound, and `undo` brings policies too."""
    login = f"b_{uuid4().hex[:12]}"
    history = wander(Random(15), 200)
    with monkeypatch.context() as earlier:
        earlier.setattr(policies, "missing", _nothing)
        async with following(database_url, history):
            await caught_up(database_url, history)
        await rebuilt(database_url, history, "messages")
    async with tables.connect(database_url) as owner:
        await fill(owner)
        await owner.execute(
            f"CREATE ROLE {login} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA headrace TO {login}".encode()
        )
        await owner.execute(f"GRANT SELECT ON headrace.apps, headrace.messages TO {login}".encode())
        await owner.execute("REVOKE SELECT ON headrace.datasets FROM headrace_reader")
        await owner.execute("ALTER TABLE headrace.messages ENABLE ROW LEVEL SECURITY")
        await owner.execute(f"CREATE POLICY theirs ON headrace.messages TO {login} USING (tenant_id = 'one')".encode())
        names = [model.name for model in READ_MODELS]
        assert len(await policies.crossings(owner, names)) == len(names)
        await tables.set_up(database_url)
        assert await policies.crossings(owner, names) == []
        assert await policies.blind(owner) == []
        async with await AsyncConnection.connect(make_conninfo(database_url, user=login, password="x")) as connection:
            assert await seen(connection, ["apps", "messages"]) == {"apps": {OURS, THEIRS}, "messages": {OURS}}
        granted = "SELECT has_table_privilege('headrace_reader', 'headrace.datasets', 'SELECT')"
        assert await query(owner, granted) == [False]
        await owner.execute(f"GRANT SELECT ON headrace.datasets TO {login}".encode())
        assert await policies.blind(owner) == [login]
        await rebuild.undo(database_url, RecordedLog(history), recorded_files(history))
        assert await policies.crossings(owner, names) == []
        await owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(login)))


async def _nothing(*_: object) -> dict[str, list[sql.Composed]]:
    return {}


async def test_an_owner_who_may_make_no_roles_goes_on_without_those_of_tenants(tmp_path: Path) -> None:
    names = [model.name for model in READ_MODELS]
    async with EmbeddedPostgres(tmp_path) as server, tables.connect(server.url) as superuser:
        database = sql.Identifier(server.database)
        await superuser.execute("CREATE ROLE managed LOGIN PASSWORD 'x'")
        await superuser.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO managed").format(database))
        url = server.url_of(server.database, "managed", "x")
        with pytest.raises(errors.InsufficientPrivilege, match="headrace postgres roles"):
            await tables.set_up(url)
        await superuser.execute("CREATE ROLE headrace_reader")
        await tables.set_up(url)
        async with tables.connect(url) as owner:
            assert await policies.existing(owner) == [READER]
            assert await policies.crossings(owner, names) == []
            await fill(owner)
        await superuser.execute(f"CREATE ROLE {TENANTS}; CREATE ROLE {GATEWAY}".encode())
        await tables.set_up(url)
        async with tables.connect(url) as owner:
            assert await policies.existing(owner) == [*ROLES]
            assert await policies.crossings(owner, names) == []
            await owner.execute("INSERT INTO headrace_access.logins VALUES ('ours', 'one')")
        await superuser.execute(f"CREATE ROLE ours LOGIN PASSWORD 'x' IN ROLE {TENANTS}".encode())
        async with await AsyncConnection.connect(server.url_of(server.database, "ours", "x")) as ours:
            assert await seen(ours, [model.name for model in READ_MODELS]) == {name: {OURS} for name in names}
            await ours.execute("SELECT FROM headrace.model_call_requests")
