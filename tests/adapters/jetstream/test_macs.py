"""Authentication codes: a message that this installation did not write is in quarantine, in every stream."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from nats.aio.client import Client

from adapters.jetstream import codec
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.macs import MAC, STATEMENT, STREAM, Macs
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.raw import RawStream
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import KEYS, SNAPSHOTS
from adapters.privacy.vault import AesVault, UnknownKey
from domain.aggregate import Snapshot, new_id
from domain.chat.conversation import Conversation
from domain.log import EVENTS, OUTCOMES, Commit, Metadata, Outcome, Position, Quarantined, Subject, Verdict
from handlers.ports.log import Frozen, SavedSnapshot, Unavailable

NOW = datetime(2026, 5, 4, tzinfo=UTC)
VAULT, OTHER = AesVault(bytes(32)), AesVault(b"1" * 32)
HEADERS = {"Nats-Msg-Id": "id", "Nats-Expected-Last-Subject-Sequence": "0", "Headrace-Actor": "ada"}
SUBJECT = "evt.t.app.a"


def talk(id: str) -> Conversation:
    return Conversation.begin(Conversation.Started, id, NOW, app="a", user="ada", name="Where?")


def accepted(tenant: str, command: str) -> Outcome:
    return Outcome(command, "app.create", "accepted", Metadata(command, tenant, command), NOW, Position(EVENTS, 1), 1)


async def unsigned(nc: Client, tenant: str, id: str) -> Subject:
    """A commit as an earlier version wrote it, and as a forger would."""
    subject = Subject(tenant, "conversation", id)
    await JetStreamEventStore(nc).append(subject, talk(id).pending(), Metadata(new_id(), tenant, new_id()), 0)
    return subject


async def recorded(nc: Client, stream: str, vault: AesVault = VAULT) -> list[object]:
    log = JetStreamLog(nc, JetStreamKeys(nc, vault))
    return [message async for some in log.read(stream, 0, follow=False) for message in some]


# --- a code --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"stream": OUTCOMES},
        {"subject": "evt.u.app.a"},
        {"body": b"[1]"},
        {"headers": HEADERS | {"Nats-Msg-Id": "other"}},
        {"headers": HEADERS | {"Nats-Expected-Last-Subject-Sequence": "1"}},
        {"headers": HEADERS | {"Headrace-Actor": "eve"}},
        {"headers": HEADERS | {"Headrace-Person": "p"}},
        {"headers": {name: value for name, value in HEADERS.items() if name != "Headrace-Actor"}},
    ],
    ids=str,
)
async def test_a_code_covers_where_and_what(nc: Client, changed: dict[str, Any]) -> None:
    macs = Macs(nc, VAULT)
    code = macs.sign(EVENTS, SUBJECT, HEADERS, b"[]")[MAC]
    parts = {"stream": EVENTS, "subject": SUBJECT, "headers": HEADERS, "body": b"[]"}

    def check(stream: str, subject: str, headers: dict[str, str], body: bytes) -> None:
        macs.check(Position(stream, 7), subject, {**headers, MAC: code}, body)

    check(**parts)  # type: ignore[arg-type]
    with pytest.raises(codec.NotAuthentic, match="is wrong"):
        check(**parts | changed)  # type: ignore[arg-type]


async def test_a_code_survives_the_way_through_a_server(fresh: Client, tenant: str) -> None:
    """Spaces at the ends of a header are lost; letters of all scripts are not."""
    keys, subject = JetStreamKeys(fresh, VAULT), Subject(tenant, "conversation", "c")
    metadata = Metadata(new_id(), tenant, " corrélation 水 ", actor="  ada ")
    await JetStreamEventStore(fresh, keys).append(subject, talk("c").pending(), metadata, 0)
    assert [type(message) for message in await recorded(fresh, EVENTS)] == [Commit]
    assert len(await JetStreamEventStore(fresh, keys).load(subject)) == 1


# --- the streams ---------------------------------------------------------------------------------------------


async def test_a_commit_that_another_program_wrote_freezes_its_aggregate_alone(fresh: Client, tenant: str) -> None:
    keys = JetStreamKeys(fresh, VAULT)
    store, sound = JetStreamEventStore(fresh, keys), Subject(tenant, "conversation", "sound")
    forged = await unsigned(fresh, tenant, "forged")
    await store.append(sound, talk("sound").pending(), Metadata(new_id(), tenant, new_id()), 0)
    first, second = await recorded(fresh, EVENTS)
    assert isinstance(first, Quarantined)
    assert first.reason == "is no commit (it has no authentication code)."
    assert isinstance(second, Commit)
    with pytest.raises(Frozen):
        await store.load(forged)
    assert len(await store.load(sound)) == 1


async def test_a_commit_put_under_another_subject_is_no_commit(fresh: Client, tenant: str) -> None:
    keys, subject = JetStreamKeys(fresh, VAULT), Subject(tenant, "conversation", "c")
    await JetStreamEventStore(fresh, keys).append(subject, talk("c").pending(), Metadata(new_id(), tenant, new_id()), 0)
    kept = await fresh.jetstream().get_msg(EVENTS, 1)
    headers = dict(kept.headers or {})
    del headers["Nats-Msg-Id"]  # the stream drops a second message with its id
    await fresh.jetstream().publish("evt.victim.conversation.c", kept.data or b"", headers=headers)
    [own, copied] = await recorded(fresh, EVENTS)
    assert isinstance(own, Commit)
    assert isinstance(copied, Quarantined)


async def test_an_outcome_that_another_program_wrote_decides_nothing(fresh: Client, tenant: str) -> None:
    outcomes, command = JetStreamOutcomes(fresh, JetStreamKeys(fresh, VAULT)), new_id()
    forged = replace(accepted(tenant, command), status="rejected", code="invalid", message="Never.")
    await JetStreamOutcomes(fresh).put(forged)
    assert await outcomes.get(tenant, command) is None
    await outcomes.put(accepted(tenant, command))
    found = await outcomes.get(tenant, command)
    assert found is not None
    assert found.status == "accepted"
    assert [type(message) for message in await recorded(fresh, OUTCOMES)] == [Quarantined, Verdict]


async def test_a_snapshot_that_another_program_wrote_is_not_used(fresh: Client, tenant: str) -> None:
    snapshots, subject = JetStreamSnapshots(fresh, JetStreamKeys(fresh, VAULT)), Subject(tenant, "conversation", "c")
    folded = talk("c")
    folded.pending()
    taken = SavedSnapshot(Snapshot.of(folded), 7, {"id": (7, 2)}, None)
    await JetStreamSnapshots(fresh).put(subject, taken)
    assert await snapshots.get(subject) is None
    await snapshots.put(subject, taken)
    assert await snapshots.get(subject) is not None
    kept = await fresh.jetstream().get_last_msg(f"KV_{SNAPSHOTS}", f"$KV.{SNAPSHOTS}.{subject}")
    other = Subject(tenant, "conversation", "d")
    await fresh.jetstream().publish(f"$KV.{SNAPSHOTS}.{other}", kept.data or b"", headers=kept.headers)
    assert await snapshots.get(other) is None


# --- the statement of the installation -----------------------------------------------------------------------


async def test_what_an_earlier_version_wrote_is_accepted(fresh: Client, tenant: str) -> None:
    await unsigned(fresh, tenant, "earlier")
    await JetStreamOutcomes(fresh).put(accepted(tenant, new_id()))
    await JetStreamKeys(fresh, VAULT).macs.establish()
    await JetStreamKeys(fresh, VAULT).macs.establish()
    await unsigned(fresh, tenant, "forged")
    await JetStreamOutcomes(fresh).put(accepted(tenant, new_id()))
    assert [type(message) for message in await recorded(fresh, EVENTS)] == [Commit, Quarantined]
    assert [type(message) for message in await recorded(fresh, OUTCOMES)] == [Verdict, Quarantined]


async def test_another_secret_key_is_refused_before_anything_is_written(fresh: Client) -> None:
    await Macs(fresh, VAULT).establish()
    with pytest.raises(UnknownKey, match=f"lacks key {VAULT.current}"):
        await Macs(fresh, OTHER).establish()
    with pytest.raises(UnknownKey):
        await Macs(fresh, OTHER).load()


async def test_a_statement_that_another_program_wrote_does_not_count(fresh: Client, tenant: str) -> None:
    await Macs(fresh, VAULT).establish()
    forged = orjson.dumps({"installation": OTHER.seal("_house", '{"keys":[],"accepted":{"EVENTS":1000}}')})
    for body in (forged, b'{"stream":"COMMANDS","seq":1}', b""):
        await fresh.jetstream().publish(f"$KV.{KEYS}.{STATEMENT.replace('/', '.')}", body)
    await unsigned(fresh, tenant, "forged")
    assert [type(message) for message in await recorded(fresh, EVENTS)] == [Quarantined]
    await Macs(fresh, VAULT).establish()


async def test_a_code_of_an_unknown_key_is_wrong_once_the_statement_was_read_again(fresh: Client) -> None:
    macs, place = Macs(fresh, VAULT), Position(EVENTS, 1)
    await macs.establish()
    headers = Macs(fresh, OTHER).sign(EVENTS, SUBJECT, HEADERS, b"[]")
    with pytest.raises(Unavailable, match="read again"):
        macs.check(place, SUBJECT, headers, b"[]")
    await macs.load()
    with pytest.raises(codec.NotAuthentic, match="unknown key"):
        macs.check(place, SUBJECT, headers, b"[]")


async def test_after_another_master_secret_codes_of_the_earlier_one_hold_without_it(fresh: Client) -> None:
    headers = Macs(fresh, VAULT).sign(EVENTS, SUBJECT, HEADERS, b"[]")
    for masters in ([bytes(32)], [bytes(32), b"1" * 32], [b"1" * 32, bytes(32)]):
        await Macs(fresh, AesVault(*masters)).establish()
    macs = Macs(fresh, OTHER)
    await macs.establish()
    macs.check(Position(EVENTS, 1), SUBJECT, headers, b"[]")


async def test_a_process_without_the_newest_master_secret_waits(fresh: Client) -> None:
    """It must not take the commits of the others for forged ones."""
    stale = Macs(fresh, VAULT)
    await stale.establish()
    newest = Macs(fresh, AesVault(b"1" * 32, bytes(32)))
    await newest.establish()
    headers = newest.sign(EVENTS, SUBJECT, HEADERS, b"[]")
    for _ in range(2):
        with pytest.raises(Unavailable):
            stale.check(Position(EVENTS, 1), SUBJECT, headers, b"[]")
        await stale.load()


async def test_a_restored_statement_keeps_what_was_accepted(fresh: Client, tenant: str) -> None:
    """Messages keep their sequences and codes in an archive, and so need no new ones."""
    await unsigned(fresh, tenant, "earlier")
    await Macs(fresh, VAULT).establish()
    [kept] = [message async for some in RawStream(fresh, STREAM).read(0, 1) for message in some]
    macs = Macs(fresh, VAULT)
    assert await macs.restore(kept.body, {EVENTS: 9}) is False
    await unsigned(fresh, tenant, "forged")
    assert [type(message) for message in await recorded(fresh, EVENTS)] == [Commit, Quarantined]
    with pytest.raises(UnknownKey):
        await Macs(fresh, OTHER).restore(kept.body, {EVENTS: 2})
    for sequence in (1, 2):
        await fresh.jetstream().delete_msg(STREAM, sequence)
    assert await Macs(fresh, OTHER).restore(kept.body, {EVENTS: 2}, other_secret=True) is True
    assert [type(message) for message in await recorded(fresh, EVENTS, OTHER)] == [Commit, Commit]
