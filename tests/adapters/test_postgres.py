"""The read tables on a real PostgreSQL, from logs that hold what real aggregates recorded."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from adapters.postgres import compare, copy, feed, rebuild, rules, tables, writer
from adapters.postgres.projector import Halted, Projector
from adapters.postgres.scrub import PostgresScrub
from adapters.postgres.sql_roles import PostgresSqlRoles
from adapters.privacy.scram import new_password, verifier
from domain.access.end_user import EndUser
from domain.access.sql_login import role_of
from domain.aggregate import new_id
from domain.log import EVENTS, OUTCOMES, Position, Recorded
from domain.models.model_call import ModelCall
from handlers.files import Files
from handlers.ports.log import Log
from projections.apps import apps
from projections.catalog import READ_MODELS
from projections.engine.values import BUILT_IN, Values
from projections.values.prices import Prices
from tests.memory import Memory, MemoryKeys
from tests.projections.history import History, Tables
from tests.projections.wandering import wander


class RecordedLog:
    """A history as a log that grows while it is read."""

    def __init__(self, history: History, chunk: int = 7) -> None:
        self.history = history
        self.chunk = chunk
        self.reads = 0
        self.begun: list[tuple[str, int]] = []

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        self.begun.append((stream, after))
        messages = self.history.streams[stream]
        last = len(messages)
        while follow or after < last:
            chunk = messages[after : min(after + self.chunk, len(messages) if follow else last)]
            if chunk:
                self.reads += 1
                yield chunk
                after += len(chunk)
            else:
                await asyncio.sleep(0.01)


async def grow(history: History, later: History) -> None:
    """Add what the later one holds, little by little."""
    for stream, messages in later.streams.items():
        for start in range(0, len(messages), 20):
            history.streams[stream].extend(messages[start : start + 20])
            await asyncio.sleep(0.05)


class _RecordedBlobs:
    def __init__(self, history: History) -> None:
        self.history = history

    async def put(self, tenant: str, data: bytes) -> str:
        raise NotImplementedError

    async def get(self, tenant: str, digest: str) -> bytes:
        return self.history.blobs[tenant, digest]

    async def size(self, tenant: str, digest: str) -> int | None:
        raise NotImplementedError

    async def keep(self, tenant: str, digest: str) -> int | None:
        raise NotImplementedError


class _Unsealed(MemoryKeys):
    """The blobs of a history are in plain."""

    async def open(self, tenant: str, person: str, kind: str, sealed: bytes) -> bytes:
        return sealed


def recorded_files(history: History) -> Files:
    return Files(_RecordedBlobs(history), _Unsealed(Memory()))


@asynccontextmanager
async def projecting(url: str, log: Log, files: Files) -> AsyncIterator[asyncio.Task[None]]:
    """A projector at work."""
    task = asyncio.create_task(Projector(url, log, files).run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Halted):
            await task


def following(url: str, history: History) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    return projecting(url, RecordedLog(history), recorded_files(history))


async def caught_up(url: str, history: History) -> None:
    for stream, messages in history.streams.items():
        await tables.wait_for(url, Position(stream, len(messages)), timeout_s=60)


async def halted(connection: AsyncConnection[TupleRow]) -> dict[str, str]:
    """The groups that have halted, once one has."""
    async with asyncio.timeout(20):
        while not (found := await tables.halted(connection)):
            await asyncio.sleep(0.02)
    return found


async def rebuilt(url: str, history: History, *names: str, values: Values = BUILT_IN) -> list[str]:
    return await rebuild.rebuild(url, RecordedLog(history), recorded_files(history), names, values=values)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    async with tables.connect(database_url) as connection:
        yield connection


async def query(connection: AsyncConnection[TupleRow], statement: str) -> list[Any]:
    """The rows of a statement; of one column, its values."""
    rows = await (await connection.execute(statement.encode())).fetchall()
    return [row[0] if len(row) == 1 else row for row in rows]


async def test_tables_hold_what_the_fold_says(database_url: str, connection: AsyncConnection[TupleRow]) -> None:
    history = wander(Random(3), 400, few=8)
    async with following(database_url, history):
        await caught_up(database_url, history)
    expected = Tables()
    expected.apply(history.messages, history.blobs)
    for model in READ_MODELS:
        cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
        await cursor.execute(f"SELECT * FROM headrace.{model.name} ORDER BY tenant_id, {model.key}".encode())
        assert await cursor.fetchall() == expected.rows(model), model
    assert len(expected.rows(apps)) > 3


@pytest.mark.parametrize("seed", range(3))
async def test_live_and_rebuilt_tables_are_equal_row_for_row(
    database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = wander(Random(seed), 500, few=6)
    monkeypatch.setattr(feed, "BATCH", 11)
    async with following(database_url, history):
        await caught_up(database_url, history)
    live = await tables.table_digests(database_url)
    monkeypatch.setattr(feed, "BATCH", 170)
    monkeypatch.setattr(writer, "MANY", 1)
    assert len(await rebuilt(database_url, history)) == len(READ_MODELS)
    assert await tables.table_digests(database_url) == live
    assert live["documents"] != live["apps"]
    async with tables.connect(database_url) as connection:
        assert await query(connection, "SELECT to_regnamespace('headrace_next')::text") == [None]


async def test_a_rebuild_while_the_log_grows_loses_nothing_and_blocks_no_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, later = wander(Random(5), 300), wander(Random(5), 1500, few=12)
    for stream in history.streams:
        history.streams[stream].clear()
    history.blobs = later.blobs
    monkeypatch.setattr(copy, "NEAR", 20)

    async with following(database_url, history) as projector:
        growing = asyncio.create_task(grow(history, later))
        while not growing.done():
            await rebuilt(database_url, history)
        await growing
        await caught_up(database_url, history)
        assert not projector.done()
    live = await tables.table_digests(database_url)
    await rebuilt(database_url, history)
    assert await tables.table_digests(database_url) == live


async def test_a_rebuild_goes_no_further_than_the_tables_that_it_leaves(database_url: str) -> None:
    history = wander(Random(7), 200)
    async with following(database_url, history):
        await caught_up(database_url, history)
    before = await tables.table_digests(database_url)
    for _ in range(30):
        history.app()
    assert await rebuilt(database_url, history, "message_feedbacks") == [
        "apps",
        "conversations",
        "messages",
        "message_feedbacks",
    ]
    assert await tables.table_digests(database_url) == before
    async with following(database_url, history):
        await caught_up(database_url, history)
    assert (await tables.table_digests(database_url))["apps"] != before["apps"]


async def test_a_rebuild_reports_its_progress(database_url: str) -> None:
    history = wander(Random(7), 200)
    async with following(database_url, history):
        await caught_up(database_url, history)
    steps: list[tuple[str, int, int]] = []
    log, files = RecordedLog(history), recorded_files(history)
    await rebuild.rebuild(database_url, log, files, progress=lambda *step: steps.append(step))
    totals = {stream: len(messages) for stream, messages in history.streams.items()}
    assert {stream: total for stream, _, total in steps} == totals
    assert {stream: max(done for name, done, _ in steps if name == stream) for stream in totals} == totals


async def cut_off(url: str, history: History) -> dict[str, int]:
    """Begin a rebuild, and end it in the middle; gives how far it came."""
    log = RecordedLog(history)
    task = asyncio.create_task(rebuild.rebuild(url, log, recorded_files(history), (), lambda *_: task.cancel()))
    with pytest.raises(asyncio.CancelledError):
        await task
    async with tables.connect(url) as connection:
        reached = dict(
            await query(
                connection,
                "SELECT stream, min(sequence) FROM headrace_projection.copies "
                "WHERE schema = 'headrace_next' GROUP BY 1",
            )
        )
    assert 0 < sum(reached.values()) < len(history.messages)
    return reached


@pytest.mark.parametrize("changed", [False, True])
async def test_a_rebuild_that_was_cut_off_goes_on_unless_the_rules_have_changed(
    database_url: str, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    history = wander(Random(9), 400, few=6)
    async with following(database_url, history):
        await caught_up(database_url, history)
    live = await tables.table_digests(database_url)
    monkeypatch.setattr(feed, "BATCH", 40)
    monkeypatch.setattr(copy, "NEAR", 20)
    reached = await cut_off(database_url, history)
    if changed:
        monkeypatch.setattr(rules, "digests", lambda: defaultdict(lambda: "others"))
    log = RecordedLog(history)
    await rebuild.rebuild(database_url, log, recorded_files(history))
    begun = {stream: after for stream, after in reversed(log.begun)}
    assert begun == ({stream: 0 for stream in begun} if changed else {stream: reached[stream] for stream in begun})
    assert await tables.table_digests(database_url) == live


async def test_what_was_cut_off_for_other_tables_is_not_taken_for_these(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = wander(Random(9), 400, few=6)
    async with following(database_url, history):
        await caught_up(database_url, history)
    live = await tables.table_digests(database_url)
    monkeypatch.setattr(feed, "BATCH", 40)
    monkeypatch.setattr(copy, "NEAR", 20)
    await cut_off(database_url, history)
    assert await rebuilt(database_url, history, "datasets") == ["datasets"]
    assert await tables.table_digests(database_url) == live


async def test_old_tables_are_kept_and_put_back(database_url: str, connection: AsyncConnection[TupleRow]) -> None:
    history = wander(Random(15), 300)
    async with following(database_url, history):
        await caught_up(database_url, history)
    await connection.execute("UPDATE headrace.apps SET description = 'Edited.'")
    before = await tables.table_digests(database_url)
    at = await tables.positions(connection)
    await rebuilt(database_url, history)
    new = await tables.table_digests(database_url)
    assert before["apps"] != new["apps"]
    assert await tables.table_digests(database_url, tables.OLD) == before
    kept = "SELECT DISTINCT stream, sequence FROM headrace_projection.copies WHERE schema = 'headrace_old'"
    assert dict(await query(connection, kept)) == at

    history.app(name="later")
    log, files = RecordedLog(history), recorded_files(history)
    async with following(database_url, history) as projector:
        await caught_up(database_url, history)
        assert await rebuild.undo(database_url, log, files) == [model.name for model in READ_MODELS]
        history.app(name="last")
        await caught_up(database_url, history)
        assert not projector.done()
    found = await query(connection, "SELECT DISTINCT description FROM headrace.apps ORDER BY 1")
    assert found == ["Answers.", "Edited."]
    assert await query(connection, "SELECT name FROM headrace.apps ORDER BY created_at DESC LIMIT 2") == [
        "last",
        "later",
    ]
    assert (await tables.table_digests(database_url))["messages"] == before["messages"]

    assert await rebuild.drop_old(database_url) == [model.name for model in READ_MODELS]
    assert await query(connection, "SELECT to_regnamespace('headrace_old')::text") == [None]
    with pytest.raises(rebuild.NothingKept):
        await rebuild.undo(database_url, log, files)


async def test_an_undo_that_was_cut_off_goes_on(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    history = wander(Random(15), 200)
    async with following(database_url, history):
        await caught_up(database_url, history)
    before = await tables.table_digests(database_url)
    await rebuilt(database_url, history)
    log, files = RecordedLog(history), recorded_files(history)
    with monkeypatch.context() as patch:
        patch.setattr(copy.Copy, "near", None)
        with pytest.raises(TypeError):
            await rebuild.undo(database_url, log, files)
    await rebuild.undo(database_url, log, files)
    assert await tables.table_digests(database_url) == before


async def test_old_tables_with_other_columns_are_not_put_back(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = wander(Random(15), 100)
    async with following(database_url, history):
        await caught_up(database_url, history)
    await rebuilt(database_url, history)
    live = await tables.table_digests(database_url)
    await connection.execute("ALTER TABLE headrace_old.apps DROP COLUMN description")
    with pytest.raises(rebuild.NothingKept, match="apps"):
        await rebuild.undo(database_url, RecordedLog(history), recorded_files(history))
    assert await tables.table_digests(database_url) == live
    assert await query(connection, "SELECT to_regclass('headrace_old.apps')::text") == ["headrace_old.apps"]


async def test_a_comparison_finds_what_is_not_as_a_replay_makes_it(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = wander(Random(21), 300, few=6)
    log, files = RecordedLog(history), recorded_files(history)
    async with following(database_url, history):
        await caught_up(database_url, history)
    compared = await compare.compare(database_url, log, files)
    assert [table.table for table in compared] == [model.name for model in READ_MODELS]
    assert {(table.different, table.first, table.live - table.fresh) for table in compared} == {(0, None, 0)}
    live = {table.table: table.live for table in compared}
    assert live["apps"] == (await query(connection, "SELECT count(*) FROM headrace.apps"))[0]

    [first, second, *_] = await query(connection, "SELECT tenant_id, id FROM headrace.apps ORDER BY 1, 2")
    at = "WHERE (tenant_id, id) = (%s, %s)"
    await connection.execute(f"UPDATE headrace.apps SET name = 'x', created_by = 'y' {at}".encode(), first)
    await connection.execute(f"DELETE FROM headrace.apps {at}".encode(), second)
    await connection.execute("DELETE FROM headrace.documents")
    await connection.execute(
        "INSERT INTO headrace.tenant_default_models SELECT 'two', 'chat', 'p', 'm', now(), now(), 1"
    )
    await connection.execute("ALTER TABLE headrace.commands DROP COLUMN name")
    found = {table.table: table for table in await compare.compare(database_url, log, files)}
    assert found["apps"].different == 2
    assert found["apps"].first == f"Row {first[1]} of tenant {first[0]} differs in name, created_by."
    assert found["apps"].live == found["apps"].fresh - 1
    assert str(found["documents"].first).endswith("is missing.")
    assert found["tenant_default_models"].first == "Row chat of tenant two should not be there."
    assert "other columns" in str(found["commands"].first)
    assert found["messages"].different == 0
    assert await query(connection, "SELECT to_regnamespace('headrace_check')::text") == [None]
    assert await query(connection, "SELECT name FROM headrace.apps ORDER BY tenant_id, id LIMIT 1") == ["x"]


async def test_a_comparison_under_load_finds_nothing_and_blocks_no_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = wander(Random(25), 1000, few=12)
    history = History()
    history.blobs = later.blobs
    log, files = RecordedLog(history), recorded_files(history)
    monkeypatch.setattr(copy, "NEAR", 20)

    async with following(database_url, history) as projector:
        growing = asyncio.create_task(grow(history, later))
        while not growing.done():
            assert not [table for table in await compare.compare(database_url, log, files) if table.different]
        await growing
        await caught_up(database_url, history)
        assert not projector.done()


async def test_a_table_of_an_unknown_name_cannot_be_rebuilt(database_url: str) -> None:
    with pytest.raises(KeyError, match="lights"):
        await rebuilt(database_url, History(), "lights")


async def test_a_dropped_schema_comes_back_by_itself(
    database_url: str, connection: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = wander(Random(11), 300)
    async with following(database_url, history):
        await caught_up(database_url, history)
        live = await tables.table_digests(database_url)
        await connection.execute("DROP SCHEMA headrace CASCADE")
        history.app()
        await caught_up(database_url, history)
        del history.streams[EVENTS][-1]
    await connection.execute("DROP SCHEMA headrace CASCADE")
    await connection.execute("UPDATE headrace_projection.groups SET sequence = sequence - 1 WHERE stream = 'EVENTS'")
    await rebuilt(database_url, history)
    assert await tables.table_digests(database_url) == live


async def test_a_table_of_another_version_is_rebuilt_when_the_projector_starts(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = wander(Random(13), 200)
    async with following(database_url, history):
        await caught_up(database_url, history)
    live = await tables.table_digests(database_url)
    await connection.execute("ALTER TABLE headrace.apps DROP COLUMN description; DROP TABLE headrace.messages")
    async with following(database_url, history):
        while await tables.stale(connection):
            await asyncio.sleep(0.01)
    assert await tables.table_digests(database_url) == live


@pytest.mark.parametrize("stream", [EVENTS, OUTCOMES])
async def test_a_gap_halts_the_projector_after_what_came_before_it(database_url: str, stream: str) -> None:
    history = wander(Random(17), 300)
    messages = history.streams[stream]
    lost = len(messages) // 2
    messages[lost:] = [
        dataclasses.replace(message, position=Position(stream, message.position.sequence + 1))
        for message in messages[lost:]
    ]
    async with following(database_url, history) as task:
        with pytest.raises(Halted, match=f"Gap: Stream {stream} goes from {lost} to {lost + 2}"):
            await asyncio.wait_for(task, 20)
    async with tables.connect(database_url) as connection:
        assert (await tables.positions(connection))[stream] == lost


async def test_a_log_that_ends_before_the_tables_do_is_not_replayed(database_url: str) -> None:
    history = wander(Random(19), 100)
    async with following(database_url, history):
        await caught_up(database_url, history)
    before = await tables.table_digests(database_url)
    del history.streams[EVENTS][-1]
    with pytest.raises(feed.Gap, match="EVENTS ends at"):
        await rebuilt(database_url, history)
    assert await tables.table_digests(database_url) == before


async def test_an_event_that_no_table_knows_halts_the_projector(database_url: str) -> None:
    history = History()
    history.app()
    message = history.streams[EVENTS][0]
    history.streams[EVENTS].append(
        dataclasses.replace(message, events=[object()], position=Position(EVENTS, 2))  # type: ignore[arg-type]
    )
    async with following(database_url, history) as task:
        with pytest.raises(Halted, match="No table knows object, at EVENTS 2"):
            await asyncio.wait_for(task, 20)


async def test_a_missing_blob_halts_its_group_only_when_it_is_needed(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = History()
    dataset = history.dataset()
    document = history.document(dataset.id)
    history.split(document, ["One.", "Two."])
    history.blobs.clear()
    dataset.delete(history.now)
    history.record(dataset)
    history.index(document, 1)
    async with following(database_url, history):
        await caught_up(database_url, history)

    document = history.document(history.dataset().id)
    history.split(document, ["Three."])
    history.index(document, 1)
    history.blobs.clear()
    async with following(database_url, history) as task:
        assert str(document.segments) in (await halted(connection))["knowledge"]
        await tables.wait_for(database_url, Position(EVENTS, len(history.streams[EVENTS])), tables=["apps"])
        assert not task.done()


async def test_of_two_projectors_one_works_and_the_other_takes_over(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = History()
    logs = [RecordedLog(history) for _ in range(2)]
    tasks = [asyncio.create_task(Projector(database_url, log, recorded_files(history)).run()) for log in logs]
    for count in range(30):
        history.app(name=f"app {count}")
    await caught_up(database_url, history)
    first, second = (0, 1) if logs[0].reads else (1, 0)
    assert logs[second].reads == 0
    tasks[first].cancel()
    await asyncio.wait([tasks[first]])
    history.app(name="one more")
    await caught_up(database_url, history)
    assert logs[second].reads
    tasks[second].cancel()
    await asyncio.wait([tasks[second]])
    assert await query(connection, "SELECT count(*) FROM headrace.apps") == [31]


async def test_the_projector_goes_on_after_its_connection_was_cut(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = History()
    async with following(database_url, history) as task:
        for count in range(3):
            history.app(name=f"app {count}")
            await caught_up(database_url, history)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
        assert not task.done()
    assert await query(connection, "SELECT name FROM headrace.apps ORDER BY name") == ["app 0", "app 1", "app 2"]


async def test_rows_and_positions_are_written_together_or_not_at_all(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = History()
    await tables.set_up(database_url)
    await connection.execute("ALTER TABLE headrace.datasets ADD CONSTRAINT never CHECK (false)")
    history.app()
    history.dataset()
    history.document(history.streams[EVENTS][1].subject.id)
    async with following(database_url, history):
        assert "never" in (await halted(connection))["knowledge"]
    assert await query(connection, "SELECT count(*) FROM headrace.documents") == [0]
    assert (await tables.group_positions(connection))["knowledge"] == {EVENTS: 0, OUTCOMES: 0}
    await connection.execute("ALTER TABLE headrace.datasets DROP CONSTRAINT never")
    async with following(database_url, history):
        await caught_up(database_url, history)
    assert await query(connection, "SELECT count(*) FROM headrace.documents") == [1]


async def test_a_group_that_halts_stops_no_other_and_catches_up_later(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = wander(Random(3), 200, few=6)
    await tables.set_up(database_url)
    await connection.execute("ALTER TABLE headrace.spans ADD CONSTRAINT never CHECK (false)")
    last = {stream: len(messages) for stream, messages in history.streams.items()}
    async with following(database_url, history) as task:
        for stream, sequence in last.items():
            others = ["apps", "documents", "commands"]
            await tables.wait_for(database_url, Position(stream, sequence), 20, tables=others)
        assert "never" in (await halted(connection))["traces"]
        assert not task.done()
    reached = await tables.group_positions(connection)
    assert reached["chat"] == reached["knowledge"] == reached["work"] == last
    assert reached["traces"] == await tables.positions(connection) == {EVENTS: 0, OUTCOMES: 0}
    assert len(await rebuilt(database_url, history)) == len(READ_MODELS), "each part at its own position"
    assert await tables.group_positions(connection) == reached
    await connection.execute("ALTER TABLE headrace.spans DROP CONSTRAINT IF EXISTS never")
    async with following(database_url, history):
        await caught_up(database_url, history)
        assert await tables.halted(connection) == {}
    live = await tables.table_digests(database_url)
    await rebuilt(database_url, history)
    assert await tables.table_digests(database_url) == live
    assert await tables.positions(connection) == last


async def test_a_person_is_erased_from_the_tables_of_a_group_that_has_halted(
    database_url: str, connection: AsyncConnection[TupleRow], tmp_path: Path
) -> None:
    history = History()
    history.person = "the-person"
    history.ask(history.conversation(history.app().id))
    async with following(database_url, history):
        await caught_up(database_url, history)
    assert await query(connection, "SELECT question FROM headrace.traces") == ["How high?"]
    await connection.execute("ALTER TABLE headrace.spans ADD CONSTRAINT never CHECK (sequence < 4)")
    history.ask(history.conversation(history.app().id))
    history.person = None
    history.record(EndUser.begin(EndUser.Erased, "the-person", history.now, known=True))
    async with following(database_url, history):
        await halted(connection)
        erased = history.streams[EVENTS][-1].position
        await PostgresScrub(database_url, tmp_path)("default", "the-person", erased)
        assert await query(connection, "SELECT question, end_user FROM headrace.traces") == [("", None)]
        assert set(await query(connection, "SELECT query FROM headrace.messages")) == {""}


async def test_tables_moved_by_someone_else_halt_the_projector(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = History()
    history.app()
    async with following(database_url, history) as task:
        await caught_up(database_url, history)
        await connection.execute("UPDATE headrace_projection.groups SET sequence = 40")
        history.app()
        with pytest.raises(Halted, match="another program"):
            await asyncio.wait_for(task, 20)


@pytest.mark.parametrize("many", [1, 1000])
async def test_any_text_can_be_stored(
    database_url: str, connection: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(writer, "MANY", many)
    history = History()
    texts = ["a\0b", "\\u0000", "\\\\u0000", "שלום", "水車", "\x01\x7f\ufeff\U0001f30a", "a%sb{}", "''\";--", "\t\r\n"]
    for text in texts:
        history.app(name=text)
    document = history.document(history.dataset().id)
    history.split(document, ["nul \0 nul"])
    history.index(document, 1)
    uploaded = history.streams[EVENTS][len(texts) + 1]
    uploaded.events[0].__dict__["metadata"] = {"k\0": ["\0", {"v": "\\u0000"}]}
    async with following(database_url, history):
        await caught_up(database_url, history)
    found = await query(connection, "SELECT name FROM headrace.apps ORDER BY log_position")
    assert found == ["a\ufffdb", *texts[1:]]
    assert await query(connection, "SELECT content FROM headrace.document_segments") == ["nul \ufffd nul"]
    expected = [{"k\ufffd": ["\ufffd", {"v": "\\u0000"}]}]
    assert await query(connection, "SELECT doc_metadata FROM headrace.documents") == expected


async def test_every_table_and_column_in_the_database_has_its_comment(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    await tables.set_up(database_url)
    await rebuilt(database_url, History())
    found = await query(
        connection,
        """SELECT relname::text, coalesce(attname, '')::text, col_description(c.oid, coalesce(attnum, 0))
        FROM pg_class c LEFT JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0
        WHERE relnamespace IN ('headrace'::regnamespace, 'headrace_projection'::regnamespace) AND relkind = 'r'""",
    )
    assert all(comment for _, _, comment in found)
    expected = {(model.name, column.name): column.comment for model in READ_MODELS for column in model.table.columns}
    assert expected.items() <= {(table, column): comment for table, column, comment in found}.items()
    described = await query(connection, "SELECT obj_description('headrace.apps'::regclass)")
    assert described == [apps.table.comment]


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(errors.InsufficientPrivilege):
        yield


async def test_the_reader_can_read_the_tables_and_nothing_else(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = History()
    history.app()
    async with following(database_url, history):
        await caught_up(database_url, history)
    await rebuilt(database_url, history, "apps")
    await connection.execute("CREATE SCHEMA secrets; CREATE TABLE secrets.postings (id int)")
    await connection.execute("SET ROLE headrace_reader")
    for model in READ_MODELS:
        await query(connection, f"SELECT * FROM headrace.{model.name}")
    assert await query(connection, "SELECT name FROM headrace.apps") == ["Help"]
    assert await query(connection, "SELECT name FROM headrace_old.apps") == ["Help"]
    assert await query(connection, "SELECT sequence FROM headrace_projection.checkpoints ORDER BY stream") == [1, 0]
    for statement in (
        "DELETE FROM headrace.apps",
        "INSERT INTO headrace.datasets SELECT * FROM headrace.datasets",
        "UPDATE headrace_projection.checkpoints SET sequence = 0",
        "CREATE TABLE headrace.mine (id int)",
        "SELECT * FROM secrets.postings",
        "DROP TABLE headrace.apps",
    ):
        with refused():
            await connection.execute(statement.encode())


async def test_set_up_can_be_done_by_many_at_once_and_again(database_url: str) -> None:
    await asyncio.gather(*(tables.set_up(database_url) for _ in range(6)))
    before = await tables.table_digests(database_url)
    assert before.keys() == {model.name for model in READ_MODELS}
    await tables.set_up(database_url)
    assert await tables.table_digests(database_url) == before


async def test_tables_that_changed_before_anything_is_in_them_are_rebuilt_with_their_views(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    await tables.set_up(database_url)
    await connection.execute("ALTER TABLE headrace.apps ADD COLUMN colour text")
    await connection.execute("CREATE VIEW public.assistants AS SELECT name FROM headrace.apps")
    await tables.set_up(database_url)
    assert await tables.stale(connection) == [apps]
    history = History()
    history.app()
    async with following(database_url, history):
        await caught_up(database_url, history)
    assert await tables.stale(connection) == []
    assert await query(connection, "SELECT name FROM public.assistants") == ["Help"]


async def test_waiting_for_a_position_that_never_comes_ends(database_url: str) -> None:
    await tables.set_up(database_url)
    with pytest.raises(TimeoutError):
        await tables.wait_for(database_url, Position(EVENTS, 1), timeout_s=0.1)


async def test_a_long_reader_delays_a_rebuild_and_is_not_disturbed(
    database_url: str, connection: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "LOCK_S", 1)
    history = wander(Random(23), 100)
    async with following(database_url, history):
        await caught_up(database_url, history)
        await connection.execute("BEGIN; SELECT * FROM headrace.apps")
        task = asyncio.create_task(rebuilt(database_url, history))
        await asyncio.sleep(1.5)
        assert not task.done()
        history.app(name="meanwhile")
        await caught_up(database_url, history)
        await connection.execute("COMMIT")
        await task
    live = await tables.table_digests(database_url)
    await rebuilt(database_url, history)
    assert await tables.table_digests(database_url) == live


async def test_a_tenant_with_a_long_transaction_does_not_delay_a_rebuild(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "LOCK_S", 1)
    history, role, password = wander(Random(24), 100), role_of("acme", new_id()), new_password()
    async with following(database_url, history):
        await caught_up(database_url, history)
        roles = PostgresSqlRoles(database_url, connections=5, seconds=3600)
        await roles.make("acme", role, verifier(password))
        tenant = make_conninfo(database_url, user=role, password=password)
        busy, idle = [await AsyncConnection.connect(tenant, autocommit=True) for _ in range(2)]
        await busy.execute("BEGIN; SELECT * FROM headrace.apps")
        await asyncio.wait_for(rebuilt(database_url, history), 30)
        with pytest.raises(psycopg.OperationalError):
            await busy.execute("SELECT 1")
        await idle.execute("SELECT 1")
        for session in (busy, idle):
            await session.close()
        await roles.end(role)


async def test_a_rebuild_prices_history_again_and_a_comparison_does_not_call_that_a_difference(
    database_url: str, connection: AsyncConnection[TupleRow]
) -> None:
    history = wander(Random(7), 400, few=6)
    lab = "[[price]]\nprovider = 'lab'\ninput = 1\noutput = 1\n"
    cost = "SELECT (SELECT sum(cost) FROM headrace.{0}), (SELECT count(*) FROM headrace.{0} WHERE cost > 0)"

    values = Values(prices=Prices(lab))

    async def compared() -> dict[str, str]:
        found = await compare.compare(database_url, RecordedLog(history), recorded_files(history), values=values)
        return {each.table: each.first for each in found if each.first}

    async with following(database_url, history):
        await caught_up(database_url, history)
    listed = await query(connection, cost.format("model_calls"))
    before = await query(connection, "SELECT sum(unpriced_calls) FROM headrace.traces")
    assert listed[0][1] > 0
    assert before[0] > 0
    assert await compared() == {}
    await connection.execute("UPDATE headrace.model_calls SET model = 'other' WHERE status = 'completed'")
    assert list(await compared()) == ["model_calls"], "all that is not a price is compared"
    await rebuilt(database_url, history, values=values)
    own = await query(connection, cost.format("model_calls"))
    assert own[0][1] > listed[0][1]
    for table in ("spans", "traces"):
        assert await query(connection, f"SELECT sum(cost) FROM headrace.{table}") == [pytest.approx(own[0][0])]
    assert await query(connection, "SELECT sum(unpriced_calls) FROM headrace.traces") == [0]
    versions = "SELECT DISTINCT price_version FROM headrace.model_calls WHERE price_version IS NOT NULL"
    assert await query(connection, versions) == [values.prices.version]
    assert await compared() == {}
    await connection.execute("UPDATE headrace.spans SET cost = 7 WHERE cost IS NOT NULL")
    assert list(await compared()) == ["spans"], "by the same prices, costs are compared"


async def test_texts_in_arrays_are_copied_as_they_are(
    database_url: str, connection: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = ['a"b', "back\\slash", "{curly,comma}", "new\nline\ttab", "NULL", "", "水门", "'; --"]
    monkeypatch.setattr(writer, "MANY", 1)
    history = History()
    for model in hostile:
        call = ModelCall.begin(
            ModelCall.Requested,
            new_id(),
            history.now,
            kind="chat",
            provider="lab",
            model=model,
            cause_noun="message",
            cause_id="1",
            request={},
        )
        history.record(call)
    async with following(database_url, history):
        await caught_up(database_url, history)
    assert await query(connection, "SELECT models FROM headrace.traces") == [hostile]
    assert await query(connection, "SELECT to_jsonb(models) FROM headrace.traces") == [hostile]
