"""Every promise broken on purpose, found by `headrace verify`, and repaired by what it says."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from adapters.postgres import tables
from handlers.work.audit import Check
from handlers.work.progress import no_progress
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep import index
from ops.upkeep.rebuild import check, rebuild
from ops.upkeep.verify import verify
from projections.catalog import READ_MODELS
from tests.conftest import fresh_database
from tests.journeys.stack import Row, Stack

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
    checks = [check async for check in verify(stack.settings, timedelta(minutes=5), no_progress)]
    assert len(checks) == 12
    return {check.name: check for check in checks if check.faults}


async def test_a_healthy_system_keeps_every_promise(proved: Stack) -> None:
    """By the command line, as one would ask."""
    code, found = await proved.command("verify", "--prompts")
    checks = {check["name"]: check for check in found}
    assert [check["first"] for check in checks.values() if check["faults"]] == []
    assert code == 0
    assert all(
        checks[name]["checked"]
        for name in ("sequence", "events", "aggregates", "commands", "prompts", "whole prompts", "model calls", "blobs")
    )
    assert checks["tables"]["checked"] > 10
    assert checks["rows"]["checked"] == len(READ_MODELS)
    assert checks["index"]["checked"] >= 1


LOCKS = [f"Lock {number} of the canal has {number + 3} gates, a beam of oak and a keeper. " * 12 for number in range(5)]


async def given(stack: Stack, app: str, query: str) -> list[str]:
    """The segments that the model is given for a question, best first."""
    frames = await stack.ask(app, query)
    assert frames[-1]["type"] == "answered", frames[-1]
    [row] = await stack.until("SELECT hits FROM headrace.retrievals WHERE cause_id = %(id)s", id=frames[0]["message"])
    ids = [hit["segment"] for hit in row["hits"] if hit["rank"]]
    rows = await stack.sql("SELECT id, content FROM headrace.document_segments WHERE id = ANY(%(ids)s)", ids=ids)
    texts = {row["id"]: row["content"] for row in rows}
    return [texts[id] for id in ids]


async def test_edits_are_found_and_kept(proved: Stack) -> None:
    dataset = await proved.make("dataset.create", name="canal")
    await proved.send("dataset.add_metadata_field", dataset=dataset, name="year", type="number")
    old = await proved.make("document.upload", dataset=dataset, name="old.txt", text="\n\n".join(LOCKS))
    new = await proved.make(
        "document.upload", dataset=dataset, name="new.txt", text="Lock 9 has one gate of iron.", metadata={"year": 2026}
    )
    await proved.ended([old, new])
    app = await proved.make("app.create", name="canal")

    async def configure(*conditions: Row) -> None:
        filter = {"mode": "manual", "logical_operator": "and", "conditions": conditions} if conditions else {}
        how = {"mode": "full_text", "top_k": 10} | ({"metadata_filter": filter} if filter else {})
        await proved.send("app.configure", app=app, datasets=[dataset], retrieval=how)

    async def follow(command: str, **payload: str) -> str:
        """Send a command, and wait until the index follows."""
        outcome = await proved.send(command, **payload)
        await proved.until(
            "SELECT FROM headrace.documents WHERE id = %(id)s AND log_position > %(at)s AND index_status = 'current'",
            id=payload["document"],
            at=outcome["sequence"],
        )
        return str(outcome["command"])

    await configure()
    segments = await proved.sql(
        "SELECT id FROM headrace.document_segments WHERE document_id = %(id)s ORDER BY position", id=old
    )
    assert len(segments) >= 3
    first, second, *_, last = [row["id"] for row in segments]
    windlass, weir, iron = (
        "The windlass hangs in the office.",
        "The weir was closed in June.",
        "Lock 9 has one gate of iron.",
    )
    added = await follow("segment.add", document=old, content=windlass, after=first)
    await follow("segment.edit", document=old, segment=second, content=weir)
    assert await given(proved, app, "Where is the windlass?") == [windlass]
    assert await given(proved, app, "When was the weir closed?") == [weir]
    await proved.send("segment.disable", document=old, segment=added)
    assert await given(proved, app, "Where is the windlass?") == []
    await follow("segment.enable", document=old, segment=added)
    assert await given(proved, app, "Where is the windlass?") == [windlass]
    await proved.send("segment.delete", document=old, segment=last)

    assert len(await given(proved, app, "Which lock has a gate?")) > 1
    await proved.send("document.disable", document=old)
    assert await given(proved, app, "Which lock has a gate?") == [iron]
    assert await faults(proved) == {}
    await follow("document.enable", document=old)
    await proved.send("document.set_metadata", document=old, metadata={"year": 1875})
    await proved.send("dataset.rename_metadata_field", dataset=dataset, name="year", new_name="edition")
    await proved.until("SELECT FROM headrace.documents WHERE doc_metadata = '{\"edition\": 1875}'")
    await configure({"name": "edition", "comparison_operator": ">", "value": 2000})
    assert await given(proved, app, "Which lock has a gate?") == [iron]
    await configure({"name": "edition", "comparison_operator": "<", "value": 2000})
    assert await given(proved, app, "Where is the windlass?") == [windlass]

    assert await faults(proved) == {}
    await index.rebuild(proved.settings)
    assert await given(proved, app, "When was the weir closed?") == [weir]
    assert await faults(proved) == {}
    assert [table.table for table in await check(proved.settings) if table.first] == []
    outcome = await proved.refused("segment.edit", document=old, segment=last, content="x")
    assert (outcome["code"], outcome["field"]) == ("not_found", "segment")


async def test_a_changed_row_is_named_and_rebuilt(proved: Stack) -> None:
    [row] = await proved.sql("UPDATE headrace.apps SET name = 'usurper' WHERE name = 'assistant' RETURNING id")
    check = (await faults(proved))["tables"]
    assert row["id"] in check.first[0]
    assert "differs in name" in check.first[0]
    assert check.repair == "headrace rebuild apps"
    await rebuild(proved.settings, ["apps"])
    assert await faults(proved) == {}


async def test_tables_that_stand_still_are_named(proved: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.upkeep.verify.QUIET_S", 0.3)
    await proved.stop("project")
    outcome = await proved.send("app.create", name="later")
    check = (await faults(proved))["tables"]
    stand, end = outcome["sequence"] - 1, outcome["sequence"]
    assert check.first[0] == f"EVENTS: the tables stand at {stand}, and the log goes to {end}"
    assert check.repair == "headrace worker --role project"
    await proved.start("project")
    await proved.until("SELECT FROM headrace.apps WHERE name = 'later'")
    assert await faults(proved) == {}


async def test_a_policy_that_was_dropped_is_named_and_made_again(proved: Stack) -> None:
    async with tables.connect(proved.settings.postgres_url) as connection:
        await connection.execute("DROP POLICY headrace_tenants_only ON headrace.messages")
    check = (await faults(proved))["rows"]
    assert check.first == ["the policies of the table messages are missing or altered"]
    assert check.repair == "headrace setup"
    await tables.set_up(proved.settings.postgres_url)
    assert await faults(proved) == {}


async def test_an_empty_database_is_no_table_that_agrees(
    proved: Stack, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stays as empty as it is."""
    monkeypatch.setattr("ops.upkeep.verify.QUIET_S", 0.3)
    settings = proved.settings.model_copy(update={"postgres_url": database_url})
    checks = {check.name: check async for check in verify(settings, timedelta(minutes=5), no_progress)}
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


async def test_a_consumer_that_is_gone_is_named_and_made_again(proved: Stack) -> None:
    await proved.kill("answer")
    [app] = await proved.sql("SELECT id FROM headrace.apps WHERE name = 'assistant'")
    message = await proved.make("message.send", app=app["id"], query="How long is the oil boom?")
    await proved.client.stream.delete_consumer("EVENTS", "answer")
    assert "answer" in (await faults(proved))["waits"].first[0]
    await proved.start("answer")
    await proved.until("SELECT FROM headrace.messages WHERE id = %(id)s AND status = 'answered'", id=message)
    assert await faults(proved) == {}


async def test_a_blob_that_is_gone_is_named(proved: Stack) -> None:
    [document] = await proved.sql("SELECT * FROM headrace.documents WHERE name = 'tank.txt'")
    name = base64.urlsafe_b64encode(f"{proved.tenant}/{document['digest']}".encode()).decode()
    await proved.client.stream.purge_stream("OBJ_blobs", subject=f"$O.blobs.M.{name}")
    check = (await faults(proved))["blobs"]
    assert document["digest"] in check.first[0]
    await proved.client.upload_blob(TEXT.encode())
    assert await faults(proved) == {}
