from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from eventsourcing.domain import OriginatorVersionError
from hypothesis import given as examples
from hypothesis import strategies

from adapters.jetstream import codec
from domain import aggregate, nouns
from domain.aggregate import Aggregate, Rejection, Snapshot, new_id, uuid7
from domain.chat.app import App
from domain.knowledge.dataset import Dataset
from domain.log import Metadata, Position
from tests.domain.chat.test_app import app, asking, configure
from tests.domain.scenario import NOW, given, refold


class Lock(Aggregate):
    """A sample noun whose first event has changed its shape: v1 had one `size` in feet, v2 has metres."""

    TOPIC = "sample_lock"
    length_m: float
    width_m: float

    class Event(aggregate.Event):
        pass

    class Built(Event, aggregate.Created):
        TOPIC = "sample_lock.built.v2"
        class_version = 2
        length_m: float
        width_m: float

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            length, width = state.pop("size_ft").split("x")
            state["length_m"], state["width_m"] = int(length) * 0.3048, int(width) * 0.3048


@pytest.fixture
def lock_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codec knows the sample noun, as it does the real ones."""
    monkeypatch.setitem(nouns.NOUNS, Lock.TOPIC, Lock)
    known = codec.event_types.__wrapped__()
    monkeypatch.setattr(codec, "event_types", lambda: known)


def decode(type: str, version: int, state: dict[str, Any]) -> Any:
    body = json.dumps([{"type": type, "version": version, "state": state}]).encode()
    return codec.decode_commit("evt.t.sample_lock.x", body, {"Nats-Msg-Id": "c"}, Position("EVENTS", 1), NOW).events[0]


def test_ids_are_canonical_and_in_order_of_time() -> None:
    moments = [NOW + timedelta(milliseconds=n) for n in range(1000)]
    ids = [new_id(moment) for moment in moments]
    assert ids == sorted(ids)
    assert all(id == str(UUID(id)) for id in ids)
    assert {(UUID(id).version, UUID(id).variant) for id in ids} == {(7, RFC_4122)}
    assert UUID(ids[7]).int >> 80 == int(moments[7].timestamp() * 1000)


def test_ids_of_the_same_moment_differ() -> None:
    assert len({new_id(NOW) for _ in range(1000)}) == 1000


def test_an_id_has_the_time_it_was_made() -> None:
    before = datetime.now(UTC).timestamp()
    made_at = (UUID(new_id()).int >> 80) / 1000
    assert before - 0.001 <= made_at <= datetime.now(UTC).timestamp()


@examples(strategies.integers(0, 2**48 - 1), strategies.binary(min_size=10, max_size=10))
def test_uuid7_is_made_of_its_arguments_alone(milliseconds: int, rest: bytes) -> None:
    id = UUID(uuid7(milliseconds, rest))
    assert str(id) == uuid7(milliseconds, rest + b"more")
    assert (id.version, id.variant, id.int >> 80) == (7, RFC_4122, milliseconds)
    assert id.int & (2**62 - 1) == int.from_bytes(rest) & (2**62 - 1)


def test_a_rejection_is_its_sentence() -> None:
    rejection = Rejection("not_found", "There is no such app.", "app")
    assert (str(rejection), rejection.code, rejection.field) == ("There is no such app.", "not_found", "app")


def test_times_are_kept_in_utc() -> None:
    it = given(app()).aggregate
    it.delete(NOW.astimezone(timezone(timedelta(hours=5))))
    assert it.pending()[0].timestamp == NOW
    assert it.modified_on.utcoffset() == timedelta(0)


def test_pending_is_handed_out_once() -> None:
    it = app()
    assert [type(event) for event in it.pending()] == [App.Created]
    assert it.pending() == []


def test_events_fold_only_in_order() -> None:
    it = app()
    configure(it)
    created, configured = it.pending()
    assert vars(refold(App, [created, configured])) == vars(it)
    with pytest.raises(OriginatorVersionError):
        configured.mutate(it)


def test_a_snapshot_gives_the_same_aggregate() -> None:
    it = given(app(), configure, asking).aggregate
    stored = json.loads(json.dumps(codec.encode_snapshot(Snapshot.of(it)), default=str))
    again = codec.decode_snapshot(stored).mutate(None)
    assert isinstance(again, App)
    assert vars(again) == vars(it)
    assert (again.id, again.version, again.pending()) == (it.id, 3, [])


def test_an_aggregate_goes_on_from_its_snapshot() -> None:
    again = Snapshot.of(given(app(), configure).aggregate).mutate(None)
    assert isinstance(again, App)
    again.delete(NOW)
    assert [(type(event), event.originator_version) for event in again.pending()] == [(App.Deleted, 3)]


@pytest.mark.usefixtures("lock_known")
def test_a_stored_v1_is_brought_up_to_the_newest_shape() -> None:
    event = decode(
        "sample_lock.built.v1",
        1,
        {"size_ft": "100x20", "originator_topic": "sample_lock", "timestamp": NOW.isoformat()},
    )
    assert isinstance(event, Lock.Built)
    assert (event.length_m, event.width_m) == (pytest.approx(30.48), pytest.approx(6.096))
    folded = event.mutate(None)
    assert isinstance(folded, Lock)
    assert folded.length_m == event.length_m


@pytest.mark.usefixtures("lock_known")
def test_the_newest_shape_is_stored_under_the_newest_name() -> None:
    built = Lock._create(Lock.Built, id="x", timestamp=NOW, length_m=30.0, width_m=6.0).pending()
    body, headers = codec.encode_commit(built, Metadata("c", "t", "c"))
    stored = json.loads(body)[0]
    assert (stored["type"], stored["state"]["class_version"]) == ("sample_lock.built.v2", 2)
    assert headers["Headrace-Types"] == "sample_lock.built.v2"
    assert decode(stored["type"], 1, stored["state"]) == built[0]


def test_an_unknown_type_is_not_guessed_at() -> None:
    with pytest.raises(codec.UnknownEvent, match=r"sample_lock\.built\.v3"):
        decode("sample_lock.built.v3", 1, {})


def test_every_event_has_a_stable_name() -> None:
    for name, event in codec.event_types().items():
        noun, verb, version = name.split(".")
        assert name == f"{noun}.{verb}.{version}"
        assert version in {f"v{number}" for number in range(1, event.class_version + 1)}
    assert codec.event_types()["dataset.created.v1"] is Dataset.Created
    topics = [event.TOPIC for event in set(codec.event_types().values())]
    assert len(topics) == len(set(topics))
