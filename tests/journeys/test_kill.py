"""kill -9 of every worker in the middle of its work, and the promises that hold all the same."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from adapters.postgres.tables import table_digests
from domain.aggregate import new_id
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.rebuild import rebuild
from tests.conftest import fresh_database
from tests.journeys.stack import Stack
from tests.journeys.test_handbook import HANDBOOK, QUESTIONS

pytestmark = pytest.mark.long

ROUNDS = 2


@pytest.fixture(scope="module")
async def doomed(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A Headrace of its own, with a log of its own."""
    home: Path = tmp_path_factory.mktemp("doomed")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings) as stack:
            yield stack


async def test_nothing_is_lost_or_doubled_or_stuck(doomed: Stack) -> None:
    dataset = await doomed.make("dataset.create", name="handbook")
    app = await doomed.make("app.create", name="assistant")
    await doomed.send("app.configure", app=app, datasets=[dataset])
    sent: dict[str, tuple[str, dict[str, object]]] = {}

    async def send(name: str, /, **payload: object) -> str:
        """Publish only; the outcome may come after the worker's death."""
        id = new_id()
        sent[id] = (name, payload)
        await doomed.client.stream.publish(
            f"cmd.{doomed.tenant}.anon.{name}", json.dumps(payload).encode(), headers={"Headrace-Id": id}
        )
        return id

    documents, messages = [], []
    for turn in range(ROUNDS):
        for file in HANDBOOK[turn::ROUNDS]:
            digest = await doomed.client.upload_blob(file.read_bytes())
            documents.append(await send("document.upload", dataset=dataset, name=file.name, digest=digest))
        for question in QUESTIONS[turn:12:ROUNDS]:
            messages.append(await send("message.send", app=app, query=question["question"]))
        await asyncio.sleep(0.15 * (turn + 1))
        roles = ("commands", "ingest", "answer", "embed", "project")
        await doomed.kill(*roles)
        await doomed.start(*roles)

    rows = await doomed.ended(documents)
    assert {row["indexing_status"] for row in rows.values()} == {"completed"}
    await doomed.until(
        "SELECT id FROM headrace.messages WHERE id = ANY(%(ids)s) AND status = 'answered'",
        lambda rows: len(rows) == len(messages),
        ids=messages,
    )
    outcomes = {id: await doomed.client.outcome(id) for id in sent}
    assert all(outcome and outcome["status"] == "accepted" for outcome in outcomes.values())

    await doomed.until("SELECT id FROM headrace.model_calls WHERE status = 'requested'", lambda rows: not rows)
    await assert_no_event_is_twice(doomed)
    await assert_sending_again_changes_nothing(doomed, sent, outcomes)
    await doomed.assert_index_is_exact()
    await assert_tables_equal_a_rebuild(doomed)


async def assert_no_event_is_twice(stack: Stack, others: int = 0) -> None:
    """Versions of an aggregate rise by one, and no commit id comes again; `others` are commits of other tenants."""
    last = (await stack.client.stream.stream_info("EVENTS")).state.last_seq
    versions = Counter[str]()
    ids: set[str] = set()
    async for commit in stack.client.commits(since=1):
        assert commit.headers["Nats-Msg-Id"] not in ids
        ids.add(commit.headers["Nats-Msg-Id"])
        for event in commit.events:
            versions[commit.noun + commit.id] += 1
            assert event["version"] == versions[commit.noun + commit.id]
        if commit.sequence == last:
            break
    assert len(ids) == last - others


async def assert_sending_again_changes_nothing(
    stack: Stack, sent: dict[str, tuple[str, dict[str, object]]], outcomes: dict[str, dict[str, object] | None]
) -> None:
    before = (await stack.client.stream.stream_info("EVENTS")).state.last_seq
    for id, (name, payload) in sent.items():
        assert await stack.client.send(name, payload, id) == outcomes[id]
    assert (await stack.client.stream.stream_info("EVENTS")).state.last_seq == before


async def assert_tables_equal_a_rebuild(stack: Stack) -> None:
    live = await table_digests(stack.postgres_url)
    assert len(live) > 10
    await rebuild(stack.settings, [])
    assert await table_digests(stack.postgres_url) == live


async def test_a_dropped_schema_comes_back_the_same(doomed: Stack) -> None:
    before = await table_digests(doomed.postgres_url)
    async with await psycopg.AsyncConnection.connect(doomed.postgres_url, autocommit=True) as connection:
        await connection.execute("DROP SCHEMA headrace CASCADE")
    await rebuild(doomed.settings, [])
    assert await table_digests(doomed.postgres_url) == before
    app = await doomed.make("app.create", name="afterwards")
    await doomed.until("SELECT FROM headrace.apps WHERE id = %(id)s", id=app)
