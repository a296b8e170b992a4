"""Commands as they come over the bus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import nats
import orjson
import pytest
from nats.aio.client import Client

from adapters.jetstream.streams import ACTORS_AFTER, COMMANDS, DEAD, set_up
from adapters.jetstream.workers.commands import subscribe_commands
from adapters.jetstream.workers.consumers import Consumers
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from adapters.jetstream.workers.works import subscribe_work
from domain.aggregate import new_id
from domain.log import OUTCOMES, Outcome, Position, commit_id
from domain.work.dead_letter import DeadLetter, dead_letter_id
from handlers.dispatch import Delivery, Dispatch
from handlers.ports.log import Unavailable
from handlers.work.dead_letters import Failure, RetryDeadLetters
from handlers.work.work import TRIES
from ops.servers.embedded import EmbeddedNats
from tests.adapters.jetstream.conftest import Running
from tests.adapters.jetstream.workers.test_consumer import dead
from tests.handlers.desk import Desk

CREATE = b'{"name": "Guide"}'


@pytest.fixture
async def desk(fresh: Client, running: Running) -> Desk:
    """A desk whose commands are taken off the bus."""
    desk = Desk(fresh, "acme")
    await running(lambda consumers: subscribe_commands(consumers, desk.dispatch, desk.repository))
    return desk


async def outcomes(nc: Client, count: int = 1) -> list[dict[str, Any]]:
    """Return all outcomes, once there are `count` and no command waits."""
    js = nc.jetstream()
    async with asyncio.timeout(10):
        while (await js.stream_info(OUTCOMES)).state.last_seq < count or (
            await js.stream_info(COMMANDS)
        ).state.messages:
            await asyncio.sleep(0.01)
    last = (await js.stream_info(OUTCOMES)).state.last_seq
    return [orjson.loads((await js.get_msg(OUTCOMES, place)).data or b"") for place in range(1, last + 1)]


async def test_a_command_has_its_outcome_where_it_was_promised(desk: Desk) -> None:
    nc, id, cause = desk.nc, new_id(), new_id()
    heard = await nc.subscribe(f"out.acme.{id}")
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"Headrace-Id": id, "Headrace-Correlation": cause, "traceparent": trace}
    before = datetime.now(UTC) - timedelta(seconds=1)
    await nc.jetstream().publish("cmd.acme.s_crm.app.create", CREATE, headers=headers)
    outcome = orjson.loads((await heard.next_msg(timeout=5)).data)
    [kept] = await outcomes(nc)
    assert outcome == kept
    assert (outcome["command"], outcome["name"], outcome["status"]) == (id, "app.create", "accepted")
    assert (outcome["stream"], outcome["sequence"], outcome["version"]) == ("EVENTS", 1, 1)
    assert outcome["ids"] == {"app": id}
    assert (outcome["correlation"], outcome["actor"], outcome["door"]) == (cause, "s_crm", "bus")
    assert before < datetime.fromisoformat(outcome["at"]) < datetime.now(UTC) + timedelta(seconds=1)
    [commit] = await desk.commits("app", id)
    metadata = commit.metadata
    assert (metadata.causation, metadata.correlation) == (id, cause)
    assert (metadata.actor, metadata.door, metadata.traceparent) == ("s_crm", "bus", trace)


@pytest.mark.parametrize(
    ("actor", "named", "door"),
    [
        ("s_crm", "operator", "bus"),
        ("s_crm", "viewer", "bus"),
        ("anon", None, "operator"),
        ("anon", "viewer", "viewer"),
        ("anon", "bus", "bus"),
        ("anon", "back", "operator"),
        ("a_0193aaaa-0000-7000-8000-000000000001", "viewer", "viewer"),
        ("k_0193aaaa-0000-7000-8000-000000000001", "operator", "bus"),
    ],
)
async def test_the_subject_proves_the_actor_and_headers_say_nothing(
    desk: Desk, actor: str, named: str | None, door: str
) -> None:
    """A service may publish any header, and no actor but its own."""
    headers = {"Headrace-Id": new_id(), "Headrace-Actor": "a_owner"} | ({"Headrace-Door": named} if named else {})
    await desk.nc.jetstream().publish(f"cmd.acme.{actor}.app.create", CREATE, headers=headers)
    [outcome] = await outcomes(desk.nc)
    assert (outcome["actor"], outcome["door"]) == (actor, door)
    commits = await desk.commits("app", headers["Headrace-Id"])
    unknown = actor.startswith(("a_", "k_"))
    assert (outcome["code"], len(commits)) == (("forbidden", 0) if unknown else (None, 1))
    assert {(commit.metadata.actor, commit.metadata.door) for commit in commits} <= {(actor, door)}


@pytest.mark.parametrize(
    ("actor", "named", "kept"),
    [
        ("anon", "0193aaaa-0000-7000-8000-00000000000b", True),
        ("s_crm", "0193aaaa-0000-7000-8000-00000000000b", False),
        ("anon", "192.0.2.7", False),
    ],
)
async def test_the_origin_of_a_command_reaches_its_outcome_alone(
    desk: Desk, actor: str, named: str, kept: bool
) -> None:
    """A service names no origin; and the outcome has it in a header, which is authenticated."""
    id = new_id()
    headers = {"Headrace-Id": id, "Headrace-Origin": named}
    await desk.nc.jetstream().publish(f"cmd.acme.{actor}.app.create", CREATE, headers=headers)
    await outcomes(desk.nc)
    stored = await desk.nc.jetstream().get_msg(OUTCOMES, 1)
    assert (stored.headers or {}).get("Headrace-Origin") == (named if kept else None)
    assert named not in (stored.data or b"").decode()
    outcome = await desk.outcomes.get("acme", id)
    assert outcome is not None
    assert outcome.metadata.origin == (named if kept else None)
    [commit] = await desk.commits("app", id)
    assert commit.metadata.origin is None


async def test_a_subject_without_an_actor_is_rejected_with_the_rule(desk: Desk) -> None:
    """Under the id where a sender of an earlier version waits for it, and whatever stands in place of the actor."""
    subjects = [
        "cmd.acme.app.create",
        "cmd.acme.viewer.app.create",
        "cmd.acme.s_.app.create",
        "cmd.acme.S_x.app.create",
    ]
    for count, subject in enumerate(subjects, 1):
        id = new_id()
        await desk.nc.jetstream().publish(subject, CREATE, headers={"Nats-Msg-Id": id})
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["command"], outcome["code"], outcome["field"]) == (id, "invalid", "subject")
        assert "cmd.<tenant>.<actor>.<noun>.<verb>" in outcome["message"]
        assert await desk.commits("app", id) == []


async def test_a_command_with_a_nats_msg_id_is_rejected(desk: Desk) -> None:
    """NATS would drop it where any tenant has sent the same; so no sender gets used to it."""
    id, other = new_id(), new_id()
    for count, headers in enumerate([{"Nats-Msg-Id": id}, {"Nats-Msg-Id": id + "x", "Headrace-Id": other}], 1):
        await desk.nc.jetstream().publish("cmd.acme.anon.app.create", CREATE, headers=headers)
        *_, outcome = await outcomes(desk.nc, count)
        assert outcome["command"] == (id, other)[count - 1]
        assert (outcome["status"], outcome["code"], outcome["field"]) == ("rejected", "invalid", "Nats-Msg-Id")
        assert "Headrace-Id" in outcome["message"]


async def test_an_id_is_a_tenants_own(desk: Desk) -> None:
    """Two tenants that send the same id at the same moment both have their command handled."""
    id = new_id()
    js = desk.nc.jetstream()
    tenants = ["acme", "victim"] * 10
    acks = await asyncio.gather(
        *(js.publish(f"cmd.{it}.anon.app.create", CREATE, headers={"Headrace-Id": id}) for it in tenants)
    )
    assert not any(ack.duplicate for ack in acks)
    assert [outcome["status"] for outcome in await outcomes(desk.nc, 2)] == ["accepted", "accepted"]
    for tenant in ("acme", "victim"):
        assert (known := await desk.outcomes.get(tenant, id))
        assert (known.status, known.ids) == ("accepted", {"app": id})


async def test_what_an_earlier_version_left_in_the_queue_is_handled(fresh: Client, running: Running) -> None:
    """Its subject has no actor, its id is in another header. What comes so after the upgrade is rejected."""
    js, waiting, later = fresh.jetstream(), new_id(), new_id()
    config = (await js.stream_info(COMMANDS)).config
    old = {name: value for name, value in (config.metadata or {}).items() if name != ACTORS_AFTER}
    await js.update_stream(config.evolve(metadata=old, duplicate_window=300.0, discard_new_per_subject=False))
    headers = {"Nats-Msg-Id": waiting, "Headrace-Actor": "ada"}
    await js.publish("cmd.acme.app.create", CREATE, headers=headers)
    for _ in range(2):
        await set_up(js)
    await js.publish("cmd.acme.app.create", CREATE, headers={"Nats-Msg-Id": later})
    desk = Desk(fresh, "acme")
    await running(lambda broker: subscribe_commands(broker, desk.dispatch, desk.repository))
    found = {outcome["command"]: outcome for outcome in await outcomes(fresh, 2)}
    first, second = found[waiting], found[later]
    assert (first["status"], first["actor"]) == ("accepted", "anon")
    assert (second["status"], second["field"]) == ("rejected", "subject")
    assert (first["name"], second["name"]) == ("app.create", "app.create")


async def test_a_dead_letter_of_an_earlier_version_is_handled_when_it_is_sent_again(fresh: Client, desk: Desk) -> None:
    letters, letter, id = JetStreamDeadLetters(fresh), new_id(), new_id()
    death = Failure("commands", Position(COMMANDS, 7), "cmd.acme.app.create", "KeyError", "", "", 5, 0)
    await letters.keep(letter, id, {"Nats-Msg-Id": id, "Headrace-Actor": "ada"}, CREATE, death)
    for _ in range(2):
        await letters.send_again("commands", letter)
    [outcome] = await outcomes(fresh)
    assert (outcome["command"], outcome["status"], outcome["actor"]) == (id, "accepted", "anon")


async def test_a_command_without_an_id_gets_one(desk: Desk) -> None:
    for _ in range(2):
        await desk.nc.jetstream().publish("cmd.acme.anon.app.create", CREATE)
    first, second = await outcomes(desk.nc, 2)
    assert first["status"] == second["status"] == "accepted"
    assert first["command"] != second["command"]
    for outcome in (first, second):
        id = UUID(outcome["command"])
        assert (str(id), id.version, outcome["ids"]) == (outcome["command"], 7, {"app": outcome["command"]})
        assert outcome["correlation"] == outcome["command"]
        assert abs((id.int >> 80) / 1000 - datetime.fromisoformat(outcome["at"]).timestamp()) < 0.01


async def test_an_id_must_be_a_uuid(desk: Desk) -> None:
    wrong = ["1", "order 7", "x" * 3000, "{01976f00-0000-7000-8000-000000000000}", "水"]
    for count, given in enumerate(wrong, 1):
        await desk.nc.jetstream().publish("cmd.acme.anon.app.create", CREATE, headers={"Headrace-Id": given})
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["status"], outcome["code"], outcome["field"]) == ("rejected", "invalid", "Headrace-Id")
        assert outcome["command"] == commit_id(given, COMMANDS)
        assert outcome["command"] in outcome["message"]


async def test_an_id_in_capitals_is_the_same_id(desk: Desk) -> None:
    id = new_id()
    await desk.nc.jetstream().publish("cmd.acme.anon.app.create", CREATE, headers={"Headrace-Id": id.upper()})
    [outcome] = await outcomes(desk.nc)
    assert (outcome["command"], outcome["status"]) == (id, "accepted")


async def test_a_tenant_has_a_tenants_name(desk: Desk) -> None:
    for count, tenant in enumerate(["ACME", "_acme", "acme!", "ä", "a" * 64, "$SYS", "*", ">"], 1):
        id = new_id()
        await desk.nc.jetstream().publish(f"cmd.{tenant}.anon.app.create", CREATE, headers={"Headrace-Id": id})
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["status"], outcome["code"], outcome["field"]) == ("rejected", "invalid", "subject")
        assert outcome["command"] == id


async def test_a_subject_that_names_no_command_has_an_outcome(desk: Desk) -> None:
    subjects = [
        "cmd.acme",
        "cmd.acme.anon",
        "cmd.acme.anon.app",
        "cmd.acme.s_x.app.create.now",
        "cmd.acme.anon.a.paint",
    ]
    for count, subject in enumerate(subjects, 1):
        await desk.nc.jetstream().publish(subject, CREATE)
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["status"], outcome["code"]) == ("rejected", "invalid" if count == 1 else "unknown_command")


async def test_headers_are_printable(desk: Desk) -> None:
    """Sent byte by byte, as no client library would."""
    wrong = [(b"Headrace-Correlation", it) for it in (b"a\0b", b"x" * 256, b"\x07")]
    for count, (header, value) in enumerate(wrong, 1):
        await raw(desk.nc, b"cmd.acme.anon.app.create", header + b": " + value)
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["status"], outcome["code"], outcome["field"]) == ("rejected", "invalid", header.decode())
        assert (outcome["actor"], outcome["correlation"]) == ("anon", outcome["command"])


async def test_odd_headers_do_no_harm(desk: Desk) -> None:
    odd = [b"nonsense", b"traceparent: 00-zz", b"Headrace-Actor: \xff\xfe", b"a: b\r\n c: d"]
    for count, head in enumerate(odd, 1):
        await raw(desk.nc, b"cmd.acme.anon.app.create", head)
        *_, outcome = await outcomes(desk.nc, count)
        assert outcome["status"] == "accepted"
        [commit] = await desk.commits("app", outcome["command"])
        assert commit.metadata.traceparent is None


async def test_odd_subjects_have_an_outcome_that_can_be_stored(desk: Desk) -> None:
    """One that is not UTF-8 among them: the worker lives on."""
    for count, subject in enumerate(
        [
            b"cmd.acme.anon.\x01.\x02",
            b"cmd.acme.anon.app.cre\0ate",
            b"cmd.ac\0me.app.create",
            b"cmd.\xff\xfe.app.create",
        ],
        1,
    ):
        await raw(desk.nc, subject, b"Headrace-Actor: ada")
        *_, outcome = await outcomes(desk.nc, count)
        assert outcome["status"] == "rejected"
        assert b"\\u0000" not in orjson.dumps(outcome)


async def test_a_large_command_is_rejected(desk: Desk) -> None:
    await desk.nc.jetstream().publish("cmd.acme.anon.app.create", b'{"name": "' + b"x" * 2_000_000 + b'"}')
    [outcome] = await outcomes(desk.nc)
    assert (outcome["status"], outcome["code"]) == ("rejected", "too_large")


async def test_a_command_that_is_sent_again_keeps_its_outcome(desk: Desk) -> None:
    """However the id is written; at once, too."""
    id = new_id()
    for written in (id, id.upper(), id):
        await desk.nc.jetstream().publish("cmd.acme.anon.app.create", CREATE, headers={"Headrace-Id": written})
        await outcomes(desk.nc)
    [outcome] = await outcomes(desk.nc)
    assert outcome["status"] == "accepted"
    assert len(await desk.commits("app", id)) == 1


async def test_a_rejected_command_stays_rejected_when_the_server_was_restarted(
    tmp_path: Path,
) -> None:
    """Though it would be right by now."""
    patient: dict[str, Any] = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}
    async with EmbeddedNats(tmp_path) as server:
        nc = await nats.connect(server.url, error_cb=_quiet, **patient)
        await set_up(nc.jetstream())
        desk, consumers = Desk(nc, "acme"), Consumers(server.url, **patient)
        subscribe_commands(consumers, desk.dispatch, desk.repository)
        await consumers.start()
        dataset, document = new_id(), new_id()

        async def send(name: str, id: str, fields: dict[str, str]) -> str:
            headers = {"Headrace-Id": id}
            await nc.jetstream().publish(f"cmd.acme.anon.{name}", orjson.dumps(fields), headers=headers)
            await outcomes(nc)
            outcome = await desk.outcomes.get("acme", id)
            assert outcome is not None
            return outcome.status

        upload = {"dataset": dataset, "name": "a.txt", "text": "x"}
        assert await send("document.upload", document, upload) == "rejected"
        assert await send("dataset.create", dataset, {"name": "Rules"}) == "accepted"
        await server.stop()
        await server.start()
        while not nc.is_connected:
            await asyncio.sleep(0.02)
        assert await send("document.upload", document, upload) == "rejected"
        assert await desk.commits("document", document) == []
        await consumers.stop()
        await nc.close()


async def _quiet(error: Exception) -> None: ...


async def test_a_hundred_commands_at_once_on_one_app(desk: Desk) -> None:
    js, app = desk.nc.jetstream(), await desk.done("app.create", name="Guide")
    await asyncio.gather(
        *(
            js.publish(
                "cmd.acme.anon.app.configure",
                orjson.dumps({"app": app, "prompt": f"{number}"}),
                headers={"Headrace-Id": new_id()},
            )
            for number in range(100)
        )
    )
    all_of_them = await outcomes(desk.nc, 101)
    assert {outcome["status"] for outcome in all_of_them} == {"accepted"}
    assert sorted(outcome["version"] for outcome in all_of_them) == list(range(1, 102))
    assert len(await desk.commits("app", app)) == 101


class Faulty(Dispatch):
    """A dispatch that fails `times` times in the same way."""

    def __init__(self, desk: Desk, times: int, error: Exception) -> None:
        super().__init__(desk.ports, desk.outcomes)
        self.times = times
        self.error = error

    async def __call__(self, delivery: Delivery) -> Outcome:
        if delivery.fault is None and self.times:
            self.times -= 1
            raise self.error
        return await super().__call__(delivery)


async def test_a_command_waits_for_a_server_that_is_away(fresh: Client, running: Running) -> None:
    desk = Desk(fresh, "acme")
    dispatch = Faulty(desk, TRIES + 2, Unavailable("away"))
    await running(lambda consumers: subscribe_commands(consumers, dispatch, desk.repository))
    await fresh.jetstream().publish("cmd.acme.anon.app.create", CREATE)
    [outcome] = await outcomes(fresh)
    assert (outcome["status"], dispatch.times) == ("accepted", 0)
    assert await dead(fresh) == []


class Sick:
    """A desk whose dispatch fails until it is cured, with its dead letters taken care of."""

    def __init__(self, desk: Desk, id: str) -> None:
        self.desk = desk
        self.id = id
        self.letter = dead_letter_id("commands", "acme", id)
        self.dispatch = Faulty(desk, 1000, ZeroDivisionError("odd"))

    def subscribe(self, consumers: Consumers) -> None:
        subscribe_commands(consumers, self.dispatch, self.desk.repository)
        revive = RetryDeadLetters(JetStreamDeadLetters(self.desk.nc))
        subscribe_work(consumers, "retry_dead_letters", revive, repository=self.desk.repository, blobs=self.desk.blobs)

    async def status(self) -> str:
        letter = await self.desk.repository.get(DeadLetter, "acme", self.letter)
        assert letter
        return letter.status

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(10):
            while not await condition():
                await asyncio.sleep(0.01)

    async def until_dead_letters_are(self, count: int) -> None:
        async def enough() -> bool:
            return (await self.desk.nc.jetstream().stream_info(DEAD)).state.messages == count

        await self.until(enough)


@pytest.fixture
async def sick(fresh: Client, running: Running) -> Sick:
    """A command was published that could not be handled."""
    sick = Sick(Desk(fresh, "acme"), new_id())
    await running(sick.subscribe)
    headers = {"Headrace-Id": sick.id, "Headrace-Correlation": "cause-1", "X": "mine"}
    await fresh.jetstream().publish("cmd.acme.s_ada.app.create", CREATE, headers=headers)
    await outcomes(fresh)
    return sick


async def test_a_command_that_cannot_be_handled_gets_an_outcome(sick: Sick) -> None:
    [outcome] = await outcomes(sick.desk.nc)
    assert (outcome["command"], outcome["status"], outcome["code"]) == (sick.id, "rejected", "internal_error")
    assert sick.letter in outcome["message"]
    [buried] = await sick.desk.events("dead_letter", sick.letter)
    assert isinstance(buried, DeadLetter.Buried)
    assert (buried.consumer, buried.stream, buried.sequence) == ("commands", COMMANDS, 1)
    assert (buried.subject, buried.message) == ("cmd.acme.s_ada.app.create", sick.id)
    assert (buried.reason, buried.failures, buried.deaths) == ("ZeroDivisionError: odd", TRIES, 0)
    assert buried.where.startswith("test_commands.py:__call__:")
    [commit] = await sick.desk.commits("dead_letter", sick.letter)
    assert (commit.metadata.causation, commit.metadata.correlation) == (sick.id, "cause-1")
    assert await sick.desk.commits("app", sick.id) == []


async def test_it_is_kept_as_it_came(sick: Sick) -> None:
    kept = await JetStreamDeadLetters(sick.desk.nc).get("commands", sick.letter)
    assert kept
    assert (kept.subject, kept.data) == (f"dead.commands.{sick.letter}", CREATE)
    headers = kept.headers or {}
    assert (headers["Headrace-Id"], headers["Headrace-Letter-Subject"]) == (sick.id, "cmd.acme.s_ada.app.create")
    assert (headers["Headrace-Letter-Reason"], headers["X"]) == ("ZeroDivisionError: odd", "mine")


async def test_tried_again_it_keeps_its_id_and_has_a_second_outcome(sick: Sick) -> None:
    sick.dispatch.times = 0
    await sick.desk.done("dead_letter.retry", dead_letter=sick.letter)
    first, _, second = await outcomes(sick.desk.nc, 3)
    assert (first["command"], first["code"]) == (sick.id, "internal_error")
    assert (second["command"], second["status"], second["ids"]) == (sick.id, "accepted", {"app": sick.id})
    assert (second["actor"], second["correlation"]) == ("s_ada", "cause-1")
    [commit] = await sick.desk.commits("app", sick.id)
    assert (commit.metadata.causation, commit.metadata.correlation) == (sick.id, "cause-1")
    assert await sick.status() == "retried"
    await sick.until_dead_letters_are(0)
    assert (await sick.desk.send("app.create", {"name": "Other"}, id=sick.id)).status == "accepted"
    assert len(await sick.desk.commits("app", sick.id)) == 1


async def test_tried_again_in_vain_it_comes_back(sick: Sick) -> None:
    """As often as someone likes; the outcome stays the one."""
    for count in range(1, 3):
        await sick.desk.done("dead_letter.retry", dead_letter=sick.letter)

        async def is_back() -> bool:
            return await sick.status() == "returned"

        await sick.until(is_back)
        again = count * [DeadLetter.Retried.TOPIC, DeadLetter.Returned.TOPIC]
        assert await sick.desk.types("dead_letter", sick.letter) == [DeadLetter.Buried.TOPIC, *again]
    await sick.until_dead_letters_are(1)
    said = [outcome["code"] for outcome in await outcomes(sick.desk.nc, 3) if outcome["command"] == sick.id]
    assert said == ["internal_error"]


async def test_its_sender_may_try_again_too(sick: Sick) -> None:
    """With the same id."""
    sick.dispatch.times = 0
    assert (await sick.desk.send("app.create", {"name": "Guide"}, id=sick.id)).status == "accepted"
    found = await sick.desk.outcomes.get("acme", sick.id)
    assert found
    assert found.status == "accepted"


async def test_what_is_discarded_is_gone(sick: Sick) -> None:
    await sick.desk.done("dead_letter.discard", dead_letter=sick.letter)
    await sick.until_dead_letters_are(0)
    assert await sick.status() == "discarded"
    assert await sick.desk.fails("dead_letter.retry", dead_letter=sick.letter) == ("not_waiting", "dead_letter")
    assert await sick.desk.fails("dead_letter.discard", dead_letter=new_id()) == ("not_found", "dead_letter")


async def test_a_secret_gets_into_no_letter(sick: Sick) -> None:
    """The failure may have quoted it."""
    sick.dispatch.error = ValueError("cannot read sk-secret")
    id = new_id()
    await sick.desk.nc.jetstream().publish("cmd.acme.anon.provider.register", b"{}", headers={"Headrace-Id": id})
    await outcomes(sick.desk.nc, 2)
    [buried] = await sick.desk.events("dead_letter", dead_letter_id("commands", "acme", id))
    assert isinstance(buried, DeadLetter.Buried)
    assert buried.reason == "ValueError"


async def test_whatever_was_sent_can_be_buried_and_tried_again(sick: Sick) -> None:
    """Headers and subjects that are not text, and a failure that quotes them."""
    sick.dispatch.error = ValueError("\ud800 \0 \r\n 水")
    odd = [
        b"Headrace-Actor: \xff\xfe",
        b"a b: c",
        b"a: b\r\n c: d",
        b"X: \xd0",
        b"nonsense",
        "Headrace-Actor: 水".encode(),
    ]
    for count, head in enumerate(odd, 2):
        await raw(sick.desk.nc, b"cmd.acme.anon.app.create", head)
        await outcomes(sick.desk.nc, count)
    sick.dispatch.times = 0
    answers = await outcomes(sick.desk.nc, len(odd) + 1)
    for outcome in answers:
        assert outcome["code"] == "internal_error"
        await sick.desk.done("dead_letter.retry", dead_letter=dead_letter_id("commands", "acme", outcome["command"]))
    await sick.until_dead_letters_are(0)
    await outcomes(sick.desk.nc, 3 * len(answers))
    for outcome in answers:
        found = await sick.desk.outcomes.get("acme", outcome["command"])
        assert found
        assert found.status == "accepted"


async def test_letters_of_two_tenants_are_apart(sick: Sick) -> None:
    """A tenant that chooses the id of another's command does not touch its dead letter."""
    await sick.desk.nc.jetstream().publish("cmd.other.anon.app.create", CREATE, headers={"Headrace-Id": sick.id})
    await outcomes(sick.desk.nc, 2)
    theirs = dead_letter_id("commands", "other", sick.id)
    assert await sick.desk.repository.get(DeadLetter, "other", theirs)
    assert await sick.desk.fails("dead_letter.retry", dead_letter=theirs) == ("not_found", "dead_letter")
    assert await sick.desk.types("dead_letter", sick.letter) == [DeadLetter.Buried.TOPIC]


async def raw(nc: Client, subject: bytes, head: bytes, body: bytes = CREATE) -> None:
    """Publish on a socket of its own."""
    url = nc.connected_url
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    lines = b"NATS/1.0\r\n" + head + b"\r\n\r\n"
    await reader.readline()
    login = {"verbose": False, "pedantic": False, "headers": True, "user": url.username, "pass": url.password}
    writer.write(b"CONNECT " + orjson.dumps(login) + b"\r\n")
    writer.write(b"HPUB %s %d %d\r\n%s%s\r\nPING\r\n" % (subject, len(lines), len(lines) + len(body), lines, body))
    while (line := await reader.readline()) != b"PONG\r\n":
        assert line
    writer.close()
    await writer.wait_closed()
