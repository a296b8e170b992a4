from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from adapters.postgres import indexer, tables
from adapters.postgres.policies import READER
from adapters.postgres.reader import login
from adapters.postgres.rights import HARMLESS, excess, restrict
from adapters.web.viewer.query import Refused, run
from ops.settings import Settings
from ops.upkeep.doctor import examine

SECRET = bytes(32)

Connection = AsyncConnection[TupleRow]

ATTACKS = {
    "WAL": "SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 10000000))) FROM generate_series(1, 10)",
    "locks of the projector": f"SELECT pg_advisory_lock({tables.PROJECTOR_LOCK})",
    "shared locks": f"SELECT pg_try_advisory_xact_lock_shared({tables.PROJECTOR_LOCK})",
    "sessions of other people": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = user",
    "queries of other people": "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = user",
    "large objects": "SELECT lo_from_bytea(0, 'x')",
    "large objects in pieces": "SELECT lo_create(0)",
    "notifications": "SELECT pg_notify('a', 'b')",
    "snapshots on the disk": "SELECT pg_export_snapshot()",
    "replication slots": "SELECT pg_create_physical_replication_slot('a', true)",
    "statistics": "SELECT pg_clear_relation_stats('headrace', 'apps')",
    "index maintenance": "SELECT gin_clean_pending_list(0)",
    "large objects of files": "SELECT lo_import('/etc/passwd')",
    "files": "SELECT pg_read_file('/etc/passwd')",
    "folders": "SELECT pg_ls_dir('/')",
}


@pytest.fixture(scope="module")
async def reader_url(module_database_url: str) -> str:
    await tables.set_up(module_database_url)
    return await login(module_database_url, SECRET)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def test_a_reader_runs_no_function_that_is_not_known_to_be_harmless(reader_url: str) -> None:
    """A function of the next version of PostgreSQL that may do more than read fails here, if it is not revoked."""
    async with connected(reader_url) as reader:
        cursor = await reader.execute(
            "SELECT DISTINCT proname FROM pg_proc WHERE provolatile = 'v' AND has_function_privilege(oid, 'EXECUTE') "
            "AND pg_get_function_arguments(oid) !~ '\\minternal\\M' "
            "AND pg_get_function_result(oid) !~ '\\m(internal|trigger|event_trigger|language_handler)\\M'"
        )
        found = {name for (name,) in await cursor.fetchall()}
        assert {name for name in found if not name.startswith("pg_stat_get_")} <= {*HARMLESS}
        assert "random" in found
        assert await excess(reader, READER) == []


async def test_a_function_of_an_extension_is_revoked_as_well(database_url: str) -> None:
    await tables.set_up(database_url)
    url = await login(database_url, SECRET)
    async with connected(database_url) as owner, connected(url) as reader:
        await owner.execute("CREATE EXTENSION vector")
        await owner.execute("CREATE FUNCTION public.reach_out() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1'")
        await owner.execute("ALTER EXTENSION vector ADD FUNCTION public.reach_out()")
        await reader.execute("SELECT public.reach_out()")
        assert await excess(reader, READER) == ["reach_out"]
        await login(database_url, SECRET)
        with pytest.raises(errors.InsufficientPrivilege):
            await reader.execute("SELECT public.reach_out()")
        assert await (await reader.execute("SELECT '[1]'::public.vector <-> '[3]'")).fetchone() == (2.0,)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks_of_a_reader_are_refused(reader_url: str, attack: str) -> None:
    """On the page for queries, and in a session of its own."""
    with pytest.raises(Refused, match=r"(?i)permission denied for function"):
        await run(reader_url, ATTACKS[attack])
    async with connected(reader_url) as reader:
        with pytest.raises(errors.InsufficientPrivilege):
            await reader.execute(ATTACKS[attack].encode())


async def test_a_reader_sees_no_queries_of_others_and_no_index(reader_url: str, module_database_url: str) -> None:
    index = await indexer.login(module_database_url, SECRET)
    async with connected(index) as worker:
        await worker.execute("CREATE SCHEMA IF NOT EXISTS headrace_index; CREATE SCHEMA IF NOT EXISTS headrace_cache")
        await worker.execute("CREATE TABLE IF NOT EXISTS headrace_index.segments AS SELECT 'words' AS content")
        await worker.execute("SELECT 'a query of another login'")
        found = await run(
            reader_url, "SELECT query FROM pg_stat_activity WHERE usename <> user AND query LIKE '%login%'"
        )
        assert found.rows == []
    with pytest.raises(Refused, match=r"(?i)permission denied for schema headrace_index"):
        await run(reader_url, "SELECT content FROM headrace_index.segments")


async def test_a_reader_connects_to_no_server(reader_url: str, module_database_url: str) -> None:
    """The extension `dblink` is not installed; where it is, the functions are revoked."""
    with pytest.raises(Refused, match=r"(?i)does not exist"):
        await run(reader_url, "SELECT dblink_connect('host=127.0.0.1')")
    async with connected(reader_url) as reader:
        for statement in ("CREATE EXTENSION dblink", "CREATE SERVER mine FOREIGN DATA WRAPPER dblink_fdw"):
            with pytest.raises(psycopg.Error):
                await reader.execute(statement.encode())


@pytest.mark.parametrize("statement", ["CREATE TEMP TABLE mine (a int)", "CREATE TABLE public.mine (a int)"])
async def test_a_reader_makes_no_tables(reader_url: str, statement: str) -> None:
    async with connected(reader_url) as reader:
        with pytest.raises(errors.InsufficientPrivilege):
            await reader.execute(statement.encode())


async def test_a_reader_does_not_raise_its_limits(reader_url: str) -> None:
    """Its temporary files and its sessions are limited by settings that only others change."""
    user = str(conninfo_to_dict(reader_url)["user"])
    async with connected(reader_url) as reader:
        assert await (await reader.execute("SHOW temp_file_limit")).fetchone() == ("1GB",)
        for statement in ("SET temp_file_limit = -1", f"ALTER ROLE {user} CONNECTION LIMIT -1"):
            with pytest.raises(errors.InsufficientPrivilege):
                await reader.execute(statement.encode())
        cursor = await reader.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = user")
        assert await cursor.fetchone() == (50,)


async def test_people_do_not_lock_out_the_viewer(module_database_url: str, reader_url: str) -> None:
    """A role can change its own password, so theirs is another one."""
    people = await login(module_database_url, SECRET, "people")
    own, other = (sql.Identifier(str(conninfo_to_dict(url)["user"])) for url in (people, reader_url))
    change = sql.SQL("ALTER ROLE {} PASSWORD 'mine'")
    async with connected(people) as person:
        await person.execute(change.format(own))
        with pytest.raises(errors.InsufficientPrivilege):
            await person.execute(change.format(other))
    for url in (reader_url, await login(module_database_url, SECRET, "people")):
        async with connected(url) as again:
            await again.execute("SELECT 1")


async def test_a_reader_leaves_connections_to_the_others(reader_url: str, module_database_url: str) -> None:
    user = str(conninfo_to_dict(reader_url)["user"])
    async with connected(module_database_url) as owner, connected(reader_url):
        await owner.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 1").format(sql.Identifier(user)))
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            await AsyncConnection.connect(reader_url)
    await login(module_database_url, SECRET)


async def test_workers_and_the_exporter_take_their_locks(module_database_url: str) -> None:
    await tables.set_up(module_database_url)
    for url in (await indexer.login(module_database_url, SECRET), await login(module_database_url, SECRET, "export")):
        async with connected(url) as worker:
            await worker.execute("SELECT pg_advisory_lock(1), pg_advisory_unlock(1)")


async def test_an_owner_that_is_no_superuser(database_url: str, nats_url: str, tmp_path: Path) -> None:
    """It cannot revoke functions: the diagnosis names them, until a superuser sets up the database once."""
    name = f"owner_{conninfo_to_dict(database_url)['dbname']}"
    owner, password = sql.Identifier(name), "of the tests"
    async with connected(database_url) as superuser:
        create = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(owner, sql.Literal(password))
        await superuser.execute(create)
        await superuser.execute(sql.SQL("GRANT headrace_reader TO {} WITH ADMIN OPTION").format(owner))
        own = sql.SQL("ALTER DATABASE {} OWNER TO {}")
        await superuser.execute(own.format(sql.Identifier(str(conninfo_to_dict(database_url)["dbname"])), owner))
        url = make_conninfo(database_url, user=name, password=password)
        await tables.set_up(url)
        reader = await login(url, SECRET)
        with pytest.raises(Refused, match=r"(?i)permission denied to create temporary tables|cannot execute"):
            await run(reader, "EXPLAIN ANALYZE CREATE TEMP TABLE mine AS SELECT 1")
        settings = Settings.load(home=tmp_path, nats_url=nats_url, postgres_url=f"postgresql://{_uri(url)}")
        [found] = [finding async for finding in examine(settings) if finding.what == "readers"]
        assert "pg_logical_emit_message" in found.found
        assert "superuser" in found.advice
        await tables.set_up(database_url)
        await tables.set_up(url)  # the owner keeps the locks
        [found] = [finding async for finding in examine(settings) if finding.what == "readers"]
        assert (found.good, found.advice) == (True, "")
        with pytest.raises(Refused, match=r"(?i)permission denied for function"):
            await run(reader, ATTACKS["WAL"])


def _uri(conninfo: str) -> str:
    parts = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    return f"{parts['user']}:{parts['password'].replace(' ', '%20')}@{parts['host']}:{parts['port']}/{parts['dbname']}"


async def test_restricting_again_changes_nothing(module_database_url: str) -> None:
    await tables.set_up(module_database_url)
    async with connected(module_database_url) as owner, owner.transaction():
        cursor = await owner.execute("SELECT sum(xmin::text::bigint) FROM pg_proc")
        before = await cursor.fetchone()
        await restrict(owner)
        assert await (await owner.execute("SELECT sum(xmin::text::bigint) FROM pg_proc")).fetchone() == before
