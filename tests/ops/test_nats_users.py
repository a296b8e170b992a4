"""The users of NATS, on a real server: each can do what it must and nothing more, whatever reply it names."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import nats
import nats.js.errors
import orjson
import pytest
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from adapters.jetstream import accounts, previews
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.callout import WHO, Callout, Keys
from adapters.jetstream.client import Client, Unreachable
from adapters.jetstream.doors import DoorReports
from adapters.jetstream.key_uses import JetStreamKeyUses
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.nats_py import API, IMPORTED_API, api, connect, find_streams
from adapters.jetstream.raw import RawStream
from adapters.jetstream.registry import JetStreamRegistry
from adapters.jetstream.reply import respond
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import BLOBS, CONSUMERS, KEYS, SESSIONS, SNAPSHOTS, STREAMS
from adapters.privacy import passwords
from adapters.privacy.vault import AesVault
from domain.access.actor import ACTOR as ACTORS
from domain.access.api_key import ApiKey
from domain.access.bus_login import BusLogin
from domain.access.permissions import OF_KEYS, OF_SERVICES
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.log import EVENTS, OUTCOMES, Metadata, Subject
from handlers.ports.log import Unavailable
from handlers.repository import Repository
from handlers.routes import ROUTES
from ops.servers.embedded import HOST, EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.supervisor import answers
from tests.adapters.web.viewer.site import PASSWORD, text_of
from tests.conftest import fresh_database

SECRET = "the secret key of these tests"
ATTACKER, VICTIM = "acme", "victim"
TENANT, OTHER = accounts.login(ATTACKER, "services"), accounts.login(VICTIM, "services")
ACTOR = "s_services"
TENANTS = (accounts.tenant(ATTACKER, [TENANT]), accounts.tenant(VICTIM, [OTHER]))


KEY, KEY_ACTOR = "app-abcdefghijklmnopqrstuvwx", "k_machine"
"""An API key for everything that one can be for, as a client's token."""

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "send_by_key.py"

GUESTS = {user.name: user for guest in (*accounts.GUESTS, *TENANTS) for user in guest.members()}
_ALIKE = TENANTS[0].user(KEY, KEY_ACTOR, accounts.COMMANDS_OF_A_LOGIN)
GUESTS[KEY] = replace(_ALIKE, publish=(*(_ALIKE.publish or ()), WHO))
"""The users of accounts without streams."""


@pytest.fixture(scope="module")
async def guarded(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> AsyncIterator[tuple[EmbeddedNats, str]]:
    """The server and a database, both set up by `headrace setup` as the user for that."""
    folder = tmp_path_factory.mktemp("guarded")
    async with EmbeddedNats(folder) as server, fresh_database(postgres) as database:
        ended = await headrace(server.url_of("setup"), database, folder, "setup", "--json")
        out, _ = await ended.communicate()
        assert ended.returncode == 0, out
        made = [json.loads(line)["ready"] for line in out.splitlines()]
        assert made == [*(f"stream {stream.name}, 1 replicas" for stream in STREAMS), "tables", "index"]
        async with answering(server):
            await admitted(server, ATTACKER, "services", "1")
            await admitted(server, VICTIM, "services", "2")
            await with_key(server, ATTACKER, KEY)
            yield server, database
    shutil.rmtree(folder)


@asynccontextmanager
async def answering(server: EmbeddedNats) -> AsyncIterator[None]:
    """A worker that answers the server's questions about users."""
    async with connected(server, "worker") as (nc, _), connected(server, "callout") as (own, refused):
        registry = JetStreamRegistry(nc, JetStreamKeys(nc, AesVault(SECRET.encode())))
        await registry.start()
        callout = asyncio.create_task(
            Callout(own, registry, server.callout_keys(), DoorReports(nc, "bus", no_use), JetStreamKeyUses(nc)).run()
        )
        yield
        callout.cancel()
        await asyncio.wait([callout])
        assert not refused


async def no_use(use: object) -> None:
    """No use of a key was reported before."""


async def admitted(server: EmbeddedNats, tenant: str, name: str, issue: str) -> None:
    """Record a login with the issue of its password, or its end when that is empty, and admit it."""
    async with connected(server, "worker") as (nc, _):
        keys = JetStreamKeys(nc, AesVault(SECRET.encode()))
        repository = Repository(JetStreamEventStore(nc, keys), JetStreamSnapshots(nc, keys))
        now = datetime.now(UTC)

        def change(login: BusLogin | None) -> BusLogin:
            if login is None:
                return BusLogin.begin(BusLogin.Opened, name, now, issue=issue)
            if issue:
                login.issue_again(now, issue=issue)
            else:
                login.close(now)
            return login

        await repository.change(BusLogin, name, Metadata(new_id(), tenant, new_id()), change)
    await server.admit(tenant, name, issue)


async def with_key(server: EmbeddedNats, tenant: str, text: str) -> None:
    """Record a key of a tenant that has an account already."""
    id, digest = KEY_ACTOR.removeprefix("k_"), sha256(text.encode()).hexdigest()
    scope: dict[str, Any] = {"apps": [], "datasets": [], "expires_at": None, "account": None}
    key = ApiKey.begin(
        ApiKey.Created, id, datetime.now(UTC), name="K", digest=digest, hint="x", permissions=[*OF_KEYS], **scope
    )
    async with connected(server, "worker") as (nc, _):
        store = JetStreamEventStore(nc, JetStreamKeys(nc, AesVault(SECRET.encode())))
        subject = Subject(tenant, "api_key", id)
        await store.append(subject, key.pending(), Metadata(new_id(), tenant, new_id()), 0)


async def headrace(
    nats_url: str, postgres_url: str, home: Path, *arguments: str, **more: str
) -> asyncio.subprocess.Process:
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
        "HEADRACE_NATS_URL": nats_url,
        "HEADRACE_POSTGRES_URL": postgres_url,
        "HEADRACE_HOME": str(home),
        "HEADRACE_VIEW_ADDRESS": f"{HOST}:0",
        "HEADRACE_SECRET_KEY": SECRET,
        **more,
    }
    command = (sys.executable, "-m", "ops.cli", *arguments)
    return await asyncio.create_subprocess_exec(*command, env=variables, stdout=asyncio.subprocess.PIPE)


@asynccontextmanager
async def connected(server: EmbeddedNats, user: str) -> AsyncIterator[tuple[Connection, list[str]]]:
    """A connection, and what the server refuses it."""
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    url = f"nats://{KEY}@{HOST}:{server.port}" if user == KEY else server.url_of(user)
    nc = await nats.connect(url, error_cb=note)
    yield nc, refused
    await nc.close()


async def test_no_client_comes_in_without_a_password(guarded: tuple[EmbeddedNats, str]) -> None:
    async def quiet(error: Exception) -> None: ...

    server, _ = guarded
    for login in ("", "worker:wrong@", f"{TENANT}:{server.password(OTHER)}@"):
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await connect(f"nats://{login}{HOST}:{server.port}", allow_reconnect=False, error_cb=quiet)


def test_passwords_are_in_files_that_only_their_owner_reads(guarded: tuple[EmbeddedNats, str]) -> None:
    server, _ = guarded
    passwords = [server.password(user) for user in ("setup", "worker", "admin", "sys", "callout", *GUESTS)]
    assert len({*passwords}) == len(passwords)
    holding = [
        file
        for file in server.home.rglob("*")
        if file.is_file() and any(password.encode() in file.read_bytes() for password in passwords)
    ]
    assert holding == [server.home / "accounts.conf"]
    for file in (*holding, server.home / "nats.key"):
        assert file.stat().st_mode & 0o077 == 0


def test_the_deployed_accounts_are_those_of_the_table() -> None:
    deployed = (Path(__file__).resolve().parents[2] / "ops" / "deploy" / "accounts.conf").read_text()

    def variable(user: str) -> str:
        return f"$NATS_{re.sub('[^A-Z0-9]', '_', user.upper())}_PASSWORD"

    text = "include nats-users.conf\n" + accounts.written(
        accounts.configuration(variable, {"default": ["tenant-default"]})
    )
    assert [line for line in deployed.splitlines(keepends=True) if not line.startswith("#")] == text.splitlines(True)


@pytest.mark.parametrize("name", ["HEADRACE", "SYS", "a.b", "*", ""])
def test_no_tenant_is_called_like_another_account(name: str) -> None:
    with pytest.raises(ValueError, match="is not a tenant"):
        accounts.configuration(str, {name: []})


async def test_what_setup_has_made_is_all_that_a_deployment_needs(guarded: tuple[EmbeddedNats, str]) -> None:
    server, _ = guarded
    async with connected(server, "admin") as (nc, _):
        js = nc.jetstream()
        for stream in [*(str(it.name) for it in STREAMS), f"OBJ_{BLOBS}", f"KV_{SNAPSHOTS}"]:
            assert (await js.stream_info(stream)).config.num_replicas == 1
        for name, (stream, _) in CONSUMERS.items():
            assert (await js.consumer_info(stream, name)).config.durable_name == name
        assert (await js.stream_info("COMMANDS")).config.max_msgs == 100_000


async def test_a_tenant_is_served_by_workers_that_may_make_nothing(
    guarded: tuple[EmbeddedNats, str], tmp_path: Path
) -> None:
    """And an archivist, which has no streams, reads along."""
    server, database = guarded
    worker = await headrace(server.url_of("worker"), database, tmp_path, "worker", "--role", "commands", "--json")
    try:
        async with await Client.connect(server.url_of(TENANT), ATTACKER, ACTOR) as tenant:
            outcome = await tenant.send("app.create", {"name": "Guide"}, wait=60)
            assert outcome["status"] == "accepted", outcome
            again = await tenant.send("app.create", {"name": "Guide"}, outcome["command"])
            assert again == outcome == await tenant.outcome(outcome["command"])
        async with await Client.connect(server.url_of(OTHER), VICTIM) as other:
            assert await other.outcome(outcome["command"]) is None
        probe = await headrace(
            server.url_of("worker"), database, tmp_path, "ping", "--role", "commands", "--here", "--json"
        )
        out, _ = await probe.communicate()
        assert (probe.returncode, json.loads(out)["pid"]) == (0, worker.pid)
        archived = await headrace(
            server.url_of("archive"),
            database,
            tmp_path,
            "archive",
            "--archive-url",
            str(tmp_path / "archive"),
            "--json",
        )
        out, _ = await archived.communicate()
        assert archived.returncode == 0, out
        assert json.loads(out)["added"]["EVENTS"] >= 1
        async with connected(server, "archive") as (nc, refused):
            await find_streams(nc)
            for stream in (EVENTS, OUTCOMES):
                source = RawStream(nc, stream)
                last = await source.last()
                [*_, message] = [it async for batch in source.read(0, last) for it in batch]
                assert (message.sequence, outcome["command"] in message.subject) == (last, True)
            assert not refused
        assert await by_example(server, "app.create", '{"name": "By key"}') == ("accepted", KEY_ACTOR, "bus")
        assert await by_example(server, "app.create", "{}") == ("rejected", KEY_ACTOR, "bus")
    finally:
        worker.terminate()
        await worker.communicate()
    assert worker.returncode == 0
    probe = await headrace(server.url_of("worker"), database, tmp_path, "ping", "--role", "commands", "--wait", "0.1")
    await probe.communicate()
    assert probe.returncode == 1


async def by_example(server: EmbeddedNats, *arguments: str) -> tuple[str, str, str]:
    """Status, actor and door of the outcome that the example with a key prints."""
    variables = os.environ | {"NATS_URL": f"nats://{HOST}:{server.port}", "NATS_TOKEN": KEY}
    command = (sys.executable, str(EXAMPLE), *arguments)
    sending = await asyncio.create_subprocess_exec(*command, env=variables, stdout=asyncio.subprocess.PIPE)
    outcome = json.loads((await sending.communicate())[0])
    return outcome["status"], outcome["actor"], outcome["door"]


async def test_the_viewer_serves_from_an_account_without_streams(
    guarded: tuple[EmbeddedNats, str], tmp_path: Path
) -> None:
    """Operators hear it from the account with the streams, and its probe from its own."""
    server, database = guarded
    viewer = await headrace(server.url_of("view"), database, tmp_path, "worker", "--role", "view", "--json")
    try:
        async with await Client.connect(server.url_of("worker")) as operator, asyncio.timeout(60):
            while (card := await answers(operator, "view")) is None:
                await asyncio.sleep(0.1)
            assert card["pid"] == viewer.pid
        probe = await headrace(server.url_of("view"), database, tmp_path, "ping", "--role", "view", "--here", "--json")
        out, _ = await probe.communicate()
        assert (probe.returncode, json.loads(out)["pid"]) == (0, viewer.pid)
    finally:
        viewer.terminate()
        await viewer.communicate()
    assert viewer.returncode == 0


async def test_people_sign_in_at_a_viewer_without_streams(guarded: tuple[EmbeddedNats, str], tmp_path: Path) -> None:
    """It hears of accounts, keeps sessions, and sends commands as the account."""
    server, database = guarded
    before = {name: consumers for name, (_, _, consumers) in (await state(server)).items()}
    roles = {"commands": "worker", "project": "worker", "view": "view"}
    workers = [
        await headrace(server.url_of(user), database, tmp_path, "worker", "--role", role, "--json")
        for role, user in roles.items()
    ]
    try:
        async with await Client.connect(server.url_of("worker"), HOUSE) as house:
            password = await passwords.hash(PASSWORD)
            made = await house.send(
                "account.create", {"email": "ada@example.com", "name": "Ada", "password": password}, wait=60
            )
            assert made["status"] == "accepted", made
            account = made["ids"]["account"]
            created = await house.send("tenant.create", {"tenant": "default", "name": "Us", "owner": account})
            assert created["status"] == "accepted", created
            async with asyncio.timeout(60):
                while (await answers(house, "view")) is None:
                    await asyncio.sleep(0.1)
            url = (tmp_path / "run" / "viewer.url").read_text()
            headers = {"Origin": url, "Accept": "text/html"}
            async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30) as browser:
                form = {"email": "ada@example.com", "password": PASSWORD}
                assert (await browser.post("/login", data=form)).status_code == 303
                assert (await browser.get("/traces")).status_code == 200
                async with asyncio.timeout(60):  # the page reads the tables
                    while "Ada ada@example.com" not in text_of((await browser.get("/account")).text):
                        await asyncio.sleep(0.1)
                key = {"name": "site", "permissions": "chat"}
                assert 'id="made"' in (await browser.post("/keys/new", data=key)).text
                [row] = (await browser.get("/keys.json")).json()["keys"]
                assert row["created_by"] == f"a_{account}"
                assert (await browser.post("/account/sessions/end-others")).status_code == 303
                assert (await browser.get("/traces")).status_code == 200
                await house.send("account.disable", {"account": account})
                assert (await browser.get("/traces")).status_code == 303
    finally:
        for worker in workers:
            worker.terminate()
            await worker.communicate()
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    async with asyncio.timeout(60):  # the server drops the consumers of the projector
        while {name: consumers for name, (_, _, consumers) in (await state(server)).items()} != before:
            await asyncio.sleep(0.2)


async def test_a_tenant_previews_hears_answers_and_reads_results(guarded: tuple[EmbeddedNats, str]) -> None:
    server, _ = guarded

    async def echo(tenant: str, body: bytes) -> dict[str, str]:
        return {"tenant": tenant, "request": body.decode()}

    async with (
        connected(server, "worker") as (worker, refused),
        await Client.connect(server.url_of(TENANT), ATTACKER, ACTOR) as tenant,
    ):
        async with previewing(worker, echo):
            assert await tenant.preview({"a": 1}) == {"tenant": ATTACKER, "request": '{"a":1}'}
        frames = await tenant.connection.subscribe(f"live.{ATTACKER}.*.m")
        await tenant.connection.flush()
        await worker.publish(f"live.{ATTACKER}.c.m", b"{}")
        assert (await frames.next_msg(5)).data == b"{}"
        await worker.jetstream().publish(f"evt.{ATTACKER}.retrieval.r", b"[]")
        found = await tenant.stream.get_last_msg(EVENTS, f"evt.{ATTACKER}.retrieval.r", direct=True)
        assert found.data == b"[]"
        assert not refused


@asynccontextmanager
async def previewing(
    worker: Connection, preview: Callable[[str, bytes], Awaitable[dict[str, Any]]]
) -> AsyncIterator[None]:
    """A service of previews that answers."""
    serving = asyncio.create_task(previews.serve(worker, preview))
    answered = False
    async with asyncio.timeout(30):
        while not answered:
            with suppress(NoRespondersError):
                answered = bool(await worker.request("preview.probe", b"", timeout=10))
            await asyncio.sleep(0.02)
    yield
    serving.cancel()
    await asyncio.wait([serving])


@pytest.mark.parametrize("subject", ["embed.gte", "embed.gte.info", "rerank.cross", "preview.acme", "worker.commands"])
async def test_workers_serve_each_other(guarded: tuple[EmbeddedNats, str], subject: str) -> None:
    """Embedding, reranking, previews and the probe: one worker subscribes, another asks."""
    server, _ = guarded

    async def answer(message: Msg) -> None:
        await respond(message, b"served")

    async with connected(server, "worker") as (serving, refused), connected(server, "worker") as (asking, denied):
        await serving.subscribe(subject, cb=answer)
        reply = None
        async with asyncio.timeout(30):
            while reply is None:
                with suppress(NoRespondersError):
                    reply = await asking.request(subject, b"", timeout=10)
        assert reply.data == b"served"
        assert not refused
        assert not denied


async def test_workers_store_blobs_and_the_archive_and_the_viewer_read_them(guarded: tuple[EmbeddedNats, str]) -> None:
    server, _ = guarded
    async with connected(server, "worker") as (nc, refused):
        digest = await JetStreamBlobs(nc).put("default", b"The lock opens at six.")
        assert not refused
    for user in ("archive", "view"):
        async with connected(server, user) as (nc, refused):
            await find_streams(nc)
            assert await JetStreamBlobs(nc).get("default", digest) == b"The lock opens at six."
            with pytest.raises(Unavailable):
                await JetStreamBlobs(nc, timeout_s=0.2).put("default", b"Or at seven.")
            assert refused


# --- what is refused ------------------------------------------------------------------------------------------

KEPT = (EVENTS, OUTCOMES, f"OBJ_{BLOBS}")

RUIN = [
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("DELETE", "PURGE", "RESTORE", "MSG.DELETE") for stream in KEPT),
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("UPDATE", "PEER.REMOVE", "LEADER.STEPDOWN") for stream in KEPT),
    "$JS.API.STREAM.DELETE.COMMANDS",
    "$JS.API.STREAM.DELETE.DEAD",
    "$JS.API.CONSUMER.DELETE.EVENTS.answer",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.USER.AUTH",
    "$SYS.REQ.SERVER.x.KICK",
    "$JS.API.SERVER.REMOVE",
]

FORGED = [
    f"evt.{VICTIM}.app.00000000-0000-4000-8000-000000000001",
    f"out.{VICTIM}.00000000-0000-4000-8000-000000000001",
    f"cmd.{VICTIM}.s_services.app.delete",
    f"cmd.{VICTIM}.app.delete",
    f"live.{VICTIM}.c.m",
    f"$KV.{KEYS}.{VICTIM}.861cdbec",
    f"$KV.{SNAPSHOTS}.{VICTIM}.x",
    f"$KV.{SESSIONS}.session.x",
    f"$O.{BLOBS}.C.abc",
    f"$O.{BLOBS}.M.abc",
    "dead.commands.x",
    "worker.commands",
    "embed.gte",
    "_INBOX.victim.x",
]
"""Subjects of messages of the system, or of another tenant."""

OUTSIDE = [it for it in FORGED if not it.startswith("_INBOX.")]
"""The same without inboxes, to which a role answers in its own account."""

STREAM_READS = ["$JS.API.STREAM.MSG.GET.EVENTS", "$JS.API.DIRECT.GET.EVENTS", "$JS.API.CONSUMER.CREATE.EVENTS"]


def foreign_commands(own: str) -> list[str]:
    """Every command under another tenant and another actor; the operator's, and subjects without an actor."""
    others = ("anon", "s_other", "s_services2", "a_services", "k_services", "s_*", "k_*", "S_services")
    others += ("a.services", "s.services")
    origins = [(ATTACKER, it) for it in (*others, *({ACTOR, KEY_ACTOR} - {own}))]
    origins += [(VICTIM, it) for it in ("anon", own, "s_victim", "a.owner")]
    return [
        *(f"cmd.{tenant}.{actor}.{name}" for tenant, actor in origins for name in ROUTES),
        *(f"cmd.{ATTACKER}.{own}.{name}" for name, route in ROUTES.items() if route.permission not in OF_SERVICES),
        *(f"cmd.{HOUSE}.{actor}.{name}" for actor in ("anon", own) for name in ROUTES),
        *(f"cmd.{ATTACKER}.{name}" for name in ROUTES),
        f"cmd.{ATTACKER}.{own}.app.explode",
        f"cmd.{ATTACKER}.{own}.app.create.now",
    ]


NOT_FOR = {
    "setup": [*RUIN, "$JS.API.STREAM.PURGE.COMMANDS", *FORGED],
    "worker": [*RUIN, "$JS.API.STREAM.CREATE.MINE", "$JS.API.STREAM.UPDATE.COMMANDS", "$JS.API.STREAM.SNAPSHOT.EVENTS"],
    "view": [
        *RUIN,
        *(it for it in OUTSIDE if not it.startswith(f"$KV.{SESSIONS}")),
        "$JS.API.CONSUMER.CREATE.EVENTS",
        *(f"cmd.{VICTIM}.{actor}.app.delete" for actor in ("s_services", "a_owner", "k_key", "s.services", "k.key")),
    ],
    "archive": [*RUIN, *OUTSIDE, "$JS.API.CONSUMER.CREATE.EVENTS", "$JS.HEADRACE.API.DIRECT.GET.COMMANDS"],
    "export": [*RUIN, *OUTSIDE, "$JS.HEADRACE.API.DIRECT.GET.EVENTS", "$JS.HEADRACE.API.STREAM.MSG.GET.KV_keys"],
    **{
        user: [
            *RUIN,
            *FORGED,
            *STREAM_READS,
            f"out.{ATTACKER}.x",
            *foreign_commands(actor),
            f"live.{ATTACKER}.x.y",
            f"preview.{VICTIM}",
            f"$JS.API.DIRECT.GET.OUTCOMES.out.{VICTIM}.x",
            "$JS.API.DIRECT.GET.OUTCOMES",
            "$JS.API.STREAM.INFO.EVENTS",
        ]
        for user, actor in ((TENANT, ACTOR), (KEY, KEY_ACTOR))
    },
}

NOT_HEARD = {
    "setup": ["evt.>", "cmd.>", "out.>", ">"],
    "worker": [">", "$JS.>", "$SYS.>"],
    "view": [">", "evt.>", "cmd.>", "live.>", f"evt.{VICTIM}.app.*"],
    "archive": [">", "evt.>", "cmd.>", "out.>", f"$KV.{KEYS}.>"],
    "export": [">", "evt.>", "out.>"],
    **{
        user: [">", f"evt.{ATTACKER}.>", f"cmd.{ATTACKER}.>", f"out.{VICTIM}.>", "out.*.x", "live.>", "$SYS.>"]
        for user in (TENANT, KEY)
    },
}


@pytest.mark.parametrize("user", NOT_FOR)
async def test_what_a_user_may_not_say_is_refused(guarded: tuple[EmbeddedNats, str], user: str) -> None:
    server, _ = guarded
    async with connected(server, "admin") as (nc, _):
        before = [(await nc.jetstream().stream_info(stream)).state.last_seq for stream in KEPT]
    async with connected(server, user) as (nc, refused):
        for subject in NOT_FOR[user]:
            await nc.publish(subject, b"{}")
        await all_of(refused, {f'nats: permissions violation for publish to "{it}"'.lower() for it in NOT_FOR[user]})
    async with connected(server, "admin") as (nc, _):
        assert [(await nc.jetstream().stream_info(stream)).state.last_seq for stream in KEPT] == before


@pytest.mark.parametrize(("user", "actor"), [(TENANT, ACTOR), (KEY, KEY_ACTOR)])
async def test_a_service_sends_every_command_but_the_operators_as_itself(
    guarded: tuple[EmbeddedNats, str], user: str, actor: str
) -> None:
    server, _ = guarded
    async with connected(server, user) as (nc, refused):
        for name in accounts.COMMANDS_OF_A_LOGIN:
            ack = await nc.jetstream().publish(f"cmd.{ATTACKER}.{actor}.{name}", b"{}")
            assert ack.stream == "COMMANDS"
        assert not refused


async def test_no_tenant_can_have_another_tenants_command_dropped(guarded: tuple[EmbeddedNats, str]) -> None:
    """Though it knows the id, and keeps it in the queue's memory of `Nats-Msg-Id` without a pause."""
    server, _ = guarded
    id = new_id()
    stop = asyncio.Event()
    async with connected(server, TENANT) as (attacker, _), connected(server, OTHER) as (victim, _):

        async def flood() -> None:
            headers = {"Nats-Msg-Id": id, "Headrace-Id": id}
            while not stop.is_set():
                await attacker.jetstream().publish(f"cmd.{ATTACKER}.{ACTOR}.app.create", b"{}", headers=headers)

        flooding = asyncio.create_task(flood())
        before = 0
        for _ in range(20):
            ack = await victim.jetstream().publish(
                f"cmd.{VICTIM}.{ACTOR}.app.create", b"{}", headers={"Headrace-Id": id}
            )
            assert not ack.duplicate
            assert ack.seq > before
            before = ack.seq
            await asyncio.sleep(0.01)
        stop.set()
        await flooding


@pytest.mark.parametrize(
    ("user", "actor"),
    [("tenant-acme.services", "s_services"), ("tenant-acme.a-b_c", "s_a-b_c"), ("tenant-acme", "s_acme")],
)
def test_the_actor_of_a_login_is_one_token(user: str, actor: str) -> None:
    assert accounts.actor_of(user) == actor
    assert ACTORS.fullmatch(actor)


@pytest.mark.parametrize("user", NOT_HEARD)
async def test_what_a_user_may_not_hear_is_refused(guarded: tuple[EmbeddedNats, str], user: str) -> None:
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


# --- replies --------------------------------------------------------------------------------------------------

PURGE = "$JS.API.STREAM.PURGE.COMMANDS"

BODIES = [b"", b"{}", b'{"seq": 1}', b'{"seq": 1, "batch": 100}', b'{"last_by_subj": ">"}', b'{"multi_last": [">"]}']
"""Requests to JetStream; a service that takes none of them answers with an error, which is a reply, too."""


def examples(user: accounts.User) -> list[str]:
    """A subject for each that a user may publish, and for direct gets one that has a message."""
    found = []
    for subject in user.publish or ():
        if subject.endswith(">"):
            found.append(subject.replace(">", "x.y"))
        elif subject.endswith("*"):
            found += [subject.replace("*", name) for name in ("there", "gone")]
        else:
            found.append(subject)
    return found


@asynccontextmanager
async def everything(server: EmbeddedNats) -> AsyncIterator[list[str]]:
    """The subjects of all messages in the account with the streams, in which every kind of request is answered."""
    heard: list[str] = []

    async def note(message: Msg) -> None:
        heard.append(message.subject)

    async def answer(tenant: str, body: bytes) -> dict[str, str]:
        return {"words": body.decode(errors="replace")}

    async def card(message: Msg) -> None:
        await message.respond(b"{}")

    async with connected(server, "admin") as (admin, _), connected(server, "worker") as (worker, _):
        js = admin.jetstream()
        for name in ("document", "retrieval"):
            await js.publish(f"evt.{ATTACKER}.{name}.there", b"{}")
        with suppress(nats.js.errors.APIError):
            await js.publish(f"out.{ATTACKER}.there", b"{}")
        for role in ("view", "archive", "export"):
            await worker.subscribe(f"worker.{role}", cb=card)
        async with previewing(worker, answer):
            await admin.subscribe(">", cb=note)
            await asyncio.gather(admin.flush(), worker.flush())
            yield heard


async def state(server: EmbeddedNats) -> dict[str, tuple[int, int, int]]:
    """Last sequence, messages and consumers of each stream."""
    async with connected(server, "admin") as (nc, _):
        infos = await nc.jetstream().streams_info()
    return {
        str(info.config.name): (info.state.last_seq, info.state.messages, info.state.consumer_count) for info in infos
    }


@pytest.mark.parametrize("user", [user for user in GUESTS if user != OTHER])
async def test_no_reply_subject_reaches_the_log_or_another_tenant(guarded: tuple[EmbeddedNats, str], user: str) -> None:
    """Every request that a user of another account may send, with every ruinous reply, while the other tenant listens.

    The server and the workers answer, and the answers stay in the account of the user.
    """
    server, _ = guarded
    replies = [*RUIN, PURGE, *FORGED, "$JS.API.CONSUMER.CREATE.EVENTS", "$JS.API.STREAM.CREATE.MINE"]
    replies += [
        f"preview.{VICTIM}",
        f"cmd.{ATTACKER}.anon.app.create",
        f"evt.{ATTACKER}.app.x",
        "rerank.x",
        "$JS.ACK.x",
    ]
    overheard: list[str] = []

    async def note(message: Msg) -> None:
        overheard.append(message.subject)

    async with everything(server) as heard, connected(server, OTHER) as (other, _), connected(server, user) as (nc, _):
        for subject in accounts.tenant(VICTIM, [OTHER]).members()[0].subscribe or ():
            await other.subscribe(subject, cb=note)
        await other.flush()
        before = await state(server)
        heard.clear()
        for subject in examples(GUESTS[user]):
            for reply in replies:
                for body in BODIES:
                    await nc.publish(subject, body, reply=reply)
        await nc.flush()
        await quiet(heard)
        reached = {subject for subject in heard if not subject.startswith(("_INBOX.", "_R_.", API, "$JS.EVENT."))}
        sent = {it for it in examples(GUESTS[user]) if not it.startswith(("$JS.", "$SYS.", "_"))}
        assert reached == {it for it in sent if not it.startswith("worker.")}
        assert not [it for it in heard if it in {*RUIN, PURGE} or it.startswith(("$JS.API.CONSUMER.CREATE", "$JS.ACK"))]
        assert not overheard
        after = await state(server)
        own = {"COMMANDS", "KV_exports", "KV_sessions"} if user in (TENANT, KEY, "view", "export") else set()
        assert {name: it for name, it in after.items() if name not in own} == {
            name: it for name, it in before.items() if name not in own
        }
        assert after["COMMANDS"][1] >= before["COMMANDS"][1]


async def test_inside_the_account_with_the_streams_a_reply_does_reach_the_log(
    guarded: tuple[EmbeddedNats, str],
) -> None:
    """Why only users that are trusted with the log are in it; and a proof that the test before this one sees it."""
    server, _ = guarded
    forged = f"evt.{VICTIM}.app.forged"
    async with everything(server) as heard, connected(server, "worker") as (nc, _):
        before = await state(server)
        await nc.publish(f"$JS.API.DIRECT.GET.{OUTCOMES}.out.{ATTACKER}.gone", b"", reply=forged)
        await nc.flush()
        await quiet(heard)
        assert forged in heard
        assert (await state(server))[EVENTS][0] == before[EVENTS][0] + 1


async def quiet(heard: list[str]) -> None:
    """Wait until nothing has been heard for a moment."""
    async with asyncio.timeout(60):
        count = -1
        while len(heard) != count:
            count = len(heard)
            await asyncio.sleep(0.3)


async def test_a_request_that_is_not_imported_is_answered_at_once(guarded: tuple[EmbeddedNats, str]) -> None:
    """An account without streams finds out that the requests it may send have another prefix."""
    server, _ = guarded
    async with connected(server, "archive") as (nc, _):
        assert api(nc) == API
        await find_streams(nc)
        assert api(nc) == IMPORTED_API
        assert (await nc.jetstream().stream_info(EVENTS)).config.name == EVENTS
    async with connected(server, "worker") as (nc, _):
        await find_streams(nc)
        assert api(nc) == API
        reply = await nc.request(f"{API}.STREAM.INFO.{EVENTS}")
        assert orjson.loads(reply.data)["config"]["name"] == EVENTS


# --- a login that comes and goes --------------------------------------------------------------------------------


async def _publishes(nc: Connection, subject: str) -> bool:
    """False while the connection is away."""
    try:
        return (await nc.jetstream(timeout=2).publish(subject, b"{}")).stream == "COMMANDS"
    except nats.errors.Error:
        return False


async def test_a_login_is_opened_renewed_and_closed_while_others_stay_connected(
    guarded: tuple[EmbeddedNats, str],
) -> None:
    server, _ = guarded
    lost: list[str] = []

    def noting(user: str) -> Callable[[], Awaitable[None]]:
        async def note() -> None:
            lost.append(user)

        return note

    async def refused(url: str) -> bool:
        with pytest.raises(Unreachable, match=r"Authorization|no answer"):
            await Client.connect(url, "later", within=1)
        return True

    async def publishes(url: str) -> bool:
        async with await Client.connect(url, "later") as tenant:
            return (await tenant.stream.publish("cmd.later.s_crm.app.create", b"{}")).stream == "COMMANDS"

    await admitted(server, "later", "first", "1")
    staying = [
        await nats.connect(server.url_of(user), disconnected_cb=noting(user)) for user in ("worker", "view", TENANT)
    ]
    assert await refused(server.url_of("tenant-later.crm"))
    await admitted(server, "later", "crm", "first")
    first = server.url_of("tenant-later.crm")
    assert await publishes(first)
    await admitted(server, "later", "crm", "second")
    second = server.url_of("tenant-later.crm")
    assert await publishes(second)
    assert await refused(first)
    await server.admit("later", "crm", "second")  # delivered again
    await admitted(server, "later", "crm", "")
    assert server.tenants()["later"] == ["tenant-later.first"]
    assert await refused(second)
    assert (await staying[2].jetstream().publish(f"cmd.{ATTACKER}.{ACTOR}.app.create", b"{}")).stream == "COMMANDS"
    assert not lost
    # A tenant's first login needs a reload, at which users come back that the server does not list.
    await admitted(server, "last", "crm", "1")
    async with asyncio.timeout(20):
        while not lost:
            await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        while not await _publishes(staying[2], f"cmd.{ATTACKER}.{ACTOR}.app.create"):
            await asyncio.sleep(0.05)
    assert set(lost) == {TENANT}
    for nc in staying:
        await nc.close()


async def test_a_closed_login_loses_its_connections(guarded: tuple[EmbeddedNats, str]) -> None:
    server, _ = guarded
    lost = asyncio.Event()

    async def note() -> None:
        lost.set()

    async def quiet(error: Exception) -> None: ...

    await admitted(server, "brief", "services", "1")
    url = server.url_of("tenant-brief.services")
    nc = await nats.connect(url, disconnected_cb=note, closed_cb=note, error_cb=quiet, allow_reconnect=False)
    await admitted(server, "brief", "services", "")
    await asyncio.wait_for(lost.wait(), 10)
    await nc.close()


async def test_the_open_logins_of_the_log_are_printed_with_their_passwords(
    guarded: tuple[EmbeddedNats, str], tmp_path: Path
) -> None:
    server, database = guarded
    async with connected(server, "worker") as (nc, _):
        store = JetStreamEventStore(nc, JetStreamKeys(nc, Settings.load(home=tmp_path, secret_key=SECRET).vault()))
        for tenant in ("one", "two"):
            login = BusLogin.begin(BusLogin.Opened, "crm", datetime.now(UTC), issue="first")
            if tenant == "two":
                login.close(datetime.now(UTC))
            await store.append(
                Subject(tenant, "bus_login", "crm"), login.pending(), Metadata(new_id(), tenant, new_id()), 0
            )
    key = "a key of an operator"
    printed = await headrace(
        server.url_of("worker"),
        database,
        tmp_path,
        *("nats", "accounts", "--log", "--tenant", "default", "--json"),
        HEADRACE_NATS_KEY=key,
    )
    out, _ = await printed.communicate()
    found = json.loads(out)["accounts"]
    assert found["one"]["users"][0]["password"] == accounts.password(key.encode(), "tenant-one.crm", "first")
    assert found["default"]["users"][0]["password"] == "$NATS_TENANT_DEFAULT_PASSWORD"
    assert "two" not in found
    printed = await headrace(
        server.url_of("worker"),
        database,
        tmp_path,
        *("nats", "accounts", "--log", "--callout", "--tenant", "default", "--json"),
        HEADRACE_NATS_KEY=key,
    )
    out, _ = await printed.communicate()
    asking = json.loads(out)
    assert asking["accounts"]["one"]["users"] == asking["accounts"][ATTACKER]["users"] == []
    assert asking["accounts"]["one"]["imports"] == found["one"]["imports"]
    asked = asking["authorization"]["auth_callout"]
    assert (asked["issuer"], asked["xkey"]) == Keys.of(key.encode()).public
    listed = ["setup", "worker", "admin", "view", "archive", "export", "tenant-default", "sys", "callout"]
    assert asked["auth_users"] == listed
    assert asked["account"] == "SYS"
