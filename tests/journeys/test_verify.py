"""Every promise broken by hand, found by `headrace verify`, and repaired by what it says."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from handlers.audit import Check
from handlers.progress import unnoticed
from ops import index
from ops.embedded import EmbeddedNats, EmbeddedPostgres
from ops.rebuild import rebuild
from ops.settings import Settings
from ops.verify import verify
from tests.conftest import fresh_database
from tests.journeys.stack import Stack

TEXT = "The surge tank is inspected in May. The oil boom of the intake is 40 metres long.\n" * 3


@pytest.fixture(scope="module")
async def proved(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A Headrace of its own in which a document was uploaded, a question answered, and its model asked again."""
    home: Path = tmp_path_factory.mktemp("proved")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings) as stack:
            dataset = await stack.make("dataset.create", name="handbook")
            app = await stack.make("app.create", name="assistant")
            await stack.send("app.configure", app=app, datasets=[dataset])
            document = await stack.make("document.upload", dataset=dataset, name="tank.txt", text=TEXT)
            await stack.ended([document])
            await stack.ask(app, "When is the surge tank inspected?")
            await stack.refused("app.delete", app=dataset)
            asked = "SELECT id FROM headrace.model_calls WHERE kind = 'chat' AND status = 'completed'"
            [call] = await stack.until(asked)
            await stack.send("replay.request", call=call["id"])
            [talk] = await stack.until("SELECT id FROM headrace.messages WHERE status = 'answered'")
            await stack.send("conversation.fork", conversation=talk["id"], message=talk["id"])
            await stack.until("SELECT FROM headrace.replays WHERE status = 'completed'")
            yield stack


async def faults(stack: Stack) -> dict[str, Check]:
    """The broken promises, by name."""
    checks = [check async for check in verify(stack.settings, timedelta(minutes=5), unnoticed)]
    assert len(checks) == 9
    return {check.name: check for check in checks if check.faults}


async def test_a_healthy_system_keeps_every_promise(proved: Stack) -> None:
    """By the command line, as one would ask."""
    environment = os.environ | {
        "HEADRACE_HOME": str(proved.settings.home),
        "HEADRACE_NATS_URL": proved.nats_url,
        "HEADRACE_POSTGRES_URL": proved.postgres_url,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.cli", "verify", "--json", env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    checks = {check["name"]: check for check in map(json.loads, out.splitlines())}
    assert [check["first"] for check in checks.values() if check["faults"]] == []
    assert process.returncode == 0
    assert all(
        checks[name]["checked"] for name in ("sequence", "events", "aggregates", "commands", "model calls", "blobs")
    )
    assert checks["tables"]["checked"] > 10
    assert checks["index"]["checked"] >= 1


async def test_a_changed_row_is_named_and_rebuilt(proved: Stack) -> None:
    [row] = await proved.sql("UPDATE headrace.apps SET name = 'usurper' RETURNING id")
    check = (await faults(proved))["tables"]
    assert row["id"] in check.first[0]
    assert "differs in name" in check.first[0]
    assert check.repair == "headrace rebuild apps"
    await rebuild(proved.settings, ["apps"])
    assert await faults(proved) == {}


async def test_tables_that_stand_still_are_named(proved: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.verify.QUIET_S", 0.3)
    await proved.stop("project")
    outcome = await proved.send("app.create", name="later")
    check = (await faults(proved))["tables"]
    stand, end = outcome["sequence"] - 1, outcome["sequence"]
    assert check.first[0] == f"EVENTS: the tables stand at {stand}, and the log went to {end}"
    assert check.repair == "headrace worker --role project"
    await proved.start("project")
    await proved.until("SELECT FROM headrace.apps WHERE name = 'later'")
    assert await faults(proved) == {}


async def test_an_empty_database_is_no_table_that_agrees(
    proved: Stack, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stays as empty as it is."""
    monkeypatch.setattr("ops.verify.QUIET_S", 0.3)
    settings = proved.settings.model_copy(update={"postgres_url": database_url})
    checks = {check.name: check async for check in verify(settings, timedelta(minutes=5), unnoticed)}
    assert [sentence.partition(", and")[0] for sentence in checks["tables"].first] == [
        "EVENTS: the tables stand at 0",
        "OUTCOMES: the tables stand at 0",
    ]
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        found = await connection.execute("SELECT FROM pg_namespace WHERE nspname ~ '^headrace'")
        assert found.rowcount == 0


async def test_a_segment_that_the_index_lost_is_named_and_brought_back(proved: Stack) -> None:
    [segment] = await proved.sql("SELECT * FROM headrace.document_segments LIMIT 1")
    await lose_segments(proved)
    check = (await faults(proved))["index"]
    assert segment["id"] in check.first[0]
    assert "is not in the index" in check.first[0]
    assert check.repair == "headrace index rebuild"
    await index.rebuild(proved.settings)
    assert await faults(proved) == {}


async def lose_segments(stack: Stack) -> None:
    """Empty the index, whatever its live version is called."""
    for row in await stack.sql("SELECT schemaname, tablename FROM pg_tables WHERE tablename ~ '^segments_'"):
        await stack.sql(f"DELETE FROM {row['schemaname']}.{row['tablename']} RETURNING 1")


async def test_a_consumer_that_is_gone_is_named_and_made_anew(proved: Stack) -> None:
    await proved.kill("answer")
    [app] = await proved.sql("SELECT id FROM headrace.apps WHERE name = 'assistant'")
    message = await proved.make("message.send", app=app["id"], query="How long is the oil boom?")
    await proved.client.stream.delete_consumer("EVENTS", "answer")
    assert "answer" in (await faults(proved))["waits"].first[0]
    await proved.start("answer")
    await proved.until("SELECT FROM headrace.messages WHERE id = %(id)s AND status = 'answered'", id=message)
    assert await faults(proved) == {}


async def test_a_blob_that_is_gone_is_named(proved: Stack) -> None:
    [document] = await proved.sql("SELECT * FROM headrace.documents")
    name = base64.urlsafe_b64encode(f"{proved.tenant}/{document['digest']}".encode()).decode()
    await proved.client.stream.purge_stream("OBJ_blobs", subject=f"$O.blobs.M.{name}")
    check = (await faults(proved))["blobs"]
    assert document["digest"] in check.first[0]
    await proved.client.upload_blob(TEXT.encode())
    assert await faults(proved) == {}
