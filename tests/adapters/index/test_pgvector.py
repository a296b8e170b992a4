from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from adapters.index.pgvector.store import PgvectorStore, pgvector_index
from adapters.index.pgvector.tables import set_up
from adapters.index.versions.index import VersionedIndex
from adapters.index.versions.state import drop, outdated, state
from handlers.ports.index import Entry
from handlers.ports.log import Unavailable

Connection = AsyncConnection[TupleRow]

MODEL = "a-model"


def entries(count: int, content: str = "Water runs") -> list[Entry]:
    vectors = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
    return [Entry(str(uuid4()), n, content, None, None, vector) for n, vector in enumerate(vectors)]


@pytest.fixture
async def index(database_url: str) -> AsyncIterator[VersionedIndex]:
    """An index with one version and nothing in it."""
    await set_up(database_url)
    async with pgvector_index(database_url, connections=4) as index:
        passing = str(uuid4())
        await index.write("acme", passing, str(uuid4()), entries(1), model=MODEL, version=1)
        await index.delete("acme", passing, version=1)
        yield index


@pytest.fixture
async def connection(index: VersionedIndex, database_url: str) -> AsyncIterator[Connection]:
    """A connection of someone else to the index's database."""
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def one(connection: Connection, query: str, *parameters: object) -> TupleRow:
    row = await (await connection.execute(query.encode(), parameters)).fetchone()
    assert row is not None
    return row


async def counts(connection: Connection) -> tuple[int, int, int, int]:
    """Segments, postings, and the segments and words that the statistics say."""
    segments, postings, counted, length = await one(
        connection,
        """
        SELECT (SELECT count(*) FROM headrace_index.segments_1), (SELECT count(*) FROM headrace_index.postings_1),
            (SELECT coalesce(sum(segments), 0)::int FROM headrace_index.statistics_1),
            (SELECT coalesce(sum(length), 0)::int FROM headrace_index.statistics_1)
        """,
    )
    return segments, postings, counted, length


@asynccontextmanager
async def locked(connection: Connection, table: str) -> AsyncIterator[None]:
    """Block all access to the table."""
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE headrace_index.{table}".encode())
        yield


async def waiting(url: str, sessions: int) -> None:
    """Return when `sessions` other sessions of the database wait for a lock."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        for _ in range(1000):
            if (await one(connection, query))[0] >= sessions:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"Fewer than {sessions} sessions wait.")


async def test_any_number_may_set_up_at_once(database_url: str) -> None:
    await asyncio.gather(*(set_up(database_url) for _ in range(8)))
    await set_up(database_url)


async def test_every_table_and_column_has_a_comment(connection: Connection) -> None:
    query = """
        SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = 'headrace_index'::regnamespace AND relkind = 'r' AND attnum >= 0 AND NOT attisdropped
            AND (col_description(pg_class.oid, attnum) IS NULL OR obj_description(pg_class.oid, 'pg_class') IS NULL)
    """
    assert await (await connection.execute(query.encode())).fetchall() == []
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'headrace_index'"
    assert await one(connection, tables) == (8,)


async def test_a_dropped_index_is_waited_for(index: VersionedIndex, connection: Connection, database_url: str) -> None:
    dataset = str(uuid4())
    await index.write("acme", dataset, str(uuid4()), entries(1), model=MODEL, version=1)
    await connection.execute("DROP SCHEMA headrace_index CASCADE")
    with pytest.raises(Unavailable, match="must be rebuilt"):
        await index.search("acme", [dataset], "water", None, model=MODEL, mode="full_text", top_k=5)
    with pytest.raises(Unavailable, match="must be rebuilt"):
        await index.write("acme", dataset, str(uuid4()), entries(1), model=MODEL, version=1)
    with pytest.raises(Unavailable, match="must be rebuilt"):
        await index.delete("acme", dataset, version=1)
    await set_up(database_url)
    assert await index.search("acme", [dataset], "water", None, model=MODEL, mode="full_text", top_k=5) == []


async def test_the_state_of_versions_and_builds(
    index: VersionedIndex, connection: Connection, database_url: str
) -> None:
    dataset, document, written = str(uuid4()), str(uuid4()), entries(3)
    await index.write("acme", dataset, document, written, model=MODEL, version=1)
    async with index.build("acme", dataset) as build:
        await build.begin("other", 100)
        await build.open("other", 4)
        await build.write("acme", dataset, document, written[:2], model="other", version=1)
        await build.reach(7, 100)
        found = await state(database_url, PgvectorStore())
        assert [(v.number, v.model, v.state, v.datasets, v.segments) for v in found.versions] == [
            (1, MODEL, "searched", 1, 3),
            (2, "other", "built", 0, 2),
        ]
        [building] = found.builds
        assert (building.dataset, building.reached, building.goal, building.running) == (dataset, 7, 100, True)
        assert not await drop(database_url, PgvectorStore(), 1)
        assert not await drop(database_url, PgvectorStore(), 2)
        async with build.swap(keep_old=True):
            pass
    found = await state(database_url, PgvectorStore())
    assert [(version.number, version.state) for version in found.versions] == [(1, "kept"), (2, "searched")]
    assert found.builds == []
    assert [await drop(database_url, PgvectorStore(), number) for number in (1, 2, 3)] == [True, False, False]
    assert await one(connection, "SELECT to_regclass('headrace_index.segments_1')") == (None,)


async def test_the_vectors_of_a_build_are_indexed_before_it_is_searched(
    index: VersionedIndex, connection: Connection
) -> None:
    async with index.build() as build:
        await build.begin("plan", 0)
        await build.open(MODEL, 4)
        indexed = "SELECT to_regclass('headrace_index.segments_2_embedding') IS NOT NULL"
        assert await one(connection, indexed) == (False,)
        await build.write("acme", str(uuid4()), str(uuid4()), entries(3), model=MODEL, version=1)
        await build.complete()
        assert await one(connection, indexed) == (True,)
        await build.complete()


async def test_statistics_are_what_the_tables_hold(index: VersionedIndex, connection: Connection) -> None:
    dataset, documents = str(uuid4()), [str(uuid4()) for _ in range(12)]
    written = [entries(5, f"Water runs and runs {n}") for n in range(12)]
    writes = [
        index.write("acme", dataset, d, e, model=MODEL, version=1) for d, e in zip(documents, written, strict=True)
    ]
    await asyncio.gather(
        *writes, *[index.write("acme", dataset, documents[0], written[0], model=MODEL, version=1) for _ in range(3)]
    )
    assert await counts(connection) == (60, 180, 60, 240)
    shorter = [Entry(e.id, e.position, "Water", None, None, e.vector) for e in written[0]]
    await index.write("acme", dataset, documents[0], shorter, model=MODEL, version=1)
    assert await counts(connection) == (60, 170, 60, 225)
    await asyncio.gather(*(index.delete("acme", dataset, document, version=1) for document in documents[1:]))
    assert await counts(connection) == (5, 5, 5, 5)
    await index.write("acme", str(uuid4()), documents[0], entries(1), model=MODEL, version=1)
    await index.delete("acme", dataset, version=1)
    assert await counts(connection) == (1, 2, 1, 2)


@pytest.mark.parametrize("whole_dataset", [False, True])
async def test_a_delete_waits_for_the_write_that_came_first(
    index: VersionedIndex, connection: Connection, database_url: str, whole_dataset: bool
) -> None:
    dataset, document = str(uuid4()), str(uuid4())
    async with asyncio.TaskGroup() as tasks, locked(connection, "segments_1"):
        tasks.create_task(index.write("acme", dataset, document, entries(3), model=MODEL, version=1))
        await waiting(database_url, 1)
        tasks.create_task(index.delete("acme", dataset, None if whole_dataset else document, version=1))
        await waiting(database_url, 2)
    assert await counts(connection) == (0, 0, 0, 0)


@pytest.mark.parametrize("whole_dataset", [False, True])
async def test_a_write_waits_for_the_delete_that_came_first(
    index: VersionedIndex, connection: Connection, database_url: str, whole_dataset: bool
) -> None:
    dataset, document = str(uuid4()), str(uuid4())
    async with asyncio.TaskGroup() as tasks, locked(connection, "segments_1"):
        tasks.create_task(index.delete("acme", dataset, None if whole_dataset else document, version=1))
        await waiting(database_url, 1)
        tasks.create_task(index.write("acme", dataset, document, entries(3), model=MODEL, version=1))
        await waiting(database_url, 2)
    assert await counts(connection) == (0, 0, 0, 0)


async def test_documents_of_a_dataset_do_not_wait_for_one_another(
    index: VersionedIndex, connection: Connection, database_url: str
) -> None:
    dataset, slow, quick = str(uuid4()), str(uuid4()), str(uuid4())
    slow_entries = entries(1)
    await index.write("acme", dataset, slow, slow_entries, model=MODEL, version=1)
    async with asyncio.TaskGroup() as tasks, connection.transaction():
        await connection.execute("SELECT 1 FROM headrace_index.segments_1 FOR UPDATE")
        tasks.create_task(index.write("acme", dataset, slow, slow_entries, model=MODEL, version=1))
        await waiting(database_url, 1)
        await asyncio.wait_for(index.write("acme", dataset, quick, entries(2), model=MODEL, version=1), 10)
        hits = await index.search("acme", [dataset], "water", None, model=MODEL, mode="full_text", top_k=9)
        assert len(hits) == 3


async def test_searches_find_a_connection_while_writers_wait(
    index: VersionedIndex, connection: Connection, database_url: str
) -> None:
    dataset, document = str(uuid4()), str(uuid4())
    written = entries(1)
    await index.write("acme", dataset, document, written, model=MODEL, version=1)
    async with asyncio.TaskGroup() as tasks, connection.transaction():
        await connection.execute("SELECT 1 FROM headrace_index.segments_1 FOR UPDATE")
        for _ in range(20):
            tasks.create_task(index.write("acme", dataset, document, written, model=MODEL, version=1))
        await waiting(database_url, 2)
        hits = await index.search("acme", [dataset], "water", None, model=MODEL, mode="full_text", top_k=9)
        assert [hit.id for hit in hits] == [written[0].id]
    assert await counts(connection) == (1, 2, 1, 2)


async def test_a_write_that_fails_leaves_nothing(index: VersionedIndex, connection: Connection) -> None:
    broken = [*entries(3), Entry(str(uuid4()), 3, "Water", None, None, np.zeros(5, np.float32))]
    with pytest.raises(psycopg.DataError, match="expected 4 dimensions"):
        await index.write("acme", str(uuid4()), str(uuid4()), broken, model=MODEL, version=1)
    assert await counts(connection) == (0, 0, 0, 0)


async def test_the_searches_use_the_indexes(index: VersionedIndex, connection: Connection, database_url: str) -> None:
    """Planned while the tables are all but empty, they must still not read whole tables when these have grown."""
    dataset, vector = str(uuid4()), np.ones(4, np.float32)
    async with pgvector_index(database_url, connections=1, exact=0) as approximate:
        for count, found in ((1, 1), (300, 5)):
            await approximate.write("acme", dataset, str(uuid4()), entries(count), model=MODEL, version=1)
            hits = await approximate.search("acme", [dataset], "water", vector, model=MODEL, mode="hybrid", top_k=5)
            assert len(hits) == found
    query = "SELECT min(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname = ANY (%s)"
    for _ in range(1000):  # the counts come a moment after the connection is closed
        if (await one(connection, query, ["segments_1_embedding", "postings_1_pkey"]))[0] > 0:
            return
        await asyncio.sleep(0.01)
    pytest.fail("A search has read a whole table.")


async def test_a_search_that_takes_too_long(index: VersionedIndex, connection: Connection, database_url: str) -> None:
    dataset = str(uuid4())
    await index.write("acme", dataset, str(uuid4()), entries(1), model=MODEL, version=1)
    async with pgvector_index(database_url, connections=1, timeout_s=0.2) as hasty:
        async with locked(connection, "segments_1"):
            with pytest.raises(Unavailable, match="did not answer within"):
                await hasty.search("acme", [dataset], "water", None, model=MODEL, mode="full_text", top_k=5)
        assert len(await hasty.search("acme", [dataset], "water", None, model=MODEL, mode="full_text", top_k=5)) == 1


async def test_a_lost_connection_is_replaced(index: VersionedIndex, connection: Connection) -> None:
    dataset = str(uuid4())
    await index.write("acme", dataset, str(uuid4()), entries(1), model=MODEL, version=1)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for _ in range(20):
        try:
            hits = await index.search("acme", [dataset], "water", None, model=MODEL, mode="full_text", top_k=5)
        except Unavailable:
            await asyncio.sleep(0.05)
        else:
            assert len(hits) == 1
            break
    else:
        pytest.fail("No connection came back.")


async def test_no_server(unused_tcp_port: int) -> None:
    url = f"postgresql://headrace@127.0.0.1:{unused_tcp_port}/headrace"
    with pytest.raises(Unavailable):
        await set_up(url)
    async with pgvector_index(url, timeout_s=0.2) as index:
        with pytest.raises(Unavailable):
            await index.search("acme", [str(uuid4())], "water", None, model=MODEL, mode="full_text", top_k=5)
        with pytest.raises(Unavailable):
            await index.write("acme", str(uuid4()), str(uuid4()), entries(1), model=MODEL, version=1)
        with pytest.raises(Unavailable):
            await index.delete("acme", str(uuid4()), version=1)


async def test_an_index_whose_words_other_rules_made_is_known_and_takes_no_new_dataset(
    index: VersionedIndex, connection: Connection, database_url: str
) -> None:
    """Its tables, made by an earlier version of Headrace, have no column for the rules."""
    store, old, new = PgvectorStore(), str(uuid4()), str(uuid4())
    await index.write("acme", old, str(uuid4()), entries(2), model=MODEL, version=1)
    await connection.execute("ALTER TABLE headrace_index.versions DROP COLUMN rules")
    assert [version.outdated for version in (await state(database_url, store)).versions] == [True]
    assert await outdated(database_url, store) == 1
    await set_up(database_url)
    await set_up(database_url)
    assert await outdated(database_url, store) == 1
    await index.write("acme", new, str(uuid4()), entries(3), model=MODEL, version=2)
    await index.write("acme", old, str(uuid4()), entries(1), model=MODEL, version=3)
    assert [(each.datasets, each.outdated) for each in (await state(database_url, store)).versions] == [
        *((1, True), (1, False))
    ]
    hits = await index.search("acme", [old, new], "water", None, model=MODEL, mode="full_text", top_k=9)
    assert len(hits) == 6
    async with index.build() as build:
        await build.begin(str(uuid4()), 0)
        await build.open(MODEL, 4)
        await build.write("acme", old, str(uuid4()), entries(2), model=MODEL, version=4)
        async with build.swap():
            pass
    assert await outdated(database_url, store) == 0
    assert await outdated(database_url.rpartition("/")[0] + "/postgres", store) == 0
