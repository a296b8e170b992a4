"""The bus by key, on a real server: who comes in, what a connection can do, and when it ends."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import nats.errors
import orjson
import psutil
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from adapters.jetstream import accounts, callout, doors, nats_py
from adapters.jetstream.callout import MOST_WRONG, WHO, Callout, Guesses, Keys
from adapters.jetstream.doors import DoorReports
from adapters.jetstream.key_uses import JetStreamKeyUses
from adapters.jetstream.registry import JetStreamRegistry
from adapters.jetstream.streams import COMMANDS, set_up
from domain.aggregate import new_id
from domain.log import OUTCOMES
from handlers.routes import ROUTES
from ops.servers.embedded import HOST, EmbeddedNats
from tests.adapters.jetstream import guesser
from tests.handlers.access.test_may import account, an_app, key
from tests.handlers.desk import Desk

WITHIN_S = 3.0
"""Time within which a right key is let in whatever others guess, in seconds."""

EVERYTHING = ["app.manage", "chat", "dataset.edit", "dataset.query", "operate", "read"]


class Bus:
    """A server that asks a callout, and the log that the callout follows."""

    def __init__(self, server: EmbeddedNats, nc: Client) -> None:
        self.server = server
        self.nc = nc
        self.desk = Desk(nc, "acme")
        self.uses = JetStreamKeyUses(nc)

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[Callout]:
        async with self.connected("worker") as nc, self.connected("callout") as own:
            registry = JetStreamRegistry(nc, self.desk.keys)  # type: ignore[arg-type]
            await registry.start()
            self.uses = JetStreamKeyUses(nc)
            running = Callout(own, registry, self.server.callout_keys(), reports(nc), self.uses)
            task = asyncio.create_task(running.run())
            await own.flush()
            yield running
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def connected(self, user: str, **options: Any) -> AsyncIterator[Client]:
        nc = await nats_py.connect(self.server.url_of(user), error_cb=quiet, **options)
        yield nc
        await nc.close()

    async def by_key(self, text: str, **options: Any) -> Client:
        """Raises: nats.errors.Error when it is refused, TimeoutError when there is no answer."""
        url = f"nats://{text}@{HOST}:{self.server.port}"
        options = {"allow_reconnect": False, "error_cb": quiet} | options
        return await nats_py.connect(url, **options)

    async def refuses(self, text: str) -> bool:
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await self.by_key(text)
        return True


async def quiet(error: Exception) -> None: ...


def reports(nc: Client) -> DoorReports:
    async def known(use: object) -> None:
        """No use was reported before."""

    return DoorReports(nc, "bus", known)


@pytest.fixture(scope="module")
async def bus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bus]:
    folder = tmp_path_factory.mktemp("asks")
    async with EmbeddedNats(folder) as server:
        nc = await nats_py.connect(server.url)
        await set_up(nc.jetstream())
        for tenant in ("acme", "other"):
            await server.admit(tenant, "", "")
        bus = Bus(server, nc)
        assert isinstance(bus.desk.registry, JetStreamRegistry)
        await bus.desk.registry.start()
        yield bus
        await nc.close()
    shutil.rmtree(folder)


@pytest.fixture
async def answered(bus: Bus) -> AsyncIterator[Callout]:
    async with bus.answering() as running:
        yield running


def text() -> str:
    """A key that no other test has."""
    return f"app-{new_id()}"


async def closed(nc: Client, within: float = 5.0) -> float:
    """Wait until the server has closed a connection that does not come back; return the time in seconds."""
    since = time.monotonic()
    async with asyncio.timeout(within):
        while not nc.is_closed:
            await asyncio.sleep(0.005)
    return time.monotonic() - since


async def test_a_key_sends_its_commands_and_reads_its_tenant(bus: Bus, answered: Callout) -> None:
    shown = text()
    actor = await key(bus.desk, shown, permissions=["app.manage", "read"])
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error).lower())

    nc = await bus.by_key(shown, error_cb=note)
    who = orjson.loads((await nc.request(WHO)).data)["data"]
    assert (who["account"], who["user"].partition(".")[0]) == ("acme", actor)
    allowed = [name for name, route in ROUTES.items() if route.permission == "app.manage"]
    for name in allowed:
        assert (await nc.jetstream().publish(f"cmd.acme.{actor}.{name}", b"{}")).stream == "COMMANDS"
    heard = await nc.subscribe("out.acme.>")
    await nc.flush()
    id = new_id()
    await bus.nc.jetstream().publish(f"out.acme.{id}", b"{}")
    assert (await heard.next_msg(5)).subject == f"out.acme.{id}"
    found = await nc.request(f"$JS.API.DIRECT.GET.{OUTCOMES}.out.acme.{id}")
    assert found.data == b"{}"
    assert not refused
    others = [name for name in ROUTES if name not in allowed]
    subjects = [
        *(f"cmd.acme.{actor}.{name}" for name in others),
        *(f"cmd.{tenant}.{other}.app.create" for tenant in ("acme", "other") for other in ("anon", "k_1", "s_crm")),
        f"cmd.other.{actor}.app.create",
        f"$JS.API.DIRECT.GET.{OUTCOMES}.out.other.{id}",
        "evt.acme.app.x",
    ]
    for subject in subjects:
        await nc.publish(subject, b"{}")
    for subject in ("out.other.>", "live.other.>", ">", "evt.acme.>", "$SYS.>"):
        await nc.subscribe(subject)
    async with asyncio.timeout(5):
        while len(refused) < len(subjects) + 5:
            await asyncio.sleep(0.01)
    assert {it for it in refused if "publish" in it} == {
        f'nats: permissions violation for publish to "{it}"'.lower() for it in subjects
    }
    await nc.close()


async def test_what_may_not_connect_is_refused(bus: Bus, answered: Callout) -> None:
    desk = bus.desk
    scoped, blind, revoked, ended, banned = (text() for _ in range(5))
    await key(desk, scoped, permissions=["chat", "read"], apps=[await an_app(desk)])
    await key(desk, blind, permissions=["chat", "app.manage"])
    await desk.done("api_key.revoke", api_key=(await key(desk, revoked, permissions=EVERYTHING))[2:])
    soon = await key(desk, ended, permissions=EVERYTHING)
    digest = sha256(new_id().encode()).hexdigest()
    await desk.done("api_key.replace", api_key=soon[2:], digest=digest, hint="a", overlap_s=0)
    owner = await account(desk, new_id())
    await desk.done("tenant.create", tenant="acme", owner=owner, name="Acme")
    robot = await account(desk, new_id())
    await desk.done("tenant.add_member", tenant="acme", account=robot, role="editor")
    await key(desk, banned, permissions=EVERYTHING, account=robot)
    await (await bus.by_key(banned)).close()
    await desk.done("account.disable", account=robot)
    for shown in (scoped, blind, revoked, ended, banned, "app-unknown", sha256(scoped.encode()).hexdigest()):
        assert await bus.refuses(shown)
    good = text()
    await key(desk, good, permissions=EVERYTHING)
    for login in ("", f"user:{good}@", f"{good}:{good}@", f"tenant-acme:{good}@", f"tenant-acme.crm:{good}@", "sys:@"):
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await nats_py.connect(f"nats://{login}{HOST}:{bus.server.port}", allow_reconnect=False, error_cb=quiet)
    await (await bus.by_key(good)).close()


async def test_keys_of_an_archived_tenant_only_read(bus: Bus, answered: Callout) -> None:
    desk = bus.desk
    with suppress(AssertionError):
        await desk.done("tenant.create", tenant="acme", owner=await account(desk, new_id()), name="Acme")
    shown = text()
    actor = await key(desk, shown, permissions=EVERYTHING)
    nc = await bus.by_key(shown)
    await desk.done("tenant.archive", tenant="acme")
    try:
        await closed(nc)
        refused = asyncio.Event()

        async def note(error: Exception) -> None:
            refused.set()

        nc = await bus.by_key(shown, error_cb=note)
        await nc.subscribe("out.acme.>")
        await nc.flush()
        assert not refused.is_set()
        await nc.publish(f"cmd.acme.{actor}.app.create", b"{}")
        await asyncio.wait_for(refused.wait(), 5)
        await nc.close()
    finally:
        await desk.done("tenant.unarchive", tenant="acme")


async def test_a_revoked_key_is_disconnected_under_load(bus: Bus, answered: Callout) -> None:
    """Within a second, while others come and go and send; those stay."""
    desk = bus.desk
    revoked, kept = text(), text()
    gone, stays = await key(desk, revoked, permissions=EVERYTHING), await key(desk, kept, permissions=EVERYTHING)
    lost = [await bus.by_key(revoked) for _ in range(50)]
    left = [await bus.by_key(kept) for _ in range(50)]
    stop = asyncio.Event()

    async def send(nc: Client, actor: str) -> None:
        with suppress(nats.errors.Error, OSError):
            while not stop.is_set():
                await nc.publish(f"cmd.acme.{actor}.app.create", b"{}")
                await asyncio.sleep(0.002)

    async def come_and_go() -> None:
        while not stop.is_set():
            await (await bus.by_key(kept)).close()

    busy = [asyncio.create_task(send(nc, actor)) for all, actor in ((lost, gone), (left, stays)) for nc in all]
    busy.append(asyncio.create_task(come_and_go()))
    await asyncio.sleep(0.3)
    await desk.done("api_key.revoke", api_key=gone[2:])
    since = time.monotonic()
    for nc in lost:
        await closed(nc)
    assert time.monotonic() - since < 1.0
    assert await bus.refuses(revoked)
    stop.set()
    await asyncio.gather(*busy)
    for nc in left:
        assert nc.is_connected
        await nc.close()


async def test_who_has_another_role_comes_back_with_its_commands(bus: Bus, answered: Callout) -> None:
    desk = bus.desk
    with suppress(AssertionError):
        await desk.done("tenant.create", tenant="acme", owner=await account(desk, new_id()), name="Acme")
    robot = await account(desk, new_id())
    await desk.done("tenant.add_member", tenant="acme", account=robot, role="editor")
    shown = text()
    actor = await key(desk, shown, permissions=EVERYTHING, account=robot)
    back, refused = asyncio.Event(), asyncio.Event()

    async def note() -> None:
        back.set()

    async def deny(error: Exception) -> None:
        if "permissions violation" in str(error):
            refused.set()

    nc = await bus.by_key(shown, allow_reconnect=True, reconnect_time_wait=0.05, reconnected_cb=note, error_cb=deny)
    assert await nc.jetstream().publish(f"cmd.acme.{actor}.app.create", b"{}")
    await desk.done("tenant.set_role", tenant="acme", account=robot, role="viewer")
    await asyncio.wait_for(back.wait(), 5)
    await nc.publish(f"cmd.acme.{actor}.app.create", b"{}")
    await asyncio.wait_for(refused.wait(), 5)
    await nc.close()


async def test_a_key_that_ends_by_time_is_disconnected_without_notice(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = text()
    actor = await key(bus.desk, shown, permissions=EVERYTHING)
    digest = sha256(text().encode()).hexdigest()
    await bus.desk.done("api_key.replace", api_key=actor[2:], digest=digest, hint="a", overlap_s=1)
    monkeypatch.setattr(callout, "MINUTE_S", 0.2)
    async with bus.answering():
        nc = await bus.by_key(shown)
        assert await closed(nc) > 0.2


async def test_without_an_answer_who_is_connected_stays_and_operators_come_in(bus: Bus) -> None:
    """And clients that come meanwhile wait, and are let in later."""
    shown = text()
    actor = await key(bus.desk, shown, permissions=EVERYTHING)
    async with bus.answering():
        nc = await bus.by_key(shown)
    for user in ("worker", "admin", "sys", "view", "setup", "callout", "tenant-default"):
        async with bus.connected(user, allow_reconnect=False) as own:
            await own.flush()
    assert (await nc.jetstream().publish(f"cmd.acme.{actor}.app.create", b"{}")).stream == "COMMANDS"
    with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
        await bus.by_key(shown, connect_timeout=0.3)
    errors: list[Exception] = []

    async def note(error: Exception) -> None:
        errors.append(error)

    coming = asyncio.create_task(
        bus.by_key(shown, allow_reconnect=True, connect_timeout=0.3, reconnect_time_wait=0.05, error_cb=note)
    )
    await asyncio.sleep(0.7)
    assert not coming.done()
    async with bus.answering():
        other = await asyncio.wait_for(coming, 5)
        assert {type(error) for error in errors} <= {TimeoutError, nats.errors.TimeoutError}
        await other.close()
    assert nc.is_connected
    await nc.close()


async def test_no_listener_sees_a_key(bus: Bus, answered: Callout) -> None:
    """Not even one in the server's own account, who hears everything in it."""
    shown = text()
    await key(bus.desk, shown, permissions=EVERYTHING)
    heard: list[Msg] = []

    async def note(message: Msg) -> None:
        heard.append(message)

    async with bus.connected("sys") as spy:
        await spy.subscribe(">", cb=note)
        await spy.flush()
        await (await bus.by_key(shown)).close()
        async with asyncio.timeout(5):
            while not {callout.SUBJECT} <= {it.subject for it in heard} or len(heard) < 3:
                await asyncio.sleep(0.01)
    asked = [it for it in heard if it.subject == callout.SUBJECT]
    answers = [it for it in heard if it.subject in {ask.reply for ask in asked}]
    assert len(asked) == len(answers) == 1
    for message in heard:
        assert shown.encode() not in message.data
        assert shown not in json.dumps(dict(message.headers or {}))
    assert all(it.data.startswith(b"xkv1") for it in (*asked, *answers))


async def test_no_other_program_answers_for_the_callout(bus: Bus) -> None:
    """An answer under other keys is refused by the server, and a request under other keys by the callout."""
    shown = text()
    await key(bus.desk, shown, permissions=EVERYTHING)
    async with bus.connected("worker") as nc, bus.connected("sys") as own:
        registry = JetStreamRegistry(nc, bus.desk.keys)  # type: ignore[arg-type]
        await registry.start()
        ours, theirs = bus.server.callout_keys(), Keys.of(b"another key of an operator")
        forger = Callout(
            own, registry, Keys(theirs.issuer, ours.exchange, theirs.passwords), reports(nc), JetStreamKeyUses(nc)
        )
        task = asyncio.create_task(forger.run())
        await asyncio.sleep(0.1)
        assert await bus.refuses(shown)
        task.cancel()
        await asyncio.wait([task])
    async with bus.answering(), bus.connected("sys") as own:
        for body in (b"", b"xkv1", theirs.exchange.seal(b"a.b.c", ours.exchange.public), b"{}"):
            with pytest.raises(nats.errors.Error):
                await own.request("$SYS.REQ.USER.AUTH", body, timeout=0.1)
        await (await bus.by_key(shown)).close()


async def test_an_address_that_guesses_is_not_answered_and_others_are(bus: Bus, answered: Callout) -> None:
    """And the guesses are one report."""
    good = text()
    await key(bus.desk, good, permissions=EVERYTHING)
    for number in range(MOST_WRONG):
        assert await bus.refuses(f"app-guess-{number}")
    with pytest.raises((TimeoutError, nats.errors.TimeoutError)):
        await bus.by_key("app-guess-more", connect_timeout=0.2)
    since = time.monotonic()
    await (await bus.by_key(good)).close()
    assert time.monotonic() - since < 1
    await answered._reports.flush()
    found = await bus.nc.jetstream().get_last_msg(COMMANDS, "cmd._house.anon.door.report_refusals")
    assert orjson.loads(found.data or b"") == {"credential": "key", "address": HOST, "count": MOST_WRONG + 1}
    assert (found.headers or {})["Headrace-Door"] == "bus"


async def test_the_first_use_of_a_key_from_an_address_is_reported(bus: Bus, answered: Callout) -> None:
    shown = text()
    actor = await key(bus.desk, shown, permissions=EVERYTHING)
    before = (await bus.nc.jetstream().stream_info(COMMANDS)).state.last_seq
    for _ in range(3):
        await (await bus.by_key(shown, name="till 7")).close()
    async with asyncio.timeout(5):
        while (await bus.nc.jetstream().stream_info(COMMANDS)).state.last_seq == before:
            await asyncio.sleep(0.01)
    found = await bus.nc.jetstream().get_last_msg(COMMANDS, "cmd.acme.anon.door.report_use")
    used = orjson.loads(found.data or b"")
    assert (used["actor"], used["address"], used["browser"].partition(" python")[0]) == (actor, HOST, "till 7")
    assert (await bus.nc.jetstream().stream_info(COMMANDS)).state.last_seq == before + 1


async def guessed(bus: Bus, count: int, at_once: int, patience_s: float, which: str) -> Counter[str]:
    """Show wrong keys from another process; gives what became of the connections."""
    arguments = (HOST, bus.server.port, count, at_once, patience_s, which)
    command = (sys.executable, "-m", guesser.__name__, *map(str, arguments))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return Counter(json.loads(out))


MANY, ONE = 8_000, 2_000
"""Wrong keys from addresses that have each of them answered, and from one address."""


@pytest.mark.long
async def test_ten_thousand_wrong_keys_let_none_in_and_delay_no_right_one(
    bus: Bus, answered: Callout, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = text()
    await key(bus.desk, good, permissions=EVERYTHING)
    await (await bus.by_key(good)).close()
    process, checks, took = psutil.Process(), Counter[str](), list[float]()

    def counted(name: str, of: Any) -> None:
        known = getattr(of, name)

        def count(*arguments: Any) -> Any:
            checks[name] += 1
            return known(*arguments)

        monkeypatch.setattr(of, name, count)

    async def come_in(stop: asyncio.Event) -> None:
        while not stop.is_set():
            since = time.monotonic()
            nc = await bus.by_key(good, connect_timeout=WITHIN_S)
            took.append(time.monotonic() - since)
            await nc.close()
            await asyncio.sleep(0.2)

    counted("_judge", answered)
    counted("again", answered._registry)
    gc.collect()
    before, stop = process.memory_info().rss, asyncio.Event()
    with capture_logs() as logged:
        coming = asyncio.create_task(come_in(stop))
        ends = await guessed(bus, MANY, 40, 10.0, "many")
        ends += await guessed(bus, ONE, 100, 0.5, "one")
        stop.set()
        await coming
    since = time.monotonic()
    await (await bus.by_key(good, connect_timeout=WITHIN_S)).close()
    took.append(time.monotonic() - since)
    gc.collect()
    grown = (process.memory_info().rss - before) / 2**20
    assert ends.total() == MANY + ONE
    assert ends["in"] == 0
    assert ends["refused"] >= MANY
    assert len(took) > 5
    assert max(took) < WITHIN_S
    assert checks["_judge"] <= 2 * (MANY + MOST_WRONG) + ONE + len(took)
    assert checks["again"] <= MANY + 2 * MOST_WRONG
    assert len(logged) < 20
    assert grown < 48
    reported = (await bus.nc.jetstream().stream_info(COMMANDS)).state.last_seq
    await answered._reports.flush()
    assert (await bus.nc.jetstream().stream_info(COMMANDS)).state.last_seq - reported <= doors.MOST + 1


def test_guesses_are_counted_by_address_and_minute() -> None:
    now = 0.0
    guesses = Guesses(lambda: now)
    assert [guesses.count("10.0.0.1") for _ in range(3)] == [1, 2, 3]
    assert guesses.count("10.0.0.2") == 1
    now = 61.0
    assert guesses.count("10.0.0.1") == 1


def test_addresses_are_counted_in_bounded_memory() -> None:
    guesses = Guesses(lambda: 0.0)
    for number in range(callout.MOST_ADDRESSES + 100):
        guesses.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert guesses.count("203.0.113.9") > 100
    assert guesses.count("10.0.0.1") == 2


async def test_a_key_is_used_while_it_is_connected(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, unused = text(), text()
    actor, other = [(await key(bus.desk, each, permissions=EVERYTHING))[2:] for each in (shown, unused)]
    monkeypatch.setattr(callout, "MINUTE_S", 0.2)
    async with bus.answering(), bus.connected("worker") as worker:
        uses, shared = bus.uses, JetStreamKeyUses(worker)
        nc = await bus.by_key(shown)
        await uses.write()
        first = await shared.last("acme", [actor, other])
        assert set(first) == {actor}
        await asyncio.sleep(0.5)
        await uses.write()
        assert (await shared.last("acme", [actor]))[actor] > first[actor]
        await nc.close()


async def test_a_server_that_asks_otherwise_is_started_again(tmp_path: Path) -> None:
    """As one of an earlier version, which a reload cannot change."""
    async with EmbeddedNats(tmp_path) as server:
        before = server.daemon.process()
        file = server.home / "accounts.conf"
        configured = file.read_text()
        file.write_text(configured.replace('"auth_users"', '"earlier_users"'))
        again = EmbeddedNats(server.home)
        await again.start()
        assert again.daemon.process() != before
        assert file.read_text() == configured
        await again.stop()


def test_the_listed_users_do_not_depend_on_tenants() -> None:
    """Since the server takes no reload that changes them."""
    asked = accounts.Callout("A", "X")

    def listed(*tenants: str) -> Any:
        return accounts.configuration(str, dict.fromkeys(tenants, ()), callout=asked)["authorization"]

    assert listed() == listed("acme", "other")
    assert {*listed()["auth_callout"]["auth_users"]} == {
        *(user.name for user in accounts.INSIDERS),
        *(user for guest in accounts.GUESTS for user in guest.users),
        "sys",
        "callout",
    }
