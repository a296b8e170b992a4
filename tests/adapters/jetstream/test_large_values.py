"""Large values of commits, for everyone who reads the log: they are whole, or the reader waits."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from nats.aio.client import Client

from adapters.archive.archiver import Archiver
from adapters.archive.heads import Proof
from adapters.archive.store import Archive
from adapters.jetstream import client as bus
from adapters.jetstream import codec, large_values
from adapters.jetstream.audited import AuditedLog
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.codec import LARGE, MissingBlob, references
from adapters.jetstream.keys import JetStreamKeys, Key
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.workers.works import subscribe_work
from adapters.objects.blobs import ObjectBlobs
from adapters.objects.folder import Folder
from adapters.privacy.vault import AesVault
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.knowledge.retrieval import Retrieval
from domain.log import EVENTS, Commit, Metadata, Position, Quarantined, Subject
from handlers.ports.log import Unavailable
from handlers.work.audit import Audit
from handlers.work.progress import no_progress
from ops.settings import Settings
from ops.upkeep.restore import restore
from tests.adapters.archive.test_archive import nats_with_streams
from tests.adapters.jetstream.conftest import Running
from tests.adapters.jetstream.workers.test_consumer import settled
from tests.golden import make
from tests.handlers.desk import Desk

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)
VAULT = AesVault(bytes(32))
LONG = "The sluice opens at six. " * 1000
QUERY = "Where do I sleep? " * 2000


def dataset(id: str, text: str) -> Dataset:
    return Dataset.begin(Dataset.Created, id, NOW, name="Rules", description=text)


def talk(id: str, query: str) -> Conversation:
    begun = Conversation.begin(Conversation.Started, id, NOW, app="a", user="ada", name="talk")
    begun.ask(NOW, message="m", app="a", configuration=1, query=query, inputs={}, user="ada")
    return begun


async def fill(nc: Client, keys: JetStreamKeys, blobs: Any = None) -> str:
    """A commit with a plain large value, one with a sealed one, and one without; the person."""
    store, person = JetStreamEventStore(nc, keys, blobs), await keys.person("acme", "ada")
    plain, sealed, small = Subject("acme", "dataset", "d"), Subject("acme", "conversation", "c"), new_id()
    await store.append(plain, dataset("d", LONG).pending(), Metadata(new_id(), "acme", new_id()), 0)
    of_ada = Metadata(new_id(), "acme", new_id(), person=person)
    await store.append(sealed, talk("c", QUERY).pending(), of_ada, 0)
    short = dataset(small, "short").pending()
    await store.append(Subject("acme", "dataset", small), short, Metadata(new_id(), "acme", new_id()), 0)
    return person


async def texts(log: JetStreamLog) -> list[str]:
    commits = [it async for some in log.read(EVENTS, 0, follow=False) for it in some]
    return [vars(commit.events[-1]).get("description") or vars(commit.events[-1])["query"] for commit in commits]


# --- the wire format -----------------------------------------------------------------------------------------


def encoded(events: Any, **who: Any) -> tuple[bytes, dict[str, str], dict[codec.Name, bytes]]:
    blobs: dict[str, bytes] = {}
    body, headers = codec.encode_commit(events, Metadata("id", "t", "id"), None, blobs)
    return body, headers, {("t", digest): data for digest, data in blobs.items()}


def decoded(body: bytes, headers: dict[str, str], blobs: codec.Fetched) -> Any:
    return codec.decode("evt.t.conversation.c", body, headers, Position(EVENTS, 1), NOW, codec.NO_CIPHERS, blobs)


def test_paths_are_json_pointers() -> None:
    asked = Conversation.begin(Conversation.Started, "c", NOW, app="a", user="ada", name="talk")
    inputs = {"a/b": LONG, "~": LONG + "~", "": LONG + "empty", "~1": "short", "0": LONG + "zero"}
    asked.ask(NOW, message="m", app="a", configuration=1, query="q", inputs=inputs, user="ada")
    events = asked.pending()
    body, headers, blobs = encoded(events)
    [_, stored] = json.loads(body)
    assert stored["blobs"] == ["/inputs/a~1b", "/inputs/~0", "/inputs/", "/inputs/0"]
    assert stored["state"]["inputs"]["~1"] == "short"
    assert set(references(body)) == {digest for _, digest in blobs}
    assert decoded(body, headers, blobs).events == events


def test_the_events_that_are_encoded_stay_as_they_are() -> None:
    asked, inputs = Conversation.begin(Conversation.Started, "c", NOW, app="a", user="ada", name="talk"), {"x": LONG}
    asked.ask(NOW, message="m", app="a", configuration=1, query="q", inputs=inputs, user="ada")
    encoded(asked.pending())
    assert inputs == {"x": LONG}


def test_without_blobs_a_value_stays_in_its_commit() -> None:
    body, headers = codec.encode_commit(dataset("d", LONG).pending(), Metadata("id", "t", "id"))
    assert LONG.encode() in body
    assert "Headrace-Schema" not in headers
    assert references(body) == {}


@pytest.mark.parametrize(("hits", "schema"), [(0, None), (20, "3"), (2000, "3")])
def test_long_lists_are_compressed(hits: int, schema: str | None) -> None:
    stored = make.path(Retrieval.Made.TOPIC).read_bytes()
    golden = codec.decode_commit("evt.t.retrieval.c", b"[%b]" % stored, {}, Position(EVENTS, 1), NOW).events[0]
    made = cast("Retrieval.Made", golden)
    events = [replace(made, hits=hits * made.hits[:1])]
    body, headers, blobs = encoded(events)
    assert headers.get("Headrace-Schema") == schema
    assert json.loads(body)[0]["state"]["hits"] == []
    assert len(body) < LARGE
    assert codec.whole(body, "t", {})[0]["state"]["hits"] == events[0].hits
    assert decoded(body, headers, blobs).events == events


def test_an_envelope_of_a_newer_version_waits_for_it() -> None:
    body, headers, blobs = encoded(dataset("d", LONG).pending())
    found = decoded(body, headers | {"Headrace-Schema": "4"}, blobs)
    assert isinstance(found, Quarantined)
    assert found.newer


@pytest.mark.parametrize(
    "changed",
    [{"blobs": ["/nothing"]}, {"blobs": ["/description/x"]}, {"blobs": [""]}, {"blobs": 7}, {"sealed": {"blob": 1}}],
)
def test_a_commit_with_broken_references_is_quarantined(changed: dict[str, Any]) -> None:
    body, headers, blobs = encoded(dataset("d", LONG).pending())
    broken = orjson.dumps([json.loads(body)[0] | changed])
    references(broken)
    try:
        assert isinstance(decoded(broken, headers, blobs), Quarantined)
    except Unavailable:
        assert "sealed" in changed  # there are no keys


SEALED = "7c1d26fad7a588f00f7819a16fc5f5875cca9d23fbb262bfc42ebc4461f59cf58d"
"""Must never change: stored blobs are opened by the same derivation."""


def test_a_sealed_blob_is_bound_to_its_key_tenant_and_kind() -> None:
    key, plain = Key(bytes(32)), b"Where do I sleep?"
    sealed = key.seal_blob("acme", "prompt", plain)
    assert sealed.hex() == SEALED
    assert key.open_blob("acme", "prompt", sealed) == plain
    others = [key.seal_blob("zeta", "prompt", plain), key.seal_blob("acme", "answer", plain)]
    assert len({sealed, *others, Key(b"1" * 32).seal_blob("acme", "prompt", plain)}) == 4
    for cipher, tenant, kind, data in (
        (key, "zeta", "prompt", sealed),
        (key, "acme", "answer", sealed),
        (Key(b"1" * 32), "acme", "prompt", sealed),
        (key, "acme", "prompt", sealed[:-1]),
        (key, "acme", "prompt", b""),
    ):
        with pytest.raises(ValueError, match="changed, or belongs to another"):
            cipher.open_blob(tenant, kind, data)


# --- readers -------------------------------------------------------------------------------------------------


async def test_the_log_has_them_whole(fresh: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(fresh, JetStreamKeys(fresh, VAULT))
    for at_once in (large_values.AT_ONCE, 1):
        monkeypatch.setattr(large_values, "AT_ONCE", at_once)
        log = JetStreamLog(fresh, JetStreamKeys(fresh, VAULT))
        assert await texts(log) == [LONG, QUERY, "short"]
    followed: list[Any] = []
    async with aclosing(log.read(EVENTS, 0)) as chunks:
        async for some in chunks:
            followed += some
            if len(followed) == 3:
                break
    assert vars(followed[0].events[0])["description"] == LONG


async def test_they_are_in_the_place_of_the_settings(fresh: Client, tmp_path: Path) -> None:
    folder, keys = ObjectBlobs(Folder(tmp_path, "The store of blobs", make=False)), JetStreamKeys(fresh, VAULT)
    await fill(fresh, keys, folder)
    assert len([it async for some in folder.all() for it in some]) == 2
    assert await texts(JetStreamLog(fresh, keys, folder)) == [LONG, QUERY, "short"]
    with pytest.raises(MissingBlob):
        await texts(JetStreamLog(fresh, keys))


async def test_an_erased_person_needs_no_blob(fresh: Client) -> None:
    keys, blobs = JetStreamKeys(fresh, VAULT), JetStreamBlobs(fresh)
    person = await fill(fresh, keys)
    await keys.erase("acme", person)
    assert await texts(JetStreamLog(fresh, JetStreamKeys(fresh, VAULT))) == [LONG, "", "short"]
    message = await fresh.jetstream().get_last_msg(EVENTS, "evt.acme.conversation.c")
    [sealed] = references(message.data or b"")
    assert QUERY.encode() not in await blobs.get("acme", sealed)
    await blobs.remove([it async for some in blobs.all() for it in some if it.digest == sealed])
    assert await texts(JetStreamLog(fresh, JetStreamKeys(fresh, VAULT))) == [LONG, "", "short"]


async def test_verify_names_the_commit_of_a_missing_one(fresh: Client) -> None:
    await fill(fresh, JetStreamKeys(fresh, VAULT))
    blobs = JetStreamBlobs(fresh)
    sound = Audit()
    await AuditedLog(JetStreamLog(fresh, JetStreamKeys(fresh, VAULT)), sound).finish(no_progress)
    assert (sound.decoded.faults, sorted(sound.blobs.values())) == (0, [1, 2])
    message = await fresh.jetstream().get_last_msg(EVENTS, "evt.acme.dataset.d")
    [lost] = references(message.data or b"")
    await blobs.remove([it async for some in blobs.all() for it in some if it.digest == lost])
    audit = Audit()
    await AuditedLog(JetStreamLog(fresh, JetStreamKeys(fresh, VAULT)), audit).finish(no_progress)
    assert (audit.decoded.faults, audit.blobs["acme", lost]) == (1, 1)
    assert lost in audit.decoded.first[0]
    assert "EVENTS 1" in audit.decoded.first[0]


async def test_a_work_gets_them_and_waits_for_a_missing_one(fresh: Client, running: Running) -> None:
    desk, seen = Desk(fresh, "acme"), list[Commit]()

    async def react(commit: Commit) -> None:
        seen.append(commit)

    blobs = JetStreamBlobs(fresh)
    person = await desk.keys.person("acme", "ada")
    metadata, id = Metadata(new_id(), "acme", new_id(), person=person), new_id()
    await desk.store.append(Subject("acme", "conversation", id), talk(id, QUERY).pending(), metadata, 0)
    [blob] = [it async for some in blobs.all() for it in some]
    data = await blobs.get("acme", blob.digest)
    await blobs.remove([blob])
    await running(
        partial(
            subscribe_work, name="answer", handler=react, repository=desk.repository, keys=desk.keys, blobs=desk.blobs
        )
    )
    await asyncio.sleep(0.5)
    assert seen == []
    await blobs.write("acme", blob.digest, data)
    await settled(fresh)
    assert [vars(commit.events[-1])["query"] for commit in seen] == [QUERY]


async def test_a_client_of_the_bus_gets_plain_ones(fresh: Client) -> None:
    await fill(fresh, JetStreamKeys(fresh, VAULT))
    async with aclosing(bus.Client(fresh, "acme").commits(since=1)) as commits:
        first = await anext(commits)
        second = await anext(commits)
    assert first.events[0]["state"]["description"] == LONG
    assert second.events[-1]["state"]["query"] == ""
    assert isinstance(second.events[-1]["sealed"], dict)


async def test_the_archive_carries_them(tmp_path: Path) -> None:
    archive = Archive.at(str(tmp_path / "archive"))
    settings = Settings.load(home=tmp_path / "old", secret_key="a secret of sixteen")
    async with nats_with_streams(tmp_path / "old") as (_, client):
        keys = JetStreamKeys(client, settings.vault())
        await keys.macs.establish()
        await fill(client, keys)
        await Archiver(client, archive, segment_bytes=2**20, key=b"k" * 16).update()
    async with nats_with_streams(tmp_path / "new") as (server, client):
        new = settings.model_copy(update={"home": tmp_path / "new", "nats_url": server.url})
        restored = await restore(new, archive, proof=Proof(b"k" * 16))
        assert (restored.blobs, restored.lost) == (2, {})
        keys = JetStreamKeys(client, settings.vault())
        assert await texts(JetStreamLog(client, keys)) == [LONG, QUERY, "short"]


@pytest.mark.parametrize("size", [LARGE, LARGE + 1])
async def test_one_byte_decides(fresh: Client, size: int) -> None:
    store = JetStreamEventStore(fresh)
    await store.append(
        Subject("acme", "dataset", "d"), dataset("d", "x" * size).pending(), Metadata(new_id(), "acme", new_id()), 0
    )
    assert len([it async for some in JetStreamBlobs(fresh).all() for it in some]) == (size > LARGE)
