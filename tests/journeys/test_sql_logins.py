"""SQL logins on real servers: created, used, limited, restored, and revoked while they are busy."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from adapters.jetstream.client import Client
from adapters.privacy.scram import new_password, verifier
from domain.access.sql_login import role_of
from domain.aggregate import new_id
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import Stack
from tests.journeys.test_secrets import in_streams, in_tables

TIMEOUT_S = 2.0
ROLES = ("commands", "project")


@pytest.fixture(scope="module")
async def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("sql")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings, ()) as stack:
            await stack.start(*ROLES, HEADRACE_SQL_CONNECTIONS="3", HEADRACE_SQL_TIMEOUT_S=str(TIMEOUT_S))
            yield stack
            await drop_roles(stack)


async def drop_roles(stack: Stack) -> None:
    """Roles are those of the whole server, which outlives the databases of tests."""
    for row in await stack.sql("DELETE FROM headrace_access.logins RETURNING role::text"):
        await change(stack, sql.SQL("DROP ROLE {}").format(sql.Identifier(row["role"])))


async def change(stack: Stack, statement: LiteralString | sql.Composed, *values: str) -> None:
    """Do what an administrator would do."""
    async with session(stack.postgres_url) as connection:
        await connection.execute(statement, values)


class Tenant:
    """A tenant of its own with an app, and its SQL logins."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.name = f"t-{new_id()}"
        self.client = Client(stack.client.connection, self.name)

    async def send(self, name: str, /, **payload: Any) -> str:
        """The id of an accepted command."""
        outcome = await self.client.send(name, payload, wait=30)
        assert outcome["status"] == "accepted", outcome
        return str(outcome["command"])

    async def command(self, *arguments: str) -> list[dict[str, Any]]:
        code, lines = await self.stack.command("sql-login", *arguments, "--tenant", self.name)
        assert code == 0, lines
        return lines

    async def written(self, *arguments: str) -> tuple[int, dict[str, str]]:
        """The exit code of `headrace sql-login`, and the variables that it exports into a pipe."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "sql-login", *arguments, "--tenant", self.name),
            env=os.environ | self.stack.settings.variables(),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        lines = [shlex.split(line) for line in out.decode().splitlines()]
        assert all(export == "export" for export, _ in lines)
        return process.returncode or 0, dict(variable.split("=", 1) for _, variable in lines)

    async def login(self) -> tuple[str, str]:
        """The id of a new login, and its address as soon as PostgreSQL accepts it."""
        password = new_password()
        id = await self.send("sql_login.create", name="bi", verifier=verifier(password))
        url = make_conninfo(self.stack.postgres_url, user=role_of(self.name, id), password=password)
        await accepted(url)
        return id, url


@asynccontextmanager
async def session(url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def accepts(url: str) -> bool:
    with suppress(psycopg.OperationalError):
        async with session(url):
            return True
    return False


async def accepted(url: str, expected: bool = True) -> None:
    async with asyncio.timeout(30):
        while await accepts(url) != expected:
            await asyncio.sleep(0.05)


async def test_a_login_reads_the_rows_of_its_tenant_and_is_in_no_message_table_file_or_process_list(
    stack: Stack, postgres: EmbeddedPostgres
) -> None:
    tenant, other, seen = Tenant(stack), Tenant(stack), set[str]()
    for each in (tenant, other):
        await asyncio.gather(*(each.send("app.create", name=f"of {each.name}") for _ in range(8)))
    watching = asyncio.create_task(watch_processes(seen))
    [made] = await tenant.command("create", "bi")
    watching.cancel()
    for each in (tenant, other):
        eight = "SELECT FROM headrace.apps WHERE tenant_id = %(t)s"
        await stack.until(eight, lambda rows: len(rows) == 8, t=each.name)
    await stack.until("SELECT FROM headrace.sql_logins WHERE role = %(role)s", role=made["user"])
    parts = {name: made[name] for name in ("host", "port", "dbname", "user", "password")}
    async with session(make_conninfo(**parts)) as reader:
        cursor = await reader.execute("SELECT tenant_id, name FROM headrace.apps")
        assert await cursor.fetchall() == [(tenant.name, f"of {tenant.name}")] * 8
        cursor = await reader.execute("SELECT name, role, status FROM headrace.sql_logins")
        assert await cursor.fetchall() == [("bi", made["user"], "active")]
        for secret in ("headrace_access.logins", "headrace_projection.groups", "pg_authid"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await reader.execute(f"SELECT FROM {secret}".encode())

    [kept] = await stack.sql("SELECT rolpassword FROM pg_authid WHERE rolname = %(role)s", role=made["user"])
    bad = {"name": "bi", "verifier": kept["rolpassword"], "extra": kept["rolpassword"]}
    refused = await tenant.client.send("sql_login.create", bad, wait=30)
    assert refused["status"] == "rejected"
    await stack.until("SELECT FROM headrace.commands WHERE id = %(id)s", id=refused["command"])
    logs = [stack.settings.home / "workers.log", *(postgres.home / "log").iterdir()]
    assert any("sql-login" in line for line in seen)
    for secret in (kept["rolpassword"], kept["rolpassword"].rpartition(":")[2], made["password"]):
        assert await in_streams(stack, secret) == []
        assert await in_tables(stack, secret) == []
        assert [line for line in seen if secret in line] == []
        assert [file for file in logs if secret.encode() in file.read_bytes()] == []

    code, exports = await other.written("create", "bi")
    assert (code, set(exports)) == (0, {"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"})
    names = {"PGHOST": "host", "PGPORT": "port", "PGDATABASE": "dbname", "PGUSER": "user", "PGPASSWORD": "password"}
    async with session(make_conninfo(**{names[name]: value for name, value in exports.items()})) as theirs:
        cursor = await theirs.execute("SELECT DISTINCT tenant_id FROM headrace.commands")
        assert await cursor.fetchall() == [(other.name,)]

    [listed] = await tenant.command("list")
    assert (listed["id"], listed["name"], listed["status"]) == (made["id"], "bi", "active")
    assert [each["role"] for each in await other.command("list")] == [exports["PGUSER"]]
    await tenant.command("revoke", "bi")
    await accepted(make_conninfo(**parts), False)
    code, [error] = await stack.command("sql-login", "revoke", "bi", "--tenant", tenant.name)
    assert (code, "No active SQL login" in error["error"]["message"]) == (1, True)


async def watch_processes(seen: set[str]) -> None:
    """Add the command line and title of each process, again and again."""
    while True:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                seen.add(" ".join(process.cmdline()))
        await asyncio.sleep(0.02)


async def test_no_setting_of_a_session_keeps_a_transaction_open(stack: Stack) -> None:
    _, url = await Tenant(stack).login()
    unlimited = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0"

    async def idles(connection: AsyncConnection[TupleRow]) -> None:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT count(*) FROM headrace.apps")
        await asyncio.sleep(30)

    async def runs(connection: AsyncConnection[TupleRow]) -> None:
        await connection.execute("SELECT pg_sleep(30)")

    async def goes_on(connection: AsyncConnection[TupleRow]) -> None:
        """One transaction with a short query after the other."""
        await connection.execute("BEGIN")
        while True:
            await connection.execute("SELECT pg_sleep(0.05)")

    async def lasts(what: Callable[[AsyncConnection[TupleRow]], Any]) -> float:
        """Seconds until the session has ended that does this."""
        connection = await AsyncConnection.connect(url, autocommit=True)
        await connection.execute(unlimited)
        began = time.monotonic()
        doing = asyncio.create_task(what(connection))
        there = "SELECT FROM pg_stat_activity WHERE pid = %(pid)s"
        await stack.until(there, lambda rows: not rows, pid=connection.info.backend_pid)
        ended = time.monotonic()
        doing.cancel()
        await asyncio.wait((doing,))
        await connection.close()
        return ended - began

    lasted = await asyncio.gather(*map(lasts, (idles, runs, goes_on)))
    assert all(TIMEOUT_S < each < TIMEOUT_S + 5 for each in lasted), lasted
    async with session(url) as connection:  # outside of a transaction, a session may wait
        await asyncio.sleep(TIMEOUT_S + 3)
        await connection.execute("SELECT 1")


async def test_sessions_are_limited_and_other_databases_are_closed(stack: Stack, postgres: EmbeddedPostgres) -> None:
    _, url = await Tenant(stack).login()
    async with session(url), session(url), session(url) as last:
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            await AsyncConnection.connect(url)
        for statement in ("SET temp_file_limit = -1", "ALTER ROLE session_user CONNECTION LIMIT 9"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await last.execute(statement.encode())
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        await AsyncConnection.connect(make_conninfo(url, dbname="postgres"))
    async with fresh_database(postgres) as elsewhere:
        dbname = elsewhere.rpartition("/")[2]
        async with session(make_conninfo(url, dbname=dbname)) as stray:
            await asyncio.sleep(2)
            with pytest.raises(psycopg.OperationalError):
                await stray.execute("SELECT 1")


async def test_what_is_lost_or_changed_in_postgresql_comes_back_from_the_log(stack: Stack) -> None:
    tenant = Tenant(stack)
    (_, lost), (_, changed), (revoked, gone) = [await tenant.login() for _ in range(3)]
    async with session(changed) as owner:
        await owner.execute("ALTER ROLE session_user PASSWORD 'mine'")
    assert await accepts(make_conninfo(changed, password="mine"))
    await stack.stop("project")
    role = str(conninfo_to_dict(lost)["user"])
    await change(stack, "DELETE FROM headrace_access.logins WHERE role = %s", role)
    await change(stack, sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    await change(stack, "CREATE ROLE t_0123456789abcdef LOGIN")
    await change(stack, "INSERT INTO headrace_access.logins VALUES ('t_0123456789abcdef', %s)", tenant.name)
    await tenant.send("sql_login.revoke", sql_login=revoked)
    assert await accepts(gone)
    await stack.start("project")
    for url, expected in ((lost, True), (changed, True), (gone, False)):
        await accepted(url, expected)
    assert not await accepts(make_conninfo(changed, password="mine"))
    await stack.until("SELECT FROM pg_roles WHERE rolname = 't_0123456789abcdef'", lambda rows: not rows)


async def test_the_example_runs_with_a_login(stack: Stack) -> None:
    tenant = Tenant(stack)
    app = await tenant.send("app.create", name="Guide")
    await tenant.send("app.configure", app=app)
    await tenant.send("message.send", app=app, query="When?")
    _, url = await tenant.login()
    query = (Path(__file__).parents[2] / "examples" / "sql" / "usage.sql").read_text()
    async with session(url) as reader, asyncio.timeout(30):
        rows: list[TupleRow] = []
        while not rows:
            rows = await (await reader.execute(query.encode())).fetchall()
    assert [row[1] for row in rows] == [1]


async def test_where_the_user_may_make_no_roles_nothing_halts_and_the_reason_is_said(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """As with a managed PostgreSQL; once it may, the roles are made."""
    async with EmbeddedNats(tmp_path) as nats, fresh_database(postgres) as url:
        database = str(conninfo_to_dict(url)["dbname"])
        owner, password = sql.Identifier(f"owner_of_{database}"), new_password()
        statements = (
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(owner, sql.Literal(password)),
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), owner),
        )
        async with session(url) as superuser:
            for statement in statements:
                await superuser.execute(statement)
        managed = f"postgresql://owner_of_{database}:{password}@{url.rpartition('@')[2]}"
        settings = Settings.load(home=tmp_path, nats_url=nats.url, postgres_url=managed)
        async with Stack.running(settings, ROLES) as stack:
            tenant, password = Tenant(stack), new_password()
            id = await tenant.send("sql_login.create", name="bi", verifier=verifier(password))
            tables = "SELECT * FROM headrace.{} WHERE tenant_id = %(t)s"
            [letter] = await stack.until(tables.format("dead_letters"), t=tenant.name)
            assert f"NotAllowed: The user 'owner_of_{database}' may not change the roles of SQL" in letter["reason"]
            assert "CREATEROLE" in letter["reason"]
            await tenant.send("app.create", name="Guide")
            await stack.until(tables.format("apps"), t=tenant.name)
            async with session(url) as superuser:
                for grant in ("ALTER ROLE {} CREATEROLE", "GRANT headrace_tenants TO {} WITH ADMIN OPTION"):
                    await superuser.execute(sql.SQL(grant).format(owner))
                login = make_conninfo(managed, user=role_of(tenant.name, id), password=password)
                await tenant.send("dead_letter.retry", dead_letter=letter["id"])
                await accepted(login)
                await tenant.send("sql_login.revoke", sql_login=id)
                await accepted(login, False)
        async with session(url) as superuser:
            await superuser.execute(sql.SQL("REASSIGN OWNED BY {} TO postgres").format(owner))
            await superuser.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(owner))


async def test_nothing_passes_one_second_after_a_revocation_under_load(stack: Stack) -> None:
    tenant = Tenant(stack)
    (id, url), (_, other) = await tenant.login(), await tenant.login()
    stop, last, still = asyncio.Event(), [0.0], [0.0]

    async def reads(url: str, at: list[float]) -> None:
        """Query, and connect again when the session ends."""
        while not stop.is_set():
            with suppress(psycopg.Error):
                async with session(url) as connection:
                    while not stop.is_set():
                        await connection.execute("SELECT count(*) FROM headrace.commands, generate_series(1, 1000)")
                        at[0] = time.monotonic()
            await asyncio.sleep(0.001)

    async def loads() -> None:
        while not stop.is_set():
            await asyncio.gather(*(tenant.send("app.create", name="load") for _ in range(50)))

    busy = [asyncio.create_task(each) for each in (reads(url, last), reads(url, last), reads(other, still), loads())]
    try:
        await asyncio.sleep(2)
        assert last[0]
        began = time.monotonic()
        await tenant.send("sql_login.revoke", sql_login=id)
        decided = time.monotonic()
        await asyncio.sleep(3)
    finally:
        stop.set()
        await asyncio.gather(*busy)
    assert still[0] > decided + 1, "the other login goes on"
    assert last[0] - decided < 1, (
        f"{last[0] - decided:.3f} s after the outcome, {last[0] - began:.3f} s after the command"
    )
    assert await stack.sql("SELECT FROM pg_roles WHERE rolname = %(role)s", role=role_of(tenant.name, id)) == []
