"""The users of ops/deploy/accounts.conf, on a real server: each can do what it must and nothing more."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client as Connection

from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.client import Client
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.streams import BLOBS, CONSUMERS, SNAPSHOTS, STREAMS
from domain.log import EVENTS, OUTCOMES, Commit
from handlers.ports.log import Unavailable
from ops.servers.embedded import HOST, EmbeddedNats, EmbeddedPostgres
from tests.conftest import fresh_database

ACCOUNTS = Path(__file__).resolve().parents[2] / "ops" / "deploy" / "accounts.conf"
USERS = ("setup", "worker", "reader", "default", "admin", "sys")


class Guarded(EmbeddedNats):
    """A server that asks who is there."""

    def configuration(self) -> str:
        return super().configuration()[:-1] + f'\ninclude "{os.path.relpath(ACCOUNTS, self.home)}"\n}}'

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {f"NATS_{user.upper()}_PASSWORD": f"p-{user}" for user in USERS}

    def url_of(self, user: str) -> str:
        return f"nats://{user}:p-{user}@{HOST}:{self.port}"


@pytest.fixture(scope="module")
async def guarded(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> AsyncIterator[tuple[Guarded, str]]:
    """The server and a database, both set up by `headrace setup` as the user for that."""
    folder = tmp_path_factory.mktemp("guarded")
    async with Guarded(folder) as server, fresh_database(postgres) as database:
        ended = await headrace(server.url_of("setup"), database, folder, "setup", "--json")
        out, _ = await ended.communicate()
        assert ended.returncode == 0, out
        made = [json.loads(line)["ready"] for line in out.splitlines()]
        assert made == [*(f"stream {stream.name}, 1 replicas" for stream in STREAMS), "tables", "index"]
        yield server, database
    shutil.rmtree(folder)


async def headrace(nats_url: str, postgres_url: str, home: Path, *arguments: str) -> asyncio.subprocess.Process:
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
        "HEADRACE_NATS_URL": nats_url,
        "HEADRACE_POSTGRES_URL": postgres_url,
        "HEADRACE_HOME": str(home),
    }
    command = (sys.executable, "-m", "ops.cli", *arguments)
    return await asyncio.create_subprocess_exec(*command, env=variables, stdout=asyncio.subprocess.PIPE)


@asynccontextmanager
async def connected(server: Guarded, user: str) -> AsyncIterator[tuple[Connection, list[str]]]:
    """A connection, and what the server refuses it."""
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    nc = await nats.connect(server.url_of(user), error_cb=note, inbox_prefix=f"_INBOX.{user}")
    yield nc, refused
    await nc.close()


async def test_no_client_comes_in_without_a_password(guarded: tuple[Guarded, str]) -> None:
    async def quiet(error: Exception) -> None: ...

    server, _ = guarded
    for url in (server.url, f"nats://worker:wrong@{HOST}:{server.port}"):
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await nats.connect(url, allow_reconnect=False, error_cb=quiet)


async def test_what_setup_has_made_is_all_that_a_deployment_needs(guarded: tuple[Guarded, str]) -> None:
    server, _ = guarded
    async with connected(server, "admin") as (nc, _):
        js = nc.jetstream()
        for stream in [*(str(it.name) for it in STREAMS), f"OBJ_{BLOBS}", f"KV_{SNAPSHOTS}"]:
            assert (await js.stream_info(stream)).config.num_replicas == 1
        for name, (stream, _) in CONSUMERS.items():
            assert (await js.consumer_info(stream, name)).config.durable_name == name
        assert (await js.stream_info("COMMANDS")).config.max_msgs == 100_000


async def test_a_tenant_is_served_by_workers_that_may_make_nothing(
    guarded: tuple[Guarded, str], tmp_path: Path
) -> None:
    """And an archivist reads along."""
    server, database = guarded
    worker = await headrace(server.url_of("worker"), database, tmp_path, "worker", "--role", "commands", "--json")
    try:
        async with await Client.connect(server.url_of("default"), "default") as tenant:
            outcome = await tenant.send("app.create", {"name": "Guide"}, wait=60)
            assert outcome["status"] == "accepted", outcome
            again = await tenant.send("app.create", {"name": "Guide"}, outcome["command"])
            assert again == outcome
        probe = await headrace(
            server.url_of("worker"), database, tmp_path, "ping", "--role", "commands", "--here", "--json"
        )
        out, _ = await probe.communicate()
        assert (probe.returncode, json.loads(out)["pid"]) == (0, worker.pid)
        archived = await headrace(
            server.url_of("reader"), database, tmp_path, "archive", "--archive-url", str(tmp_path / "archive"), "--json"
        )
        out, _ = await archived.communicate()
        assert archived.returncode == 0, out
        async with connected(server, "reader") as (nc, refused):
            [commit] = [it async for batch in JetStreamLog(nc).read(EVENTS, 0, follow=False) for it in batch]
            assert isinstance(commit, Commit)
            assert commit.subject.id == outcome["command"]
            assert len([it async for batch in JetStreamLog(nc).read(OUTCOMES, 0, follow=False) for it in batch]) == 1
            assert not refused
    finally:
        worker.terminate()
        await worker.communicate()
    assert worker.returncode == 0
    probe = await headrace(server.url_of("worker"), database, tmp_path, "ping", "--role", "commands", "--wait", "0.1")
    await probe.communicate()
    assert probe.returncode == 1


async def test_workers_store_blobs_and_readers_read_them(guarded: tuple[Guarded, str]) -> None:
    server, _ = guarded
    async with connected(server, "worker") as (nc, refused):
        digest = await JetStreamBlobs(nc).put("default", b"The lock opens at six.")
        assert not refused
    async with connected(server, "reader") as (nc, refused):
        assert await JetStreamBlobs(nc).get("default", digest) == b"The lock opens at six."
        with pytest.raises(Unavailable):
            await JetStreamBlobs(nc, timeout_s=0.2).put("default", b"Or at seven.")
        assert refused


KEPT = (EVENTS, OUTCOMES, f"OBJ_{BLOBS}")

RUIN = [
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("DELETE", "PURGE", "RESTORE", "MSG.DELETE") for stream in KEPT),
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("UPDATE", "PEER.REMOVE", "LEADER.STEPDOWN") for stream in KEPT),
    "$JS.API.STREAM.DELETE.COMMANDS",
    "$JS.API.STREAM.PURGE.COMMANDS",
    "$JS.API.STREAM.DELETE.DEAD",
    "$JS.API.CONSUMER.DELETE.EVENTS.answer",
    "$SYS.REQ.SERVER.PING",
    "$JS.API.SERVER.REMOVE",
]

NOT_FOR = {
    "setup": [*RUIN, "evt.default.app.x", "cmd.default.app.create", "out.default.x", "$O.blobs.M.x"],
    "worker": [*RUIN, "$JS.API.STREAM.CREATE.MINE", "$JS.API.STREAM.UPDATE.COMMANDS", "$JS.API.STREAM.SNAPSHOT.EVENTS"],
    "reader": [
        *RUIN,
        *("evt.default.app.x", "cmd.default.app.create", "out.default.x", "$O.blobs.M.x", "$KV.snapshots.x"),
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.CONSUMER.CREATE.COMMANDS",
        "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.commands",
        "$JS.API.DIRECT.GET.COMMANDS",
    ],
    "default": [
        *RUIN,
        *("evt.default.app.x", "cmd.other.app.create", "out.default.x", "$O.blobs.M.x", "live.default.x.y"),
        *("embed.gte", "worker.commands", "dead.commands.x", "$KV.snapshots.x", "_INBOX.other"),
        "$JS.API.DIRECT.GET.OUTCOMES.out.other.x",
        "$JS.API.DIRECT.GET.OUTCOMES",
        "$JS.API.DIRECT.GET.EVENTS",
        "$JS.API.STREAM.MSG.GET.EVENTS",
        "$JS.API.CONSUMER.CREATE.EVENTS",
        "$JS.API.STREAM.INFO.EVENTS",
    ],
}

NOT_HEARD = {
    "setup": ["evt.>", "cmd.>", "out.>", ">"],
    "worker": [">", "$JS.>", "$SYS.>"],
    "reader": ["cmd.>", "evt.>", ">"],
    "default": [
        ">",
        "evt.default.>",
        "cmd.default.>",
        "out.other.>",
        "out.*.x",
        "live.>",
        "_INBOX.>",
        "_INBOX.other.>",
    ],
}


@pytest.mark.parametrize("user", NOT_FOR)
async def test_what_a_user_may_not_say_is_refused(guarded: tuple[Guarded, str], user: str) -> None:
    server, _ = guarded
    async with connected(server, "admin") as (nc, _):
        before = [(await nc.jetstream().stream_info(stream)).state.last_seq for stream in KEPT]
    async with connected(server, user) as (nc, refused):
        for subject in NOT_FOR[user]:
            await nc.publish(subject, b"{}")
        await all_of(refused, {f'nats: permissions violation for publish to "{it}"'.lower() for it in NOT_FOR[user]})
    async with connected(server, "admin") as (nc, _):
        assert [(await nc.jetstream().stream_info(stream)).state.last_seq for stream in KEPT] == before


@pytest.mark.parametrize("user", NOT_HEARD)
async def test_what_a_user_may_not_hear_is_refused(guarded: tuple[Guarded, str], user: str) -> None:
    server, _ = guarded
    async with connected(server, user) as (nc, refused):
        for subject in NOT_HEARD[user]:
            await nc.subscribe(subject)
        await all_of(
            refused, {f'nats: permissions violation for subscription to "{it}"'.lower() for it in NOT_HEARD[user]}
        )


async def all_of(refused: list[str], expected: set[str]) -> None:
    """Wait until the server has refused all of it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while not expected <= {refusal.lower() for refusal in refused}:
                await asyncio.sleep(0.01)
    assert expected == {refusal.lower() for refusal in refused}
