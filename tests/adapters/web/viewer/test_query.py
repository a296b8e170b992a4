from __future__ import annotations

import asyncio
import csv
import io
import json
import resource
from time import perf_counter

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from adapters.postgres.reader import login
from adapters.postgres.tables import set_up
from adapters.web.viewer import query
from adapters.web.viewer.query import Form, Refused, export, run

SECRET = bytes(32)


@pytest.fixture(scope="module")
async def reader_url(module_database_url: str) -> str:
    """The address of a database with empty tables, for a login that can only read them."""
    await set_up(module_database_url)
    async with await psycopg.AsyncConnection.connect(module_database_url, autocommit=True) as owner:
        await owner.execute("CREATE TABLE private (words text); INSERT INTO private VALUES ('a secret')")
        await owner.execute("INSERT INTO headrace_projection.checkpoints VALUES ('SOME', 7)")
    return await login(module_database_url, SECRET)


async def download(url: str, statement: str, form: Form, **options: float) -> str:
    return b"".join([piece async for piece in export(url, statement, form, **options)]).decode()


async def refusal(url: str, statement: str, **options: float) -> str:
    with pytest.raises(Refused) as refused:
        await run(url, statement, **options)
    for form in ("csv", "jsonl"):
        with pytest.raises(Refused):
            await download(url, statement, form, **options)
    return str(refused.value).lower()


async def test_shows_what_a_query_finds(reader_url: str) -> None:
    found = await run(
        reader_url, "SELECT sequence, stream, NULL AS none FROM checkpoints WHERE stream = 'SOME' -- 100%;"
    )
    assert found.columns == ["sequence", "stream", "none"]
    assert found.rows == [("7", "SOME", None)]
    assert not found.more


@pytest.mark.parametrize(
    "statement",
    [
        "  (select 1)\n;",
        "/* say */ with one as (select 1) select * from one;",
        "values (1)",
        "-- a comment\nselect 1 -- and another",
    ],
)
async def test_takes_any_query(reader_url: str, statement: str) -> None:
    assert (await run(reader_url, statement)).rows == [("1",)]
    assert (await download(reader_url, statement, "csv")).endswith("\r\n1\r\n")


async def test_takes_a_table_and_explains_a_query(reader_url: str) -> None:
    assert len((await run(reader_url, "table checkpoints")).rows) == 3
    plan = await run(reader_url, "explain (analyze, costs off) select * from messages where tenant_id = 'default'")
    assert plan.columns == ["QUERY PLAN"]
    assert any("messages" in (line[0] or "") for line in plan.rows)


async def test_writes_csv_that_tells_null_from_empty(reader_url: str) -> None:
    statement = """SELECT 'a"b' AS quoted, 'x,y
z' AS lines, '' AS empty, NULL AS none, 1.50::numeric AS number"""
    written = await download(reader_url, statement, "csv")
    assert written == 'quoted,lines,empty,none,number\r\n"a""b","x,y\nz","",,1.50\r\n'
    assert list(csv.reader(io.StringIO(written, newline="")))[1] == ['a"b', "x,y\nz", "", "", "1.50"]


async def test_what_a_spreadsheet_would_run_is_a_text(reader_url: str) -> None:
    statement = """SELECT '=1+1' AS "=2", -2.5 AS number, '@a' AS name"""
    assert await download(reader_url, statement, "csv") == "'=2,number,name\r\n'=1+1,-2.5,'@a\r\n"
    raw = b"".join([piece async for piece in export(reader_url, statement, "csv", raw=True)])
    assert raw == b"=2,number,name\r\n=1+1,-2.5,@a\r\n"


async def test_writes_json_lines_with_types_as_they_are(reader_url: str) -> None:
    statement = """SELECT 1 AS id, 2 AS id, 1.5::float8 AS x, 'NaN'::float8 AS nan, true AS yes, NULL AS none,
        ARRAY['a', NULL] AS list, '{"b": [1, "é"]}'::jsonb AS object, E'tab\\t"\u202e' AS text,
        12345678901234567890 AS big"""
    [line] = (await download(reader_url, statement, "jsonl")).splitlines()
    assert json.loads(line) == {
        "id": 1,
        "id_2": 2,
        "x": 1.5,
        "nan": "NaN",
        "yes": True,
        "none": None,
        "list": ["a", None],
        "object": {"b": [1, "é"]},
        "text": 'tab\t"\u202e',
        "big": 12345678901234567890,
    }


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("", "no query"),
        ("SELECT 1; SELECT 2", "only one statement"),
        ("SELECT 1; RESET ROLE; SELECT * FROM private", "only one statement"),
        ("SELECT 1) AS q; DROP TABLE headrace.messages; --", "syntax error"),
        ("RESET ROLE", "A query begins"),
        ("SET ROLE postgres", "A query begins"),
        ("SET SESSION AUTHORIZATION DEFAULT", "A query begins"),
        ("COPY checkpoints TO PROGRAM 'id'", "A query begins"),
        ("BEGIN; COMMIT", "A query begins"),
        ("DELETE FROM checkpoints", "A query begins"),
        ("EXPLAIN ANALYZE DELETE FROM checkpoints", "read-only"),
        ("EXPLAIN SELECT 1; SELECT 2", "only one statement"),
        ("EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1", "permission denied"),
        ("WITH gone AS (DELETE FROM checkpoints RETURNING 1) SELECT * FROM gone", "data-modifying"),
        ("SELECT * INTO mine FROM checkpoints", "INTO"),
        ("SELECT * FROM checkpoints FOR UPDATE", "read-only"),
        ("SELECT * FROM private", "does not exist"),
        ("SELECT * FROM public.private", "permission denied"),
        ("SELECT * FROM pg_authid", "permission denied"),
        ("SELECT pg_read_file('/etc/passwd')", "permission denied"),
        ("SELECT pg_ls_dir('/')", "permission denied"),
        ("SELECT lo_from_bytea(0, 'x')", "permission denied"),
        ("SELECT pg_reload_conf()", "permission denied"),
        ("SELECT set_config('role', 'postgres', false)", "permission denied"),
        ("SELECT set_config('session_authorization', 'postgres', false)", "permission denied"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "read-write mode"),
        ("SELECT query_to_xml('delete from headrace_projection.checkpoints', true, true, '')", "not allowed"),
        ("SELECT query_to_xml('create temporary table mine (a int)', true, true, '')", "not allowed"),
        ("SELECT \0", "characters"),
        ("SELECT '\ud800'", "characters"),
        ("SELECT", "no columns"),
    ],
)
async def test_refuses_all_else(reader_url: str, statement: str, said: str) -> None:
    assert said.lower() in await refusal(reader_url, statement)


async def test_a_role_that_is_reset_is_the_same(reader_url: str) -> None:
    """The login itself is the reader: `SET ROLE` would only have hidden its rights."""
    escapes = "set_config('role', 'none', false), set_config('role', session_user, false)"
    user = str(conninfo_to_dict(reader_url)["user"])
    found = await run(reader_url, f"SELECT {escapes}, current_user::text, session_user::text")
    assert found.rows[0][2:] == (user, user)
    secret = f"SELECT {escapes}, query_to_xml('select words from public.private', true, true, '')"
    assert "permission denied" in await refusal(reader_url, secret)
    owned = (
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = user"
    )
    assert (await run(reader_url, owned)).rows == [("false",) * 5]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM headrace_projection.checkpoints",
        "CREATE TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "SELECT * FROM private",
        "COPY headrace_projection.checkpoints TO PROGRAM 'id'",
        "COPY headrace_projection.checkpoints TO '/tmp/checkpoints'",
    ],
)
async def test_the_login_can_only_read(reader_url: str, statement: str) -> None:
    """Even outside of what runs queries, with resets before."""
    async with await psycopg.AsyncConnection.connect(reader_url, autocommit=True) as reader:
        await reader.execute("RESET ROLE; RESET SESSION AUTHORIZATION; RESET ALL")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await reader.execute(statement.encode())


async def test_leaves_nothing_behind(reader_url: str) -> None:
    """Every query has a session of its own."""
    await run(reader_url, "SELECT set_config('search_path', 'public', false), setseed(0.5)")
    again = await run(reader_url, "SELECT current_setting('search_path')")
    assert again.rows == [("headrace, headrace_projection",)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_sleep(60)",
        "SELECT count(*) FROM generate_series(1, 10000000000)",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(0.2) FROM generate_series(1, 1000)",
        "EXPLAIN ANALYZE SELECT pg_sleep(60)",
    ],
)
async def test_has_a_time_limit(reader_url: str, statement: str) -> None:
    began = perf_counter()
    with pytest.raises(Refused, match="longer than"):
        await run(reader_url, statement, within_s=0.3)
    assert perf_counter() - began < 5
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = user AND pid <> pg_backend_pid()"
    async with asyncio.timeout(5):
        while (await run(reader_url, idle)).rows != [("0",)]:
            await asyncio.sleep(0.05)


async def test_says_where_the_mistake_is(reader_url: str) -> None:
    with pytest.raises(Refused, match='Column "nmae" does not exist') as refused:
        await run(reader_url, "SELECT id\n  , nmae FROM apps")
    assert (refused.value.line, refused.value.column) == (2, 5)


async def test_shows_only_the_beginning(reader_url: str) -> None:
    many = await run(reader_url, "SELECT * FROM generate_series(1, 100000)")
    assert many.more
    assert len(many.rows) == query.SHOWN_ROWS
    wide = await run(reader_url, "SELECT repeat('x', 100000000)")
    assert len(wide.rows[0][0] or "") == query.SHOWN_CELL + 1


async def test_downloads_without_growing(reader_url: str) -> None:
    """200 MB pass through in pieces."""
    await download(reader_url, "SELECT 1", "jsonl")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = rows = largest = 0
    statement = "SELECT n, repeat(md5(n::text), 3200) AS text FROM generate_series(1, 2000) AS n"
    async for piece in export(reader_url, statement, "jsonl"):
        size, rows, largest = size + len(piece), rows + piece.count(b"\n"), max(largest, len(piece))
    assert rows == 2000
    assert size > 200e6
    assert largest < 8e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_a_download_does_not_take_values_without_bound(reader_url: str) -> None:
    with pytest.raises(Refused, match="more than 8,388,608 characters"):
        await download(reader_url, "SELECT repeat('x', 500000000)", "csv")


async def test_refuses_a_login_that_can_do_more(module_database_url: str) -> None:
    assert "can do more than read" in await refusal(module_database_url, "SELECT 1")
    async with await psycopg.AsyncConnection.connect(module_database_url, autocommit=True) as owner:
        await owner.execute("CREATE ROLE other NOLOGIN; GRANT SELECT ON private TO other")
        await owner.execute("CREATE ROLE reads_both LOGIN PASSWORD 'x' IN ROLE headrace_reader, other")
        url = psycopg.conninfo.make_conninfo(module_database_url, user="reads_both", password="x")
        assert "has the roles other" in await refusal(url, "SELECT 1")
        await owner.execute("DROP OWNED BY other; DROP ROLE reads_both; DROP ROLE other")
