"""Databases as tools: they are only read, within limits, and by the tenants that the operator has named."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from adapters.sandbox.choice import choose
from adapters.tools.sql.answer import LONGEST, MOST_ROWS, table
from adapters.tools.sql.connections import connections
from adapters.tools.sql.postgres import PostgresDatabase
from adapters.tools.sql.toolbox import SqlToolbox, SqlToolboxes
from domain.tools.tool import Definition
from domain.tools.toolset import Toolset
from handlers.ports.tools import ToolError
from tests.adapters.tools.test_builtin import invocation
from tests.domain.scenario import NOW
from tests.domain.tools.test_toolset import SETTINGS
from tests.memory import Memory, MemoryBlobs

QUERY = Definition(name="query", label="", description="", parameters={}, destructive=False, idempotent=True)


def toolset(timeout_s: float = 10.0, **settings: Any) -> Toolset:
    place = {"kind": "sql", "settings": {"connection": None, "digest": None} | settings, "timeout_s": timeout_s}
    return Toolset.begin(Toolset.Registered, "sales", NOW, **{**SETTINGS, **place})


async def ask(box: SqlToolbox, statement: str) -> str:
    return (await box.call(invocation(QUERY, statement=statement))).text


async def refused(box: SqlToolbox, statement: str) -> tuple[str, str]:
    with pytest.raises(ToolError) as caught:
        await ask(box, statement)
    return caught.value.code, caught.value.reason


# --- SQLite files --------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> bytes:
    path = tmp_path / "sales.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sales (city TEXT, amount REAL)")
        connection.executemany("INSERT INTO sales VALUES (?, ?)", [("Paris", 2.5), ("Rome", 4), ("Oslo", None)])
    connection.close()
    return path.read_bytes()


@pytest.fixture
async def boxes() -> AsyncIterator[SqlToolboxes]:
    named = connections('{"sales": {"url": "postgresql://127.0.0.1:1/x", "tenants": ["acme"]}}')
    chosen = await choose("auto")
    async with SqlToolboxes(chosen.sandbox, MemoryBlobs(Memory()), named) as found:
        yield found


async def box_of(boxes: SqlToolboxes, file: bytes, timeout_s: float = 10.0) -> SqlToolbox:
    digest = await boxes._blobs.put("mill", file)
    return boxes("mill", toolset(timeout_s, digest=digest))


async def test_a_file_is_queried(boxes: SqlToolboxes, file: bytes) -> None:
    box = await box_of(boxes, file)
    [query] = (await box.list()).tools
    assert "CREATE TABLE sales (city TEXT, amount REAL)" in query["description"]
    found = await ask(box, "SELECT city, amount FROM sales ORDER BY city")
    assert found == "| city | amount |\n|---|---|\n| Oslo | NULL |\n| Paris | 2.5 |\n| Rome | 4.0 |\n\n3 rows."


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM sales",
        "UPDATE sales SET amount = 0",
        "CREATE TABLE x (y)",
        "DROP TABLE sales",
        "ATTACH '/etc/passwd' AS x",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "VACUUM INTO '/tmp/x'",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT 1; DELETE FROM sales",
        "BEGIN",
        "SELEC 1",
        "",
    ],
)
async def test_a_file_is_only_read(boxes: SqlToolboxes, file: bytes, statement: str) -> None:
    box = await box_of(boxes, file)
    code, reason = await refused(box, statement)
    assert (code, reason.startswith("The database refused it: ")) == ("bad_request", True)
    assert await ask(box, "SELECT count(*) FROM sales") == "| count(*) |\n|---|\n| 3 |\n\n1 rows."


async def test_what_takes_too_long_ends(boxes: SqlToolboxes, file: bytes) -> None:
    box = await box_of(boxes, file, timeout_s=1.0)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    assert await refused(box, endless) == ("timeout", "The query took longer than 1 s.")
    large = "SELECT zeroblob(1000000000) || zeroblob(1000000000)"
    assert (await refused(box, large))[0] in ("bad_request", "server_error", "timeout")
    assert "3 rows" in await ask(box, "SELECT * FROM sales")


async def test_what_is_no_file_of_this_kind_is_refused(boxes: SqlToolboxes) -> None:
    box = await box_of(boxes, b"SQLite format 3\0" + b"\xff" * 4000)
    with pytest.raises(ToolError) as caught:
        await box.list()
    assert caught.value.code == "bad_request"
    with pytest.raises(ToolError) as caught:
        await boxes("mill", toolset(digest="0" * 64)).list()
    assert caught.value.code == "not_found"


# --- connections of the operator -----------------------------------------------------------------------------------


def test_a_connection_is_for_the_tenants_that_the_operator_has_named(boxes: SqlToolboxes) -> None:
    boxes("acme", toolset(connection="sales"))
    for tenant, name in (("mill", "sales"), ("acme", "other")):
        with pytest.raises(ToolError) as caught:
            boxes(tenant, toolset(connection=name))
        assert caught.value.code == "not_found"


@pytest.mark.parametrize("text", ["x", "[]", '{"a": {"url": "u"}}', '{"a": {"url": "u", "tenants": []}}'])
def test_a_setting_that_names_no_connections_says_how(text: str) -> None:
    with pytest.raises(ValueError, match="must be like"):
        connections(text)


async def test_a_database_that_does_not_answer_is_named_by_no_address() -> None:
    with pytest.raises(ToolError) as caught:
        await PostgresDatabase("postgresql://reader:secret@127.0.0.1:1/x", 5.0).schema()
    assert (caught.value.code, caught.value.reason) == ("unreachable", "The database does not answer.")


@pytest.fixture
async def reader(postgres_url: str) -> AsyncIterator[str]:
    """The address of a login that reads one table."""
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE public.harvest (year int, tons numeric)")
        await connection.execute("INSERT INTO public.harvest SELECT 1800 + n, n FROM generate_series(1, 300) n")
        await connection.execute("CREATE ROLE harvest_reader LOGIN PASSWORD 'harvest'")
        await connection.execute("GRANT SELECT, INSERT ON public.harvest TO harvest_reader")
        yield psycopg.conninfo.make_conninfo(postgres_url, user="harvest_reader", password="harvest")
        await connection.execute("DROP TABLE public.harvest")
        await connection.execute("DROP OWNED BY harvest_reader; DROP ROLE harvest_reader")


async def test_a_database_is_queried_and_only_read(reader: str, postgres_url: str) -> None:
    box = SqlToolbox(PostgresDatabase(reader, 2.0), "Harvests since 1801.")
    [query] = (await box.list()).tools
    assert "Harvests since 1801." in query["description"]
    assert "public.harvest: year integer, tons numeric" in query["description"]
    assert await ask(box, "SELECT max(tons) FROM harvest") == "| max |\n|---|\n| 300 |\n\n1 rows."
    assert (await ask(box, "SELECT * FROM harvest")).endswith(f"{MOST_ROWS} rows; there are more: narrow the query.")
    for statement in (
        "INSERT INTO harvest VALUES (1, 1)",
        "WITH x AS (INSERT INTO harvest VALUES (1, 1) RETURNING 1) SELECT * FROM x",
        "SET transaction_read_only = off",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT 1; SELECT 2",
        "COPY harvest TO '/tmp/x'",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE TEMP TABLE x (y int)",
    ):
        code, _ = await refused(box, statement)
        assert code == "bad_request", statement
    assert await ask(box, "SELECT 1 AS a WHERE false") == "0 rows."
    assert await ask(box, "SELECT 1 AS a, 2 AS a, NULL AS b -- three;") == (
        "| a | a | b |\n|---|---|---|\n| 1 | 2 | NULL |\n\n1 rows."
    )
    assert len(await ask(box, "SELECT repeat('x', 1000000)")) < 1000
    assert (await refused(box, "SELECT repeat('x', 1000000000)"))[0] == "bad_request"
    assert await refused(box, "SELECT pg_sleep(60)") == (
        "bad_request",
        "The database refused it: canceling statement due to statement timeout.",
    )
    superuser = SqlToolbox(PostgresDatabase(postgres_url, 2.0), "")
    assert (await refused(superuser, "SELECT 1"))[0] == "unsupported"


def test_a_result_is_bounded() -> None:
    found = table(["a|b"], [["x" * 10_000, "y\nz"]] * 150)
    assert len(found) <= LONGEST + 100
    assert found.startswith("| a\\|b |")
    assert "there are more" in found
