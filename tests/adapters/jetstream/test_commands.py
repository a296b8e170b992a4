"""Commands as they come over the bus."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import nats
import orjson
import pytest
from faststream.nats import NatsBroker
from nats.aio.client import Client

from adapters.jetstream.commands import subscribe_commands
from adapters.jetstream.consumer import TRIES
from adapters.jetstream.streams import COMMANDS, set_up
from domain.aggregate import new_id
from domain.log import OUTCOMES
from handlers.dispatch import Delivery, Dispatch
from handlers.ports import Outcome, Unavailable, commit_id
from ops.embedded import EmbeddedNats
from tests.adapters.jetstream.conftest import Running
from tests.adapters.jetstream.test_consumer import dead
from tests.handlers.desk import Desk

CREATE = b'{"name": "Guide"}'


@pytest.fixture
async def desk(fresh: Client, running: Running) -> Desk:
    """A desk whose commands are taken off the bus."""
    desk = Desk(fresh, "acme")
    await running(lambda broker: subscribe_commands(broker, desk.dispatch))
    return desk


async def outcomes(nc: Client, count: int = 1) -> list[dict[str, Any]]:
    """All outcomes, once there are so many and no command waits."""
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
    headers = {"Nats-Msg-Id": id, "Headrace-Correlation": cause, "Headrace-Actor": "Jürgen 水", "traceparent": trace}
    before = datetime.now(UTC) - timedelta(seconds=1)
    await nc.jetstream().publish("cmd.acme.app.create", CREATE, headers=headers)
    outcome = orjson.loads((await heard.next_msg(timeout=5)).data)
    [kept] = await outcomes(nc)
    assert outcome == kept
    assert (outcome["command"], outcome["name"], outcome["status"]) == (id, "app.create", "accepted")
    assert (outcome["stream"], outcome["sequence"], outcome["version"]) == ("EVENTS", 1, 1)
    assert outcome["ids"] == {"app": id}
    assert (outcome["correlation"], outcome["actor"]) == (cause, "Jürgen 水")
    assert before < datetime.fromisoformat(outcome["at"]) < datetime.now(UTC) + timedelta(seconds=1)
    [commit] = await desk.commits("app", id)
    metadata = commit.metadata
    assert (metadata.causation, metadata.correlation, metadata.actor) == (id, cause, "Jürgen 水")
    assert metadata.traceparent == trace


async def test_a_command_without_an_id_gets_one(desk: Desk) -> None:
    for _ in range(2):
        await desk.nc.jetstream().publish("cmd.acme.app.create", CREATE)
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
        await desk.nc.jetstream().publish("cmd.acme.app.create", CREATE, headers={"Nats-Msg-Id": given})
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["status"], outcome["code"], outcome["field"]) == ("rejected", "invalid", "Nats-Msg-Id")
        assert outcome["command"] == commit_id(given, COMMANDS)
        assert outcome["command"] in outcome["message"]


async def test_an_id_in_capitals_is_the_same_id(desk: Desk) -> None:
    id = new_id()
    await desk.nc.jetstream().publish("cmd.acme.app.create", CREATE, headers={"Nats-Msg-Id": id.upper()})
    [outcome] = await outcomes(desk.nc)
    assert (outcome["command"], outcome["status"]) == (id, "accepted")


async def test_a_tenant_has_a_tenants_name(desk: Desk) -> None:
    for count, tenant in enumerate(["ACME", "_acme", "acme!", "ä", "a" * 64, "$SYS", "*", ">"], 1):
        id = new_id()
        await desk.nc.jetstream().publish(f"cmd.{tenant}.app.create", CREATE, headers={"Nats-Msg-Id": id})
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["status"], outcome["code"], outcome["field"]) == ("rejected", "invalid", "subject")
        assert outcome["command"] == id


async def test_a_subject_that_names_no_command_has_an_outcome(desk: Desk) -> None:
    subjects = ["cmd.acme", "cmd.acme.app", "cmd.acme.app.create.now", "cmd.acme.app.paint"]
    for count, subject in enumerate(subjects, 1):
        await desk.nc.jetstream().publish(subject, CREATE)
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["status"], outcome["code"]) == ("rejected", "unknown_command")


async def test_headers_are_printable(desk: Desk) -> None:
    """Sent byte by byte, as no client library would."""
    wrong = [(b"Headrace-Actor", b"a\0b"), (b"Headrace-Actor", b"x" * 256), (b"Headrace-Correlation", b"\x07")]
    for count, (header, value) in enumerate(wrong, 1):
        await raw(desk.nc, b"cmd.acme.app.create", header + b": " + value)
        *_, outcome = await outcomes(desk.nc, count)
        assert (outcome["status"], outcome["code"], outcome["field"]) == ("rejected", "invalid", header.decode())
        assert (outcome["actor"], outcome["correlation"]) == ("anonymous", outcome["command"])


async def test_odd_headers_do_no_harm(desk: Desk) -> None:
    odd = [b"nonsense", b"traceparent: 00-zz", b"Headrace-Actor: \xff\xfe", b"a: b\r\n c: d"]
    for count, head in enumerate(odd, 1):
        await raw(desk.nc, b"cmd.acme.app.create", head)
        *_, outcome = await outcomes(desk.nc, count)
        assert outcome["status"] == "accepted"
        [commit] = await desk.commits("app", outcome["command"])
        assert commit.metadata.traceparent is None


async def test_odd_subjects_have_an_outcome_that_can_be_stored(desk: Desk) -> None:
    """One that is not UTF-8 among them: the worker lives on."""
    for count, subject in enumerate(
        [b"cmd.acme.\x01.\x02", b"cmd.acme.app.cre\0ate", b"cmd.ac\0me.app.create", b"cmd.\xff\xfe.app.create"], 1
    ):
        await raw(desk.nc, subject, b"Headrace-Actor: ada")
        *_, outcome = await outcomes(desk.nc, count)
        assert outcome["status"] == "rejected"
        assert b"\\u0000" not in orjson.dumps(outcome)


async def test_a_large_command_is_rejected(desk: Desk) -> None:
    await desk.nc.jetstream().publish("cmd.acme.app.create", b'{"name": "' + b"x" * 2_000_000 + b'"}')
    [outcome] = await outcomes(desk.nc)
    assert (outcome["status"], outcome["code"]) == ("rejected", "too_large")


async def test_a_command_that_is_sent_again_keeps_its_outcome(desk: Desk) -> None:
    """Past the stream's own deduplication, which only looks at the id as it is written."""
    id = new_id()
    for written in (id, id.upper()):
        await desk.nc.jetstream().publish("cmd.acme.app.create", CREATE, headers={"Nats-Msg-Id": written})
        await outcomes(desk.nc)
    [outcome] = await outcomes(desk.nc)
    assert outcome["status"] == "accepted"
    assert len(await desk.commits("app", id)) == 1


async def test_a_rejected_command_stays_rejected_when_the_server_was_restarted(
    tmp_path: Path,
) -> None:
    """Though the server has forgotten that the command came, and it would be right by now."""
    patient: dict[str, Any] = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}
    async with EmbeddedNats(tmp_path) as server:
        nc = await nats.connect(server.url, error_cb=_quiet, **patient)
        await set_up(nc.jetstream())
        desk, broker = Desk(nc, "acme"), NatsBroker(server.url, apply_types=False, logger=None, **patient)
        subscribe_commands(broker, desk.dispatch)
        await broker.start()
        dataset, document = new_id(), new_id()

        async def send(name: str, id: str, fields: dict[str, str]) -> str:
            headers = {"Nats-Msg-Id": id}
            await nc.jetstream().publish(f"cmd.acme.{name}", orjson.dumps(fields), headers=headers)
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
        await broker.stop()
        await nc.close()


async def _quiet(error: Exception) -> None: ...


async def test_a_hundred_commands_at_once_on_one_app(desk: Desk) -> None:
    js, app = desk.nc.jetstream(), await desk.done("app.create", name="Guide")
    await asyncio.gather(
        *(
            js.publish(
                "cmd.acme.app.configure",
                orjson.dumps({"app": app, "prompt": f"{number}"}),
                headers={"Nats-Msg-Id": new_id()},
            )
            for number in range(100)
        )
    )
    all_of_them = await outcomes(desk.nc, 101)
    assert {outcome["status"] for outcome in all_of_them} == {"accepted"}
    assert sorted(outcome["version"] for outcome in all_of_them) == list(range(1, 102))
    assert len(await desk.commits("app", app)) == 101


class Faulty(Dispatch):
    """A dispatch that fails in the same way so many times."""

    def __init__(self, desk: Desk, times: int, error: Exception) -> None:
        super().__init__(desk.repository, desk.outcomes, desk.blobs, desk.vault)
        self.times = times
        self.error = error

    async def __call__(self, delivery: Delivery) -> Outcome:
        if delivery.fault is None and self.times:
            self.times -= 1
            raise self.error
        return await super().__call__(delivery)


async def test_a_command_waits_for_a_server_that_is_away(fresh: Client, running: Running) -> None:
    dispatch = Faulty(Desk(fresh, "acme"), TRIES + 2, Unavailable("away"))
    await running(lambda broker: subscribe_commands(broker, dispatch))
    await fresh.jetstream().publish("cmd.acme.app.create", CREATE)
    [outcome] = await outcomes(fresh)
    assert (outcome["status"], dispatch.times) == ("accepted", 0)
    assert await dead(fresh) == []


async def test_a_command_that_cannot_be_handled_is_told_so(fresh: Client, running: Running) -> None:
    desk, id = Desk(fresh, "acme"), new_id()
    await running(lambda broker: subscribe_commands(broker, Faulty(desk, 1000, ZeroDivisionError("odd"))))
    await fresh.jetstream().publish("cmd.acme.app.create", CREATE, headers={"Nats-Msg-Id": id})
    [outcome] = await outcomes(fresh)
    assert (outcome["command"], outcome["status"], outcome["code"]) == (id, "rejected", "internal_error")
    assert "dead letters" in outcome["message"]
    [letter] = await dead(fresh)
    assert (letter.subject, letter.data) == ("dead.commands", CREATE)
    told = letter.headers or {}
    assert (told["Headrace-Id"], told["Headrace-Subject"]) == (id, "cmd.acme.app.create")
    assert told["Headrace-Reason"] == "ZeroDivisionError: odd"
    assert await desk.commits("app", id) == []
    assert (await desk.send("app.create", {"name": "Guide"}, id=id)).code == "internal_error"


async def raw(nc: Client, subject: bytes, head: bytes, body: bytes = CREATE) -> None:
    """Publish on a socket of its own."""
    url = nc.connected_url
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    lines = b"NATS/1.0\r\n" + head + b"\r\n\r\n"
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
    writer.write(b"HPUB %s %d %d\r\n%s%s\r\nPING\r\n" % (subject, len(lines), len(lines) + len(body), lines, body))
    while (await reader.readline()).strip() != b"PONG":
        pass
    writer.close()
    await writer.wait_closed()
