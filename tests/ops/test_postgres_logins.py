"""The logins of the roles on a PostgreSQL of the operator's own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from adapters.index.pgvector import tables as pgvector
from adapters.postgres import reader, tables
from adapters.postgres.logins import EXPORTER, INDEXER, OWNER, PASSWORDS, VIEWER, as_indexer, script
from adapters.postgres.sql_roles import GRACE_S, SWEEP_S, PostgresSqlRoles
from adapters.privacy.scram import new_password, verifier
from domain.access.sql_login import role_of
from domain.aggregate import new_id
from handlers.ports.sql_roles import NotAllowed, Role
from ops.servers.embedded import HOST, EmbeddedPostgres, postgres_binary

DEPLOY = Path(__file__).resolve().parents[2] / "ops" / "deploy"


def test_the_deployment_has_the_script_that_is_printed() -> None:
    assert (DEPLOY / "postgres-roles.sql").read_text() == script()


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[EmbeddedPostgres]:
    """A server with the logins, whose passwords are their names; the script has run twice."""
    with tempfile.TemporaryDirectory() as name:
        secrets = Path(name) / "secrets"
        secrets.mkdir()
        for login, file in PASSWORDS.items():
            (secrets / file).write_text(login)
        async with EmbeddedPostgres(Path(name) / "home") as found:
            for _ in range(2):
                done = await asyncio.to_thread(
                    subprocess.run,
                    [str(postgres_binary("psql")), found.url, "-f", str(DEPLOY / "postgres-roles.sql")],
                    env={**os.environ, "SECRETS": str(secrets)},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
            await tables.set_up(url(found, OWNER))
            await pgvector.set_up(await as_indexer(url(found, OWNER)))
            yield found


def url(server: EmbeddedPostgres, login: str) -> str:
    return server.url_of(server.database, login, login)


async def may(server: EmbeddedPostgres, login: str, statement: str) -> bool:
    """Return True if a login may run a statement, which is rolled back."""
    async with await psycopg.AsyncConnection.connect(url(server, login)) as connection:
        try:
            await connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            return False
        finally:
            await connection.rollback()
    return True


READ = "SELECT count(*) FROM headrace.messages"
WRITE = "DELETE FROM headrace.messages"
INDEX = "CREATE TABLE headrace_index.mine ()"
MAKE = "CREATE TABLE headrace.mine ()"
POSITION = "UPDATE headrace_projection.groups SET sequence = 0"
ROLE = "CREATE ROLE another"
FILE = "SELECT pg_read_file('/etc/hostname')"
LOCK = "SELECT pg_try_advisory_lock(1)"
TENANT = f"GRANT headrace_tenants TO {VIEWER}"
WAL = "SELECT pg_logical_emit_message(false, 'x', 'x')"


@pytest.mark.parametrize(
    ("login", "allowed"),
    [
        (OWNER, {READ, WRITE, MAKE, POSITION, INDEX, LOCK, ROLE, TENANT}),
        (INDEXER, {READ, INDEX, LOCK}),
        (VIEWER, {READ}),
        (EXPORTER, {READ, LOCK}),
    ],
)
async def test_a_login_has_no_more_rights_than_it_needs(
    server: EmbeddedPostgres, login: str, allowed: set[str]
) -> None:
    statements = (READ, WRITE, INDEX, MAKE, POSITION, ROLE, TENANT, FILE, LOCK, WAL)
    assert {statement for statement in statements if await may(server, login, statement)} == allowed


async def test_no_login_is_a_superuser_and_none_accepts_another_password(server: EmbeddedPostgres) -> None:
    async with await psycopg.AsyncConnection.connect(server.url) as connection:
        cursor = await connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND (rolsuper OR rolcreaterole OR rolcreatedb)",
            (list(PASSWORDS),),
        )
        assert await cursor.fetchall() == [(OWNER,)]  # for SQL logins
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await psycopg.AsyncConnection.connect(f"postgresql://{VIEWER}:wrong@{HOST}:{server.port}/{server.database}")


async def test_setup_and_workers_can_run_again_with_their_logins(server: EmbeddedPostgres) -> None:
    await tables.set_up(url(server, OWNER))
    await pgvector.set_up(await as_indexer(url(server, OWNER)))
    await pgvector.set_up(url(server, INDEXER))
    assert await reader.login(url(server, VIEWER), b"secret") == url(server, VIEWER)


async def test_the_owner_of_the_tables_makes_and_ends_sql_logins_and_changes_no_other_role(
    server: EmbeddedPostgres,
) -> None:
    role, password = role_of("acme", new_id()), new_password()
    roles = PostgresSqlRoles(url(server, OWNER), connections=2, seconds=1)
    await roles.make("acme", role, verifier(password))
    assert (await roles.held())[role] == Role("acme", None)
    watching = asyncio.create_task(roles.watch())
    tenant = server.url_of(server.database, role, password)
    async with await psycopg.AsyncConnection.connect(tenant) as long:
        assert await (await long.execute("SHOW temp_file_limit")).fetchone() == ("1GB",)
        await long.execute("SET idle_in_transaction_session_timeout = 0")
        await asyncio.sleep(1 + GRACE_S + 2 * SWEEP_S)
        with pytest.raises(psycopg.OperationalError):
            await long.execute("SELECT 1")
    watching.cancel()
    async with await psycopg.AsyncConnection.connect(tenant, autocommit=True) as session:
        await roles.end(role)
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
    assert await roles.held() == {}
    async with await psycopg.AsyncConnection.connect(url(server, OWNER)) as owner:
        for other in (INDEXER, VIEWER, "postgres"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await owner.execute(f"ALTER ROLE {other} PASSWORD 'mine'".encode())
            await owner.rollback()


async def test_a_user_that_may_make_no_roles_learns_what_is_missing(server: EmbeddedPostgres) -> None:
    """As with a managed server; what was made by another user is cut off from the rows all the same."""
    role = role_of("acme", new_id())
    ours, managed = (PostgresSqlRoles(each, connections=2, seconds=60) for each in (server.url, url(server, OWNER)))
    await ours.make("acme", role, verifier(new_password()))
    with pytest.raises(NotAllowed, match=f"'{OWNER}' may not change the roles of SQL logins .*CREATEROLE"):
        await managed.make("acme", role, verifier(new_password()))
    with pytest.raises(NotAllowed):
        await managed.end(role)
    assert (await ours.held())[role].tenant is None
    await ours.end(role)


async def test_without_these_logins_the_index_belongs_to_the_user(server: EmbeddedPostgres) -> None:
    other = server.url_of("postgres")
    assert await as_indexer(other) == other
