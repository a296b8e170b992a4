"""A person is erased: what was said is nowhere any more, what it cost still is, and a user who returns is new."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp

import nats
import psycopg
import pytest

from adapters.archive.archiver import Archiver
from adapters.archive.store import Archive
from adapters.jetstream import macs
from adapters.jetstream.keys import ERASED, JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.postgres.tables import table_digests
from domain.chat.conversation import Conversation
from domain.log import EVENTS
from handlers.work.progress import no_progress
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.rebuild import rebuild
from ops.upkeep.restore import restore
from ops.upkeep.verify import verify
from tests.chat_servers import Exchange, faulty_server
from tests.journeys.stack import Stack
from tests.journeys.test_models import app_on, provider_of
from tests.journeys.test_restore import caught_up

pytestmark = pytest.mark.long

USER = "zacharias quxbarrow"
QUESTION = "Whither went my grünblau Wumpelfisch “Hektor”?"
UPLOAD = "The mooncalf eats nothing but moonwort.\n"
UPLOADED = ["mooncalf", "zibbleworth", "crumhorn", "flummerfelt", "gadzookery"]
"""Of the text of a file, its name, its metadata, a segment that was added, and a query that tests the retrieval."""

MARKS = [USER, "Wumpelfisch", "grünblau", "brindlemost", "snorklewax", "fimblethorpe", "quagswaddle", *UPLOADED]
"""Of the name, the question, an input, a comment, a name and a rejected command; the model repeats the question."""


class PlainNats(EmbeddedNats):
    """A server that does not encrypt what it stores: what a key on the same disk could open counts as readable."""

    def configuration(self) -> str:
        settings = json.loads(super().configuration().replace("$JETSTREAM_KEY", '"x"'))
        del settings["jetstream"]["cipher"], settings["jetstream"]["key"]
        return json.dumps(settings)


async def repeats(exchange: Exchange) -> None:
    """Answers with what it was asked, and lingers on request; a question about snow it refuses, with all of it."""
    said = exchange.body["messages"][-1]["content"]
    if "linger" in said:
        await exchange.begin()
        await exchange.say(f"You ask: {said}")
        await asyncio.Event().wait()
    elif "snow" in said:
        await exchange.fail(400, f"Nothing can be said about {said!r}.")
    else:
        await exchange.finish(f"You ask: {said}")


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    """Everything that the servers, the workers and the archive keep."""
    folder = Path(mkdtemp(prefix="headrace-erase-"))
    yield folder
    shutil.rmtree(folder)


def spellings(mark: str) -> set[bytes]:
    """Forms of a text on a disk: in UTF-8 and UTF-16, escaped in JSON, and in base64 at any of three offsets."""
    plain = {mark.encode(), mark.encode("utf-16-le"), json.dumps(mark)[1:-1].encode()}
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + mark.encode())
        plain.add(encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4])
    return {spelling for spelling in plain if len(spelling) > 5}


def found(folder: Path) -> dict[str, set[str]]:
    """The files that hold a mark, by mark."""
    places: dict[str, set[str]] = {}
    for file in folder.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        for mark in MARKS:
            if any(spelling in data for spelling in spellings(mark)):
                places.setdefault(mark, set()).add(str(file.relative_to(folder)))
    return places


async def in_tables(stack: Stack) -> list[str]:
    """The tables of any schema that hold a mark in any column."""
    tables = await stack.sql(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    holding = []
    for table in tables:
        name = f'"{table["schemaname"]}"."{table["tablename"]}"'
        if await stack.sql(f"SELECT 1 FROM {name} held WHERE held::text ~* %(any)s", any="|".join(MARKS)):
            holding.append(name)
    return holding


async def archived(stack: Stack, folder: Path) -> None:
    await Archiver(stack.client.connection, Archive.at(str(folder)), segment_bytes=2**20).update()


async def erased(stack: Stack) -> None:
    """Wait until all that an erasure does is done."""
    js = stack.client.connection.jetstream()
    last = (await js.stream_info(EVENTS)).state.last_seq
    await stack.until(
        "SELECT sequence FROM headrace_projection.checkpoints WHERE stream = 'EVENTS'",
        lambda rows: int(rows[0]["sequence"]) >= last,
    )
    for _ in range(600):
        info = await js.consumer_info(EVENTS, "erase")
        if not info.num_pending and not info.num_ack_pending:
            return
        await stack.sql("SELECT pg_sleep(0.1)")
    raise AssertionError("the erasure does not end")


async def questions(server: EmbeddedNats, settings: Settings) -> list[str]:
    """Return the questions, as the log has them now."""
    nc = await nats.connect(server.url)
    log = JetStreamLog(nc, JetStreamKeys(nc, settings.vault()))
    commits = [commit async for some in log.read(EVENTS, 0, follow=False) for commit in some]
    await nc.close()
    return [event.query for it in commits for event in it.events if isinstance(event, Conversation.Asked)]


async def uploaded(stack: Stack, dataset: str, app: str) -> str:
    """A document of the user in the dataset, which an answer quotes and a query finds."""
    digest, key = await stack.client.upload_packed(UPLOAD.encode())
    fields = {"name": "zibbleworth.txt", "metadata": {"player": "crumhorn"}, "user": USER}
    document = await stack.make("document.upload", dataset=dataset, digest=digest, key=key, **fields)
    await stack.ended([document])
    await stack.send("segment.add", document=document, content="What is a flummerfelt?", answer="A flummerfelt.")
    await stack.until(
        "SELECT FROM headrace.documents WHERE id = %(id)s AND index_status = 'current'"
        " AND EXISTS (SELECT FROM headrace.document_segments WHERE answer ~ 'flummerfelt' AND status = 'completed')",
        id=document,
    )
    assert (await stack.ask(app, "What does the mooncalf eat?", user=USER))[-1]["type"] == "answered"
    query = await stack.make("dataset.test", datasets=[dataset], query="What of gadzookery?", user=USER)
    await stack.until("SELECT FROM headrace.retrievals WHERE cause_id = %(id)s", id=query)
    found = await stack.sql("SELECT FROM headrace.model_calls WHERE request::text ~ 'eats nothing but moonwort'")
    assert len(found) == 1, "the answer was not given the document"
    return document


async def test_nothing_readable_is_left_of_a_person_who_was_erased(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, backup = home / "archive", home.with_name(home.name + "-backup")
    (home / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(home / "tmp"))  # of the workers and of their contained processes
    async with PlainNats(home) as server, EmbeddedPostgres(home) as postgres, faulty_server(repeats) as model:
        settings = Settings.load(
            home=home, nats_url=server.url, postgres_url=postgres.url, archive_url=str(archive), grace_s=3
        )
        async with Stack.running(settings, ["all"]) as stack:
            app = await app_on(stack, model.url, "parrot")
            variable = {"name": "boat", "required": False, "default": None}
            named = {"provider": provider_of(model.url), "name": "parrot"}
            dataset = await stack.make("dataset.create", name="Beasts")
            shared = await stack.make("document.upload", dataset=dataset, name="birds.txt", text="A heron is a bird.")
            await stack.ended([shared])
            await stack.send("app.configure", app=app, model=named, variables=[variable], datasets=[dataset])
            other = (await stack.ask(app, "What of the others?", user="ada"))[-1]
            assert other["type"] == "answered", other

            said = await stack.ask(app, QUESTION, user=USER, inputs={"boat": "the brindlemost"})
            assert QUESTION in said[-1]["answer"]
            conversation, message = said[0]["conversation"], said[0]["message"]
            await stack.send(
                "message.rate", conversation=conversation, message=message, rating="like", content="by snorklewax"
            )
            await stack.send("conversation.rename", conversation=conversation, name="about fimblethorpe")
            await stack.refused(
                "message.rate", conversation=conversation, message=message, rating="quagswaddle", content="quagswaddle"
            )
            assert (await stack.ask(app, f"{QUESTION} In snow?", user=USER))[-1]["type"] == "failed"
            fork = await stack.make("conversation.fork", conversation=conversation, message=message)
            await stack.ask(app, "And the Wumpelfisch's wife?", user=USER, conversation=fork)
            [call] = await stack.until(
                "SELECT id FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat'", id=message
            )
            document = await uploaded(stack, dataset, app)
            await stack.send("replay.request", call=call["id"])
            await stack.until("SELECT FROM headrace.replays WHERE status = 'completed'")
            await caught_up(stack)
            await rebuild(settings)
            async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
                await connection.execute("ANALYZE")  # statistics quote what they have seen
            await archived(stack, archive)
            shutil.copytree(archive, backup)

            counts = (
                "SELECT count(*) AS calls, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS said,"
                " (SELECT count(*) FROM headrace.messages WHERE id <> %(lingering)s) AS messages"
                " FROM headrace.model_calls WHERE cause_id <> %(lingering)s"
            )
            before = await stack.sql(counts, lingering="")
            assert {mark for mark in MARKS if mark != "quagswaddle"} <= set(found(home)), (
                "there is nothing to be erased"
            )
            assert await in_tables(stack) != []

            lingering = await stack.make("message.send", app=app, query="Will the Wumpelfisch linger?", user=USER)
            await stack.until(
                "SELECT FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat'", id=lingering
            )

            [row] = await stack.sql("SELECT person_id FROM headrace.messages WHERE id = %(id)s", id=message)
            person = row["person_id"]
            first = await stack.send("end_user.erase", user=USER)
            assert first["ids"] == {"end_user": person}
            again = await stack.send("end_user.erase", user=USER)
            assert (again["ids"], again["sequence"]) == (first["ids"], first["sequence"])
            await stack.send("end_user.erase", user="nobody")
            [ended] = await stack.until(
                "SELECT status, answer, error_code, error FROM headrace.messages"
                " WHERE id = %(id)s AND status <> 'answering'",
                id=lingering,
            )
            assert ended == {"status": "stopped", "answer": "", "error_code": None, "error": None}
            await erased(stack)
            await archived(stack, archive)

            assert await in_tables(stack) == []
            left = await stack.sql("SELECT id FROM headrace.documents")
            assert (left, len(await stack.indexed())) == ([{"id": shared}], 1)
            assert (await stack.refused("document.rename", document=document, name="x"))["code"] == "not_found"
            assert await stack.sql(counts, lingering=lingering) == before
            assert await stack.sql("SELECT FROM headrace.messages WHERE query ~ 'others'") != []
            held = JetStreamKeys(stack.client.connection, settings.vault())
            assert await held.of("default", person) is ERASED
            kept = [it async for it in kept_of(stack, person)]
            assert [set(json.loads(each)) for each in kept] == [{"erased", "mac"}]

            gone = await stack.refused("message.send", app=app, query="Still?", user=USER, conversation=conversation)
            assert gone["code"] == "erased"
            await stack.send("conversation.delete", conversation=fork)

            await caught_up(stack)
            digests = await table_digests(postgres.url)
            await rebuild(settings)
            assert await table_digests(postgres.url) == digests
            checks = [check async for check in verify(settings, timedelta(minutes=5), no_progress, archive=True)]
            assert [check.first for check in checks if check.faults] == []
        assert found(home) == {}

        async with Stack.running(settings, ["all"]) as stack:
            back = await stack.ask(app, "What of a new Wumpelfisch?", user=USER)
            assert back[-1]["type"] == "answered"
            [row] = await stack.until("SELECT person_id FROM headrace.messages WHERE query ~ 'new Wumpelfisch'")
            assert row["person_id"] != person
            back_id = str(row["person_id"])
        asked = await questions(server, settings)
        assert asked.count("What of a new Wumpelfisch?") == 1
        assert asked.count("") == 5

    assert found(home) != {}  # of the one who came back
    await restored(home, archive, 6, 5, {person, back_id})
    await restored(home, backup, 5, 0, {person})
    await restored_with_another_secret(archive, {person, back_id})
    shutil.rmtree(backup)


async def kept_of(stack: Stack, person: str) -> AsyncIterator[bytes]:
    """All that the bucket of keys holds for a person, of now and of before."""
    js = stack.client.connection.jetstream()
    for sequence in range(1, (await js.stream_info(macs.STREAM)).state.last_seq + 1):
        try:
            found = await js.get_msg(macs.STREAM, sequence)
        except nats.js.errors.NotFoundError:
            continue
        if str(found.subject).endswith(person):
            yield found.data or b""


async def person_of_user(server: EmbeddedNats, settings: Settings) -> tuple[str, bool]:
    nc = await nats.connect(server.url)
    try:
        return await JetStreamKeys(nc, settings.vault()).last_person("default", USER)
    finally:
        await nc.close()


async def restored(home: Path, archive: Path, count: int, blank: int, people: set[str]) -> None:
    """Restore an archive on an empty machine: of `count` questions `blank` are blank, all others as they were.

    The user is one of the same people.
    """
    folder = Path(mkdtemp(prefix="headrace-restored-"))
    try:
        shutil.copy(home / "secret.key", folder / "secret.key")
        async with EmbeddedNats(folder) as server:
            settings = Settings.load(home=folder, nats_url=server.url)
            await restore(settings, Archive.at(str(archive)))
            asked = await questions(server, settings)
            assert len(asked) == count
            assert asked.count("") == blank
            assert ("What of the others?" in asked, QUESTION in asked) == (True, not blank)
            found, known = await person_of_user(server, settings)
            assert known
            assert found in people
    finally:
        shutil.rmtree(folder)


async def restored_with_another_secret(archive: Path, people: set[str]) -> None:
    """Restore an archive whose secret is lost: a name can be used, and is a new person's."""
    folder = Path(mkdtemp(prefix="headrace-restored-"))
    try:
        async with EmbeddedNats(folder) as server:
            settings = Settings.load(home=folder, nats_url=server.url)
            await restore(settings, Archive.at(str(archive)), other_secret=True)
            found, known = await person_of_user(server, settings)
            assert not known
            assert found not in people
    finally:
        shutil.rmtree(folder)
