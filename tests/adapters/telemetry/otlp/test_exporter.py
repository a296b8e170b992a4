from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from nats.aio.client import Client

from adapters.postgres.tables import connect, set_up
from adapters.telemetry.otlp import exporter as module
from adapters.telemetry.otlp.checkpoint import Checkpoint, Checkpoints, Moved
from adapters.telemetry.otlp.collector import Collector
from adapters.telemetry.otlp.ended import Place, behind
from adapters.telemetry.otlp.endpoint import header_fields, target, traces_url
from adapters.telemetry.otlp.exporter import Exporter
from adapters.telemetry.otlp.spans import Content
from adapters.trace_ids import span_id
from domain.aggregate import new_id
from tests.adapters.telemetry.otlp.rows import span, trace, traced, write
from tests.otlp_receiver import Answer, Receiver, receiving


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERIOD_S", "SHORTEST_WAIT_S", "LONGEST_WAIT_S"):
        monkeypatch.setattr(module, name, 0.02)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def url(database_url: str) -> str:
    await set_up(database_url)
    return database_url


@asynccontextmanager
async def exporting(url: str, nc: Client, receiver: Receiver, content: int | None = None) -> AsyncIterator[None]:
    async with Collector(receiver.url, {"authorization": "Bearer x"}) as collector:
        task = asyncio.create_task(Exporter(url, nc, collector, receiver.url, Content(content)).run())
        yield
        assert not task.done(), task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def checkpoint(nc: Client, receiver: Receiver) -> Checkpoint:
    return await Checkpoints(nc).get(target(receiver.url))


async def at(nc: Client, receiver: Receiver, sequence: int) -> Checkpoint:
    """The checkpoint, once it is there."""
    async with asyncio.timeout(20):
        while (found := await checkpoint(nc, receiver)).place.sequence != sequence:
            await asyncio.sleep(0.02)
    return found


def ids(*rows: dict[str, object]) -> list[bytes]:
    return sorted(span_id("acme", str(row["id"])) for row in rows)


async def test_every_span_that_ended_is_sent_once(
    url: str, nc: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPANS", 3)
    rows = [*traced(7), *traced(7), *traced(12)]
    rows += [span(sequence, rows[0]["id"]) for sequence in (5, 7, 7, 7, 7, 9, 12)]
    await write(url, *rows, *traced(None), span(None, rows[0]["id"]))
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 12)
        late = span(13, rows[0]["id"])
        await write(url, late)
        found = await at(nc, receiver, 13)
    assert sorted(receiver.ids) == ids(*rows, late)
    assert (found.sent, found.set_aside) == (14, 0)
    assert [span.name for _, span in receiver.spans].count("message.send") == 3
    assert receiver.headers[0]["authorization"] == "Bearer x"


async def test_what_is_part_of_a_handler_waits_for_it(
    url: str, nc: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be done again, in the same row; meanwhile others are not held up, however many those are."""
    monkeypatch.setattr(module, "SPANS", 3)
    [whole, handler] = traced(None)
    parts = [span(sequence, whole["id"]) for sequence in range(3, 13)]
    other = traced(14)
    await write(url, whole, handler, *parts, *other)
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 14)
        assert sorted(receiver.ids) == ids(*other)
        async with connect(url) as connection:
            await connection.execute("UPDATE headrace.spans SET ended_sequence = 15 WHERE id = %s", (parts[0]["id"],))
            await connection.execute(
                "UPDATE headrace.spans SET status = 'ok', ended_at = now(), ended_sequence = 16 WHERE id = %s",
                (handler["id"],),
            )
        await write(url, reached=16)
        await receiver.until(lambda it: len(it.spans) >= 14)
        await write(url, *(last := traced(17)))
        await at(nc, receiver, 17)
    assert sorted(receiver.ids) == ids(*other, whole, handler, *parts, *last)
    roots = [span for _, span in receiver.spans if span.name == "message.send"]
    assert {root.end_time_unix_nano > root.start_time_unix_nano for root in roots} == {True}


async def test_a_trace_that_goes_on_is_not_sent_again(url: str, nc: Client, receiver: Receiver) -> None:
    """Several commands may come under one correlation id."""
    [whole, first] = traced(5)
    await write(url, whole, first)
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 5)
        async with connect(url) as connection:
            await connection.execute("UPDATE headrace.traces SET ended_sequence = 9, log_position = 9")
        second = span(9, whole["id"], kind="handler", noun_id="another") | {"sequence": 7}
        await write(url, second)
        await at(nc, receiver, 9)
    assert sorted(receiver.ids) == ids(whole, first, second)


async def test_calls_that_no_handler_makes_are_sent_as_they_end(url: str, nc: Client, receiver: Receiver) -> None:
    whole = trace(6, kind="index", name="index.embedding")
    calls = [span(sequence, whole["id"], kind="embedding") for sequence in (5, 6)]
    await write(url, whole, *calls)
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 6)
    assert sorted(receiver.ids) == ids(*calls)
    assert {span.parent_span_id for _, span in receiver.spans} == {b""}


async def test_what_is_not_whole_in_the_tables_is_not_sent(url: str, nc: Client, receiver: Receiver) -> None:
    first, second = traced(5), traced(8)
    await write(url, *first, *second, reached=7)
    async with exporting(url, nc, receiver):
        assert (await at(nc, receiver, 5)).sent == 2
        await write(url, reached=8)
        await at(nc, receiver, 8)
    assert sorted(receiver.ids[:2]) == ids(*first)
    assert sorted(receiver.ids[2:]) == ids(*second)


async def test_a_row_that_changes_again_is_not_sent_again(url: str, nc: Client, receiver: Receiver) -> None:
    rows = traced(5, question="Who am I?")
    await write(url, *rows)
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 5)
        async with connect(url) as connection:
            await connection.execute("UPDATE headrace.traces SET question = '', log_position = 6")
            await connection.execute("UPDATE headrace.spans SET attributes = '{}', log_position = 6")
        await write(url, *traced(7), reached=7)
        await at(nc, receiver, 7)
    assert len(receiver.spans) == 4


async def test_rebuilt_tables_are_not_sent_again(url: str, nc: Client, receiver: Receiver) -> None:
    kept = [*traced(5), *traced(6)]
    await write(url, *kept)
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 6)
        async with connect(url) as connection:
            await connection.execute("DROP SCHEMA headrace CASCADE")
            await connection.execute("UPDATE headrace_projection.groups SET sequence = 0")
        await set_up(url)
        await write(url, *kept, *traced(9))
        await at(nc, receiver, 9)
    assert len(receiver.spans) == 6


async def test_a_collector_that_is_away_gets_all_of_it_afterwards(url: str, nc: Client, receiver: Receiver) -> None:
    await receiver.stop()
    await write(url, *traced(5))
    async with exporting(url, nc, receiver):
        await asyncio.sleep(0.2)
        async with connect(url) as connection:
            assert (await behind(connection, (await checkpoint(nc, receiver)).place)).rows == 2
        await receiver.start()
        await receiver.until(lambda it: len(it.spans) == 2)
        receiver.answer = lambda spans: 503
        await write(url, *traced(6), *traced(7))
        await receiver.until(lambda it: it.statuses.count(503) > 3)
        receiver.answer = lambda spans: 200
        await at(nc, receiver, 7)
        async with connect(url) as connection:
            assert (await behind(connection, (await checkpoint(nc, receiver)).place)).rows == 0
    assert len(set(receiver.ids)) == len(receiver.ids) == 6


async def test_another_exporter_goes_on_where_one_has_ended(url: str, nc: Client, receiver: Receiver) -> None:
    await write(url, *traced(5))
    async with exporting(url, nc, receiver), exporting(url, nc, receiver):
        await at(nc, receiver, 5)
    await write(url, *traced(6))
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 6)
    assert len(receiver.spans) == 4


async def test_one_that_lost_its_turn_does_not_move_the_checkpoint(nc: Client) -> None:
    checkpoints, name = Checkpoints(nc), f"http://{new_id()}"
    mine = await checkpoints.get(name)
    theirs = await checkpoints.put(mine.moved(Place(5, 0, "a"), 1, 0))
    with pytest.raises(Moved):
        await checkpoints.put(mine.moved(Place(4, 0, "b"), 1, 0))
    assert (await checkpoints.get(name)).place == theirs.place
    assert (await checkpoints.put(theirs.moved(Place(6, 0, "c"), 2, 1))).sent == 3


def refusing(*ids: str) -> Answer:
    bad = {span_id("acme", id) for id in ids}
    return lambda spans: 400 if any(span.span_id in bad for span in spans) else 200


async def test_a_span_that_is_refused_is_set_aside(url: str, nc: Client, receiver: Receiver) -> None:
    rows = [row for sequence in range(5, 15) for row in traced(sequence)]
    receiver.answer = refusing(rows[3]["id"], rows[10]["id"])
    await write(url, *rows)
    async with exporting(url, nc, receiver):
        found = await at(nc, receiver, 14)
    assert (found.sent, found.set_aside) == (18, 2)
    assert len(set(receiver.ids)) == len(receiver.ids) == 18


async def test_a_collector_that_refuses_everything_loses_nothing(url: str, nc: Client, receiver: Receiver) -> None:
    receiver.answer = lambda spans: 400
    await write(url, *traced(5), *traced(6))
    async with exporting(url, nc, receiver):
        await receiver.until(lambda it: len(it.statuses) > 8)
        assert (await checkpoint(nc, receiver)).place == Place()
        receiver.answer = lambda spans: 200
        found = await at(nc, receiver, 6)
    assert (found.sent, found.set_aside) == (4, 0)


async def test_what_a_collector_threw_away_is_counted(url: str, nc: Client, receiver: Receiver) -> None:
    receiver.throws_away = 1
    await write(url, *traced(5), *traced(6))
    async with exporting(url, nc, receiver):
        found = await at(nc, receiver, 6)
    assert (found.sent, found.set_aside) == (3, 1)


async def test_requests_are_of_bounded_size(
    url: str, nc: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BYTES", 2000)
    for sequence in range(5, 15):
        await write(url, *traced(sequence, question="so " * 100))
    async with exporting(url, nc, receiver, content=1000):
        await at(nc, receiver, 14)
    assert len(receiver.bodies) >= 5
    assert max(map(len, receiver.bodies)) < 3000


async def test_texts_go_along_only_with_leave(url: str, nc: Client, receiver: Receiver) -> None:
    await write(url, *traced(5, question="What is my secret?", answer="A duck."))
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 5)
    assert b"secret" not in receiver.bodies[0]
    assert b"duck" not in receiver.bodies[0]
    await write(url, *traced(6, question="What is my secret?", answer="A duck."))
    async with exporting(url, nc, receiver, content=100):
        await at(nc, receiver, 6)
    assert b"What is my secret?" in receiver.bodies[-1]


async def test_postgresql_may_be_away(url: str, nc: Client, receiver: Receiver) -> None:
    await write(url, *traced(5))
    async with exporting(url, nc, receiver):
        await at(nc, receiver, 5)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await write(url, *traced(6))
        await at(nc, receiver, 6)
    assert len(receiver.spans) == 4


# --- where to ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://host:4318", "http://host:4318/v1/traces"),
        ("http://host:4318/", "http://host:4318/v1/traces"),
        ("https://host/api/public/otel", "https://host/api/public/otel/v1/traces"),
        ("https://host/v1/traces", "https://host/v1/traces"),
        ("https://host/otel?key=x", "https://host/otel/v1/traces?key=x"),
    ],
)
def test_traces_have_a_path_of_their_own(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


def test_the_name_of_a_collector_holds_no_secret() -> None:
    assert target("https://ann:secret@host:8443/otel?key=x") == "https://host:8443/otel/v1/traces"


def test_headers_are_read_as_opentelemetry_writes_them() -> None:
    assert header_fields("") == {}
    found = header_fields("authorization=Basic%20YTpi==, x-scope = a%2Cb ")
    assert found == {"authorization": "Basic YTpi==", "x-scope": "a,b"}
    for bad in ("authorization", "a b=c", "a=%0D%0Ax: y", "a=ü"):
        with pytest.raises(ValueError, match="must be like"):
            header_fields(bad)
