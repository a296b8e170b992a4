from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import orjson
import pytest

from adapters.jetstream import client as module
from adapters.jetstream import streams
from adapters.jetstream.client import Client, Frame, NoOutcome, NotSent, Rejected, Unreachable
from domain.aggregate import new_id
from ops.servers.embedded import EmbeddedNats
from tests.ops.answering import worker


@pytest.fixture(scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with EmbeddedNats(tmp_path_factory.mktemp("client")) as server:
        connection = await nats.connect(server.url)
        await streams.set_up(connection.jetstream())
        await connection.close()
        yield server.url


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with await Client.connect(url) as connected:
        yield connected


async def test_a_command_is_sent_and_its_outcome_comes_back(url: str, client: Client) -> None:
    id = new_id()
    async with worker(url, ids={"app": id}) as running:
        outcome = await client.send("app.create", {"name": "Ünï"}, id)
    assert (outcome["command"], outcome["status"], outcome["ids"]) == (id, "accepted", {"app": id})
    assert running.seen == [("cmd.default.anon.app.create", {"name": "Ünï"})]


async def test_commands_name_their_actor(url: str, client: Client) -> None:
    heard = await client.connection.subscribe("cmd.default.a.ann.app.rename")
    async with worker(url):
        await Client(client.connection, "default", "a_ann", door="viewer").send("app.rename", {})
    assert ((await heard.next_msg(2)).headers or {})["Headrace-Door"] == "viewer"
    await heard.unsubscribe()


@pytest.mark.parametrize("actor", ["", "gateway", "s_", "s_a.b", "s_*", ">", "S_x", "k_" + "x" * 64])
async def test_an_actor_is_one_token_of_its_kind(client: Client, actor: str) -> None:
    with pytest.raises(NotSent, match="is not an actor"):
        await Client(client.connection, "default", actor).send("app.create", {})


async def test_a_closed_connection_is_unreachable(url: str) -> None:
    async with await Client.connect(url) as closed:
        pass
    with pytest.raises(Unreachable, match="NATS does not answer"):
        await closed.send("app.create", {})


async def test_the_same_id_again_gives_the_same_outcome(url: str, client: Client) -> None:
    id = new_id()
    async with worker(url):
        first = await client.send("app.create", {"name": "x"}, id)
        again = await client.send("app.create", {"name": "x"}, id)
    assert again == first
    assert await client.outcome(id) == first


async def test_an_outcome_that_was_not_heard_is_read_from_the_stream(url: str, client: Client) -> None:
    id = new_id()
    stored = {"command": id, "status": "accepted"}
    await client.stream.publish(f"out.default.{id}", orjson.dumps(stored))
    assert await client.send("app.create", {}, id, 5.0) == stored
    async with worker(url):
        await client.send("app.create", {})


async def test_without_a_worker_the_command_waits_and_the_client_says_so(url: str, client: Client) -> None:
    id = new_id()
    with pytest.raises(NoOutcome, match=rf"Command {id} is stored, but has no outcome after 0 s"):
        await client.send("app.create", {}, id, 0.4)
    assert await client.outcome(id) is None
    async with worker(url):
        assert (await client.send("app.create", {}, id))["command"] == id


@pytest.mark.parametrize("name", ["app", "app.create.x", "app.*", "App.create", "app create", ""])
async def test_what_is_not_a_command_name_is_not_sent(client: Client, name: str) -> None:
    with pytest.raises(NotSent, match="is not the name of a command"):
        await client.send(name, {})


async def test_what_is_not_an_id_is_not_sent(client: Client) -> None:
    with pytest.raises(NotSent, match="which is a UUID"):
        await client.send("app.create", {}, "mine")


async def test_a_command_larger_than_the_bus_takes_is_not_sent(client: Client) -> None:
    with pytest.raises(NotSent, match="more than the bus takes"):
        await client.send("app.create", {"name": "x" * 9_000_000})


async def test_a_server_that_is_not_there(unused_url: str) -> None:
    with pytest.raises(Unreachable, match=r"^NATS does not answer at nats://127\.0\.0\.1:\d+ "):
        await Client.connect(unused_url, within=1.0)


@pytest.fixture
def unused_url(free_port: int) -> str:
    return f"nats://someone:secret@127.0.0.1:{free_port}"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_server_without_streams(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, await Client.connect(server.url) as client:
        with pytest.raises(Unreachable, match="NATS has no COMMANDS"):
            await client.send("app.create", {})
        with pytest.raises(Unreachable, match="NATS has no stream OBJ_blobs"):
            await client.upload_blob(b"x")
        with pytest.raises(Unreachable, match="NATS has no EVENTS"):
            await anext(client.commits())


async def test_a_file_is_stored_once_under_its_digest(client: Client) -> None:
    data = b"bytes " * 50_000
    digest = await client.upload_blob(data)
    assert digest == hashlib.sha256(data).hexdigest()
    stored = (await client.stream.stream_info("OBJ_blobs")).state.messages
    assert await client.upload_blob(data) == digest
    assert (await client.stream.stream_info("OBJ_blobs")).state.messages == stored
    blobs = await client.stream.object_store("blobs")
    assert (await blobs.get(f"default/{digest}")).data == data


async def collect(frames: AsyncIterator[Frame]) -> list[Frame]:
    return [frame async for frame in frames]


async def test_an_answer_is_streamed_to_its_last_frame(url: str, client: Client) -> None:
    tokens = [{"type": "token", "index": n, "text": text, "attempt": 1} for n, text in enumerate(["It ", "is."])]
    answered = {"type": "answered", "answer": "It is.", "citations": [], "usage": {}}
    async with worker(url):
        frames = client.ask(new_id(), "Is it?")
        accepted = await anext(frames)
        assert accepted == {"type": "accepted", "conversation": accepted["message"], "message": accepted["message"]}
        for frame in [*tokens, answered, {"type": "token", "index": 9, "text": "never seen", "attempt": 1}]:
            subject = f"live.default.{accepted['conversation']}.{accepted['message']}"
            await client.connection.publish(subject, orjson.dumps(frame))
        assert await collect(frames) == [*tokens, answered]


async def test_a_lost_last_frame_is_found_in_the_log(url: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.05)
    conversation = new_id()

    async def commit(kind: str, **state: Any) -> int:
        body = orjson.dumps([{"type": f"message.{kind}.v1", "version": 1, "state": state}])
        return (await client.stream.publish(f"evt.default.conversation.{conversation}", body)).seq

    asked = await commit("asked", message="before")
    async with worker(url, sequence=asked):
        frames = client.ask(new_id(), "Is it?", conversation=conversation)
        message = (await anext(frames))["message"]
        await commit("answered", message="another", answer="not this")
        await commit("answered", message=message, answer="It is.", citations=[])
        await commit("rated", message=message, rating="like")
        (last,) = await collect(frames)
    assert (last["type"], last["answer"]) == ("answered", "It is.")


async def test_a_question_that_is_rejected_is_raised(url: str, client: Client) -> None:
    async with worker(url, status="rejected", code="not_found", message="There is no such app.", field="app"):
        with pytest.raises(Rejected, match="There is no such app") as caught:
            await collect(client.ask(new_id(), "Is it?"))
    assert caught.value.outcome["field"] == "app"


async def test_an_answer_that_never_comes_is_not_waited_for_without_end(
    url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL", 0.05)
    async with worker(url):
        with pytest.raises(NoOutcome, match="has no answer"):
            await collect(client.ask(new_id(), "Is it?", patience=0.2))


async def test_commits_are_followed_from_a_sequence_on(client: Client) -> None:
    id = new_id()
    body = orjson.dumps([{"type": "app.created.v1", "version": 1, "state": {"name": "x"}}])
    ack = await client.stream.publish(f"evt.default.app.{id}", body, headers={"Headrace-Actor": "ann"})
    await client.stream.publish(f"evt.other.app.{id}", body)
    await client.stream.publish(f"evt.default.app.{id}", body)
    commits = client.commits("app", since=ack.seq)
    async with asyncio.timeout(10):
        first, second = await anext(commits), await anext(commits)
    await commits.aclose()
    assert (first.sequence, first.noun, first.id, first.headers["Headrace-Actor"]) == (ack.seq, "app", id, "ann")
    assert first.events[0]["state"] == {"name": "x"}
    assert second.sequence == ack.seq + 2


async def test_a_full_queue_is_waited_for_and_then_said(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, await Client.connect(server.url) as client:
        await streams.set_up(client.stream, waiting=streams.Waiting(commands=1))
        with pytest.raises(NoOutcome):
            await client.send("app.create", {}, wait=0.1)
        with pytest.raises(NotSent, match="Too many commands wait already") as refused:
            await client.send("app.create", {}, wait=0.3)
        assert refused.value.code == "queue_full"
        patient = asyncio.create_task(client.send("app.create", {}))
        await asyncio.sleep(0)
        async with worker(server.url):
            assert (await patient)["status"] == "accepted"


async def test_the_share_of_one_actors_command_leaves_room_for_others(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, await Client.connect(server.url) as client:
        await streams.set_up(client.stream, waiting=streams.Waiting(per_subject=1))
        with pytest.raises(NoOutcome):
            await client.send("app.create", {}, wait=0.1)
        with pytest.raises(NotSent, match="Too many of your commands of this name wait already") as refused:
            await client.send("app.create", {}, wait=0.3)
        assert refused.value.code == "over_quota"
        for tenant, actor, name in (("default", "s_x", "app.create"), ("other", "anon", "app.create")):
            with pytest.raises(NoOutcome):
                await Client(client.connection, tenant, actor).send(name, {}, wait=0.1)
        async with worker(server.url):
            assert (await client.send("app.create", {}))["status"] == "accepted"


async def test_what_the_queue_finds_too_large_is_not_sent(client: Client) -> None:
    with pytest.raises(NotSent, match="store files as blobs") as refused:
        await client.send("app.create", {"name": "x" * streams.LARGEST})
    assert refused.value.code == "too_large"


async def test_an_id_that_another_tenant_has_used_is_sent_all_the_same(url: str, client: Client) -> None:
    """Though the other one knew it before, and sent it in every header."""
    id = new_id()
    async with await Client.connect(url, "other") as other, worker(url) as running:
        headers = {"Nats-Msg-Id": id, "Headrace-Id": id}
        await other.stream.publish("cmd.other.anon.app.create", b"{}", headers=headers)
        assert (await client.send("app.create", {}, id))["command"] == id
    assert ("cmd.default.anon.app.create", {}) in running.seen
