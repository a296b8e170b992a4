"""Words of people in the log: encrypted with a key of their own, and unreadable once it is erased."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
import orjson
import pytest
from nats.aio.client import Client

from adapters.jetstream import codec, keys
from adapters.jetstream.audited import AuditedLog
from adapters.jetstream.keys import ERASED, JetStreamKeys, Key, MissingKey
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.macs import STREAM
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.stops import NatsStops
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import KEYS, SNAPSHOTS, set_up
from adapters.privacy.vault import AesVault
from domain.access.end_user import EndUser, earlier_person_id, person_id
from domain.aggregate import Snapshot, new_id
from domain.chat.conversation import Conversation
from domain.log import EVENTS, Commit, Metadata, Position, Subject
from handlers.ports.log import SavedSnapshot, Unavailable
from handlers.repository import SNAPSHOT_EVERY, Repository
from handlers.work.audit import Audit
from handlers.work.progress import no_progress
from ops.servers.embedded import EmbeddedNats

NOW = datetime(2026, 5, 4, tzinfo=UTC)
VAULT = AesVault(bytes(32))
QUERY = "Where did I park the zeppelin?"


def talk(id: str = "c", query: str = QUERY) -> Conversation:
    begun = Conversation.begin(Conversation.Started, id, NOW, app="a", user="ada", name=QUERY)
    begun.ask(NOW, message="m", app="a", configuration=1, query=query, inputs={"place": "mast"}, user="ada")
    return begun


class OneKey:
    def __init__(self, key: Any) -> None:
        self.key = key

    def get(self, tenant: str, person: str) -> Any:
        return self.key

    def check(self, position: Position, subject: str, headers: Mapping[str, str], body: bytes) -> None: ...


def read(body: bytes, headers: dict[str, str], ciphers: codec.Ciphers, subject: str = "evt.t.conversation.c") -> Commit:
    return codec.decode_commit(subject, body, headers, Position(EVENTS, 1), NOW, ciphers)


# --- the wire format -----------------------------------------------------------------------------------------


def test_words_are_sealed_and_the_rest_is_plain() -> None:
    events, key = talk().pending(), Key(bytes(32))
    body, headers = codec.encode_commit(events, Metadata("id", "t", "id", person="p"), key)
    [started, asked] = json.loads(body)
    assert QUERY.encode() not in body
    assert b"ada" not in body
    assert (started["state"]["app"], started["state"]["user"], started["state"]["name"]) == ("a", "", "")
    assert (asked["state"]["query"], asked["state"]["inputs"], asked["state"]["configuration"]) == ("", {}, 1)
    assert headers["Headrace-Person"] == "p"
    opened = read(body, headers, OneKey(key))
    assert [vars(event) for event in opened.events] == [vars(event) for event in events]
    blank = read(body, headers, OneKey(ERASED))
    assert (vars(blank.events[1])["query"], vars(blank.events[1])["inputs"], vars(blank.events[1])["message"]) == (
        "",
        {},
        "m",
    )


@pytest.mark.parametrize(("query", "schema"), [("When? " * 20, "1"), ("When? " * 200, "3")])
def test_long_words_are_compressed(query: str, schema: str) -> None:
    events, key = talk(query=query).pending(), Key(bytes(32))
    body, headers = codec.encode_commit(events, Metadata("id", "t", "id", person="p"), key, {})
    assert headers.get("Headrace-Schema", "1") == schema
    assert len(body) < 1000
    assert [vars(event) for event in read(body, headers, OneKey(key)).events] == [vars(event) for event in events]


def test_without_a_person_nothing_is_sealed() -> None:
    body, _ = codec.encode_commit(talk().pending(), Metadata("id", "t", "id"))
    assert QUERY.encode() in body
    assert b"sealed" not in body


def test_what_is_written_for_a_person_who_was_erased_is_empty() -> None:
    body, headers = codec.encode_commit(talk().pending(), Metadata("id", "t", "id", person="p"), ERASED)
    assert QUERY.encode() not in body
    assert vars(read(body, headers, OneKey(ERASED)).events[1])["query"] == ""
    assert vars(read(body, headers, OneKey(Key(bytes(32)))).events[1])["query"] == ""


def test_without_keys_words_are_neither_written_nor_read() -> None:
    metadata = Metadata("id", "t", "id", person="p")
    with pytest.raises(Unavailable):
        codec.encode_commit(talk().pending(), metadata)
    body, headers = codec.encode_commit(talk().pending(), metadata, Key(bytes(32)))
    with pytest.raises(Unavailable):
        read(body, headers, codec.NO_CIPHERS)


@pytest.mark.parametrize(
    ("header", "subject", "swapped"),
    [
        ({"Headrace-Person": "other"}, "evt.t.conversation.c", False),
        ({"Nats-Msg-Id": "other"}, "evt.t.conversation.c", False),
        ({}, "evt.other.conversation.c", False),
        ({}, "evt.t.conversation.c", True),
    ],
)
def test_what_is_sealed_is_bound_to_its_place(header: dict[str, str], subject: str, swapped: bool) -> None:
    key = OneKey(Key(bytes(32)))
    body, headers = codec.encode_commit(talk().pending(), Metadata("id", "t", "id", person="p"), key.key)
    if swapped:
        one, other = json.loads(body)
        one["sealed"], other["sealed"] = other["sealed"], one["sealed"]
        body = orjson.dumps([one, other])
    with pytest.raises(ValueError, match="changed, or belongs to another"):
        read(body, headers | header, key, subject)


# --- the keys ------------------------------------------------------------------------------------------------


@pytest.fixture
async def people(nc: Client) -> JetStreamKeys:
    found = JetStreamKeys(nc, VAULT)
    await found.start()
    return found


async def test_a_person_has_one_key_in_a_race(nc: Client, tenant: str) -> None:
    racers = [JetStreamKeys(nc, VAULT) for _ in range(10)]
    ids = await asyncio.gather(*(racer.person(tenant, "ada") for racer in racers))
    assert len(set(ids)) == 1
    sealed = (await racers[0].of(tenant, ids[0])).seal("x", b"words")
    for racer in racers:
        assert (await racer.of(tenant, ids[0])).open("x", sealed) == b"words"


async def test_tenants_have_people_of_their_own(people: JetStreamKeys, tenant: str) -> None:
    mine = await people.of(tenant, await people.person(tenant, "ada"))
    theirs = await people.of(f"{tenant}x", await people.person(f"{tenant}x", "ada"))
    with pytest.raises(ValueError, match="belongs to another"):
        theirs.open("x", mine.seal("x", b"words"))


async def test_who_was_erased_comes_back_as_another(people: JetStreamKeys, tenant: str) -> None:
    first, known = await people.last_person(tenant, "ada")
    assert not known
    assert await people.person(tenant, "ada") == first
    assert await people.last_person(tenant, "ada") == (first, True)
    await people.erase(tenant, first)
    assert await people.of(tenant, first) is ERASED
    assert await people.last_person(tenant, "ada") == (first, True)
    second = await people.person(tenant, "ada")
    assert second != first
    assert await people.last_person(tenant, "ada") == (second, True)
    await people.erase(tenant, second)
    await people.erase(tenant, second)
    third = await people.person(tenant, "ada")
    names = await people.key_of_names()
    assert [first, second, third] == [person_id(names, tenant, "ada", erasures) for erasures in range(3)]
    assert [await people.is_person(tenant, "ada", id) for id in (first, second, third)] == [True] * 3
    assert not await people.is_person(tenant, "eve", third)


async def test_ids_reveal_no_name(nc: Client, people: JetStreamKeys, tenant: str) -> None:
    ids = {await people.person(tenant, "ada"), await people.person(f"{tenant}x", "ada")}
    assert len(ids) == 2
    assert not ids & {earlier_person_id("ada"), person_id(b"", tenant, "ada"), person_id(bytes(32), tenant, "ada")}
    assert await JetStreamKeys(nc, VAULT).key_of_names() == await people.key_of_names()


async def test_a_person_of_an_earlier_version_keeps_the_id(nc: Client, people: JetStreamKeys, tenant: str) -> None:
    earlier = earlier_person_id("ada")
    await people.make(tenant, earlier)
    for reader in (people, JetStreamKeys(nc, VAULT)):
        assert await reader.last_person(tenant, "ada") == (earlier, True)
        assert await reader.person(tenant, "ada") == earlier
        assert await reader.is_person(tenant, "ada", earlier)
    await people.erase(tenant, earlier)
    assert await people.last_person(tenant, "ada") == (earlier, True)
    back = await people.person(tenant, "ada")
    assert back == person_id(await people.key_of_names(), tenant, "ada")
    assert await JetStreamKeys(nc, VAULT).last_person(tenant, "ada") == (back, True)


async def test_a_known_person_is_found_by_one_look(
    people: JetStreamKeys, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "HELD_S", 0.0)
    known = await people.person(tenant, "ada")
    looks: list[object] = []
    monkeypatch.setattr(people._reader, "last", looks.append)
    assert [await people.person(tenant, "ada") for _ in range(3)] == [known] * 3
    assert looks == []


async def test_everybody_forgets_at_once(nc: Client, people: JetStreamKeys, tenant: str) -> None:
    other = JetStreamKeys(nc, VAULT)
    await other.start()
    notified = asyncio.Event()
    other.on_erased = notified.set
    person = await other.person(tenant, "ada")
    await people.erase(tenant, person)
    await asyncio.wait_for(notified.wait(), 5)
    assert other.get(tenant, person) is ERASED


async def test_who_does_not_hear_of_it_forgets_soon(
    nc: Client, people: JetStreamKeys, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "HELD_S", 0.0)
    deaf = JetStreamKeys(nc, VAULT)
    person = await deaf.person(tenant, "ada")
    await people.erase(tenant, person)
    assert await deaf.of(tenant, person) is ERASED


async def test_a_key_that_is_lost_is_missed(nc: Client, people: JetStreamKeys, tenant: str) -> None:
    with pytest.raises(MissingKey, match="restore it from the archive"):
        await people.of(tenant, new_id())
    with pytest.raises(MissingKey):
        people.get(tenant, new_id())
    known = await people.person(tenant, "ada")
    with pytest.raises(MissingKey):
        await people.load([(tenant, new_id()), (tenant, known)])
    assert isinstance(people.get(tenant, known), Key)


async def test_another_master_secret_opens_no_key(nc: Client, people: JetStreamKeys, tenant: str) -> None:
    person = await people.person(tenant, "ada")
    with pytest.raises(Unavailable, match="sealed with another secret key"):
        await JetStreamKeys(nc, AesVault(b"1" * 32)).of(tenant, person)


async def test_a_key_under_another_name_is_refused(nc: Client, people: JetStreamKeys, tenant: str) -> None:
    person = await people.person(tenant, "ada")
    kept, other = await nc.jetstream().get_last_msg(STREAM, f"$KV.{KEYS}.{tenant}.{person}"), new_id()
    await nc.jetstream().publish(f"$KV.{KEYS}.{tenant}.{other}", kept.data or b"")
    with pytest.raises(Unavailable, match="or this person's key"):
        await people.of(tenant, other)


async def test_more_keys_than_are_asked_for_at_once_or_held(
    nc: Client, people: JetStreamKeys, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await asyncio.gather(*(people.person(tenant, f"user {number}") for number in range(25)))
    monkeypatch.setattr(keys, "_ASKED", 10)
    fresh = JetStreamKeys(nc, VAULT)
    await fresh.load((tenant, id) for id in ids)
    assert all(isinstance(fresh.get(tenant, id), Key) for id in ids)
    monkeypatch.setattr(keys, "HELD", 5)
    small = JetStreamKeys(nc, VAULT)
    for id in ids:
        await small.of(tenant, id)
    assert len(small._held) == 5


async def test_an_erased_key_is_not_left_on_the_disk(tmp_path: Path) -> None:
    class Plain(EmbeddedNats):
        def configuration(self) -> str:
            settings = json.loads(super().configuration().replace("$JETSTREAM_KEY", '"x"'))
            del settings["jetstream"]["cipher"], settings["jetstream"]["key"]
            return json.dumps(settings)

    async with Plain(tmp_path) as server:
        nc = await nats.connect(server.url)
        await set_up(nc.jetstream())
        people = JetStreamKeys(nc, VAULT)
        person, other = await people.person("acme", "ada"), await people.person("acme", "eve")

        async def wrapped(id: str) -> bytes:
            kept = await nc.jetstream().get_last_msg(STREAM, f"$KV.{KEYS}.acme.{id}")
            return bytes(orjson.loads(kept.data or b"")["key"].encode())

        def on_disk() -> bytes:
            return b"".join(file.read_bytes() for file in server.store.rglob("*") if file.is_file())

        gone, stays = await wrapped(person), await wrapped(other)
        assert gone in on_disk()
        await people.erase("acme", person)
        assert gone not in on_disk()
        assert stays in on_disk()
        await nc.close()
    assert gone not in on_disk()


# --- the log and the snapshots ---------------------------------------------------------------------------------


async def test_the_log_is_read_up_to_the_erasure_and_blank_after_it(fresh: Client, tenant: str) -> None:
    people = JetStreamKeys(fresh, VAULT)
    person, store = await people.person(tenant, "ada"), JetStreamEventStore(fresh, people)
    for id in ("before", "after"):
        metadata = Metadata(new_id(), tenant, new_id(), person=person)
        await store.append(Subject(tenant, "conversation", id), talk(id).pending(), metadata, 0)
        if id == "before":
            erased = EndUser.begin(EndUser.Erased, person, NOW, known=True).pending()
            metadata = Metadata(new_id(), tenant, new_id())
            await store.append(Subject(tenant, "end_user", person), erased, metadata, 0)
    log = JetStreamLog(fresh, JetStreamKeys(fresh, VAULT))
    commits = [commit async for some in log.read(EVENTS, 0, follow=False) for commit in some]
    names = [vars(commit.events[0]).get("name") for commit in commits]
    assert names == [QUERY, None, ""]


async def test_a_message_without_a_person_needs_no_key(fresh: Client, tenant: str) -> None:
    metadata = Metadata(new_id(), tenant, new_id())
    await JetStreamEventStore(fresh).append(Subject(tenant, "conversation", "c"), talk().pending(), metadata, 0)
    [[commit]] = [some async for some in JetStreamLog(fresh).read(EVENTS, 0, follow=False)]
    assert vars(commit.events[1])["query"] == QUERY


async def test_verify_names_what_a_lost_key_makes_unreadable(fresh: Client, tenant: str) -> None:
    people = JetStreamKeys(fresh, VAULT)
    store = JetStreamEventStore(fresh, people)
    for name in ("ada", "eve"):
        metadata = Metadata(new_id(), tenant, new_id(), person=await people.person(tenant, name))
        await store.append(Subject(tenant, "conversation", name), talk(name).pending(), metadata, 0)
    ada = await people.person(tenant, "ada")
    lost = await fresh.jetstream().get_last_msg(STREAM, f"$KV.{KEYS}.{tenant}.{ada}")
    await fresh.jetstream().delete_msg(STREAM, int(lost.seq or 0))
    audit = Audit()
    await AuditedLog(JetStreamLog(fresh, JetStreamKeys(fresh, VAULT)), audit).finish(no_progress)
    assert (audit.decoded.checked, audit.decoded.faults) == (2, 1)
    assert ada in audit.decoded.first[0]
    assert "EVENTS 1" in audit.decoded.first[0]
    with pytest.raises(MissingKey):
        [it async for it in JetStreamLog(fresh, JetStreamKeys(fresh, VAULT)).read(EVENTS, 0, follow=False)]


JUNK = [b'{"stream":"COMMANDS","seq":1}', b'"erased"', b'["erased"]', b'{"erased":1}', b"", b'{"erased":"now"}']


@pytest.mark.parametrize("junk", [*JUNK, b'{"erased":"now","mac":"01234567:abc"}', b'{"key":"v1:abc"}'])
async def test_what_another_program_writes_to_the_bucket_erases_no_key(fresh: Client, tenant: str, junk: bytes) -> None:
    people = JetStreamKeys(fresh, VAULT)
    await people.start()
    person = await people.person(tenant, "ada")
    await fresh.jetstream().publish(f"$KV.{KEYS}.{tenant}.{person}", junk)
    await fresh.flush()
    with suppress(Unavailable):  # the keys in use are read again
        await people.of(tenant, person)
    assert isinstance(people.get(tenant, person), Key)
    other = JetStreamKeys(fresh, VAULT)
    with suppress(Unavailable):
        await other.of(tenant, person)
    assert isinstance(await other.of(tenant, person), Key)


async def test_only_what_another_program_wrote_is_no_key(fresh: Client, tenant: str) -> None:
    ada, _ = await JetStreamKeys(fresh, VAULT).last_person(tenant, "ada")
    await fresh.jetstream().publish(f"$KV.{KEYS}.{tenant}.{ada}", b'{"erased":"now"}')
    with pytest.raises(Unavailable, match="is a mark or this person's key"):
        await JetStreamKeys(fresh, VAULT).person(tenant, "ada")


async def test_an_answer_is_stopped_when_its_person_is_erased(fresh: Client, tenant: str) -> None:
    stops = NatsStops(fresh)
    await stops.start()
    hers, his = (stops.watch(tenant, "c", message, person=message) for message in ("ada", "bob"))
    theirs = stops.watch(f"{tenant}x", "c", "ada", person="ada")
    metadata = Metadata(new_id(), tenant, new_id())
    events = EndUser.begin(EndUser.Erased, "ada", NOW, known=True).pending()
    await JetStreamEventStore(fresh).append(Subject(tenant, "end_user", "ada"), events, metadata, 0)
    await asyncio.wait_for(hers.wait(), 5)
    assert not his.is_set()
    assert not theirs.is_set()


async def test_a_snapshot_is_sealed_and_goes_with_its_person(nc: Client, people: JetStreamKeys, tenant: str) -> None:
    person, subject = await people.person(tenant, "ada"), Subject(tenant, "conversation", "c")
    folded = talk()
    folded.pending()
    snapshots = JetStreamSnapshots(nc, people)
    taken = SavedSnapshot(Snapshot.of(folded), 7, {"id": (7, 2)}, person)
    await snapshots.put(subject, taken)
    kept = await (await nc.jetstream().key_value(SNAPSHOTS)).get(str(subject))
    assert (kept.value or b"").startswith(f"sealed {person} ".encode())
    found = await snapshots.get(subject)
    assert found is not None
    assert (found.person, vars(found.snapshot)) == (person, vars(taken.snapshot))
    with pytest.raises(Unavailable):
        await JetStreamSnapshots(nc).get(subject)
    await people.erase(tenant, person)
    assert await snapshots.get(subject) is None


async def test_an_aggregate_keeps_its_person_through_a_snapshot(nc: Client, people: JetStreamKeys, tenant: str) -> None:
    repository = Repository(JetStreamEventStore(nc, people), JetStreamSnapshots(nc, people))
    person, id = await people.person(tenant, "ada"), new_id()
    await repository.change(
        Conversation, id, Metadata(new_id(), tenant, new_id(), person=person), lambda known: known or talk(id)
    )

    def rename(known: Conversation | None, name: str) -> Conversation:
        assert known is not None
        known.rename(NOW, name=name)
        return known

    for number in range(SNAPSHOT_EVERY + 5):
        metadata = Metadata(new_id(), tenant, new_id())
        await repository.change(
            Conversation,
            id,
            metadata,
            lambda known, number=number: rename(known, f"name {number}"),  # type: ignore[misc]
        )
    again = Repository(JetStreamEventStore(nc, people), JetStreamSnapshots(nc, people))
    await again.change(Conversation, id, Metadata(new_id(), tenant, new_id()), lambda known: rename(known, "last"))
    commits = await JetStreamEventStore(nc, people).load(Subject(tenant, "conversation", id))
    assert {commit.metadata.person for commit in commits} == {person}
    await people.erase(tenant, person)
    repository.forget()
    found = await repository.get(Conversation, tenant, id)
    assert found is not None
    assert (found.user, found.name, found.messages["m"]["query"]) == ("", "", "")
