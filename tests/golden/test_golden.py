"""Every event that was ever stored can still be read, and is stored the same."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from adapters.jetstream.codec import decode_commit, encode_commit, event_types
from domain.aggregate import Aggregate, Created
from domain.log import Metadata, Position
from domain.nouns import NOUNS
from tests.golden import make

NAMES = sorted(event_types())
NEWEST = [name for name in NAMES if name == event_types()[name].TOPIC]


def golden(name: str) -> dict[str, Any]:
    stored: dict[str, Any] = orjson.loads(make.path(name).read_bytes())
    return stored


def decoded(stored: dict[str, Any]) -> Any:
    header = {"Nats-Msg-Id": "commit"}
    at = datetime(2026, 5, 4, tzinfo=UTC)
    body = orjson.dumps([stored])
    return decode_commit("evt.default.noun.some-id", body, header, Position("EVENTS", 1), at).events[0]


def test_every_event_version_has_a_golden_file_and_no_file_is_left_over() -> None:
    assert {file.stem for file in make.HERE.glob("*.json")} == set(NAMES)
    assert set(make.sums()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_is_never_edited(name: str) -> None:
    assert hashlib.sha256(make.path(name).read_bytes()).hexdigest() == make.sums()[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_event_is_read(name: str) -> None:
    stored = golden(name)
    event = decoded(stored)
    assert set(stored) == {"type", "version", "state"}
    assert stored["type"] == name
    assert type(event) is event_types()[name]
    assert (event.originator_id, event.originator_version) == ("some-id", stored["version"])
    assert event.timestamp == datetime.fromisoformat(stored["state"]["timestamp"])


@pytest.mark.parametrize("name", NEWEST)
def test_a_stored_event_is_stored_the_same_again(name: str) -> None:
    stored = golden(name)
    body, headers = encode_commit([decoded(stored)], Metadata("commit", "default", "command"))
    assert orjson.loads(body) == [stored]
    assert headers["Headrace-Types"] == name


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(NEWEST)))
def test_an_event_of_an_older_version_is_stored_as_one_of_the_newest(name: str) -> None:
    event = decoded(golden(name))
    body, headers = encode_commit([event], Metadata("commit", "default", "command"))
    assert headers["Headrace-Types"] == type(event).TOPIC
    assert vars(decoded(orjson.loads(body)[0])) == vars(event)


@pytest.mark.parametrize("name", [name for name in NAMES if issubclass(event_types()[name], Created)])
def test_a_stored_first_event_makes_its_noun(name: str) -> None:
    stored = golden(name)
    aggregate = decoded(stored).mutate(None)
    assert isinstance(aggregate, Aggregate)
    assert type(aggregate) is NOUNS[stored["state"]["originator_topic"]]


def test_the_command_writes_only_what_is_missing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "HERE", tmp_path)
    monkeypatch.setattr(make, "SUMS", tmp_path / "SHA256SUMS")
    make.main()
    assert {file.stem for file in tmp_path.glob("*.json")} == set(NEWEST)
    one, other = make.path(NEWEST[0]), make.path(NEWEST[1])
    one.write_text("{}")
    before = make.sums()
    make.main()
    assert (one.read_text(), make.sums()) == ("{}", before)
    other.write_text("{}")
    make.SUMS.write_text("".join(f"{digest}  {name}.json\n" for name, digest in before.items() if name != NEWEST[1]))
    with pytest.raises(FileExistsError):
        make.main()
    assert other.read_text() == "{}"
