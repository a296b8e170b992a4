"""Accounts, tenants and keys by the command line alone: from the first owner to an export, and to an erasure."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from adapters.jetstream.client import Client
from adapters.jetstream.key_uses import JetStreamKeyUses
from adapters.jetstream.message import Message
from adapters.postgres.tables import table_digests
from domain.access.tenant import HOUSE
from domain.log import EVENTS
from handlers.work.progress import no_progress
from ops.servers.embedded import EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.rebuild import rebuild
from ops.upkeep.verify import verify
from tests.chat_servers import Exchange, faulty_server
from tests.journeys import test_erase
from tests.journeys.stack import Row, Stack
from tests.journeys.test_erase import PlainNats, erased, found, in_tables
from tests.journeys.test_models import app_on
from tests.journeys.test_restore import caught_up

ADA = "adelheid.brindlemost@example.org"
USER = "zacharias quxbarrow"
OF_OTHERS = "zwickelbart"
"""A word of another tenant."""


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    """Everything that the servers and the workers keep."""
    folder = Path(mkdtemp(prefix="headrace-accounts-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def stack(home: Path) -> AsyncIterator[Stack]:
    async with PlainNats(home) as server, EmbeddedPostgres(home) as postgres:
        settings = Settings.load(home=home, nats_url=server.url, postgres_url=postgres.url, grace_s=3)
        async with Stack.running(settings, ["all"]) as stack:
            yield stack


async def at_length(exchange: Exchange) -> None:
    """Repeats the question until the answer is a blob of its own."""
    await exchange.finish(f"You ask: {exchange.body['messages'][-1]['content']} " * 1000)


async def done(stack: Stack, *arguments: str) -> list[Row]:
    """The lines of a command of `headrace` that succeeds."""
    code, lines = await stack.command(*arguments)
    assert code == 0, lines
    return lines


async def refused(stack: Stack, *arguments: str) -> str:
    """The code of the rejection, or of the error, of a command of `headrace`."""
    code, lines = await stack.command(*arguments)
    assert code == 1, lines
    return str(lines[-1].get("code") or lines[-1]["error"]["message"])


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


async def bootstrapped(stack: Stack, aside: Path) -> None:
    """The first account owns the house and the tenant `default`, and invites another one."""
    password = written(aside, "password", "eleven wide rivers\n")
    made = await done(
        *(stack, "account", "create", ADA, "--name", "Adelheid Fimblethorpe", "--password-file", password),
        *("--owner-of", HOUSE, "--owner-of", "default"),
    )
    assert [line["status"] for line in made] == 3 * ["accepted"]
    await done(stack, "account", "create", "bo@example.org", "--name", "Bo", "--no-password")
    [invited] = await done(stack, "tenant", "invite", "default", "--role", "editor")
    secret = written(aside, "secret", invited["secret"])
    accept = ("tenant", "accept", "default", "bo@example.org", "--secret-file", secret)
    await done(stack, *accept)
    assert await refused(stack, *accept) == "invitation_ended"
    await done(stack, "tenant", "create", "acme", "--owner", "bo@example.org", "--name", "Acme")


async def test_from_the_first_owner_to_a_key_that_is_used_and_revoked(stack: Stack, tmp_path: Path) -> None:
    await bootstrapped(stack, tmp_path)
    members = await done(stack, "tenant", "members", "default")
    assert [(each["email"], each["role"], each["status"]) for each in members] == [
        (ADA, "owner", "active"),
        ("bo@example.org", "editor", "active"),
    ]
    tenants = await done(stack, "tenant", "list")
    assert [(each["id"], each["status"], each["members"]) for each in tenants] == [
        (HOUSE, "normal", 1),
        ("acme", "normal", 1),
        ("default", "normal", 2),
    ]
    [shown] = await done(stack, "account", "show", "bo@example.org")
    assert (shown["name"], shown["roles"], shown["has_password"]) == (
        "Bo",
        {"acme": "owner", "default": "editor"},
        False,
    )
    [invitation] = await done(stack, "tenant", "invitations", "default", "--all")
    assert (invitation["status"], invitation["account_id"]) == ("accepted", shown["id"])
    assert await done(stack, "tenant", "invitations", "default") == []

    await done(stack, "tenant", "role", "default", "bo@example.org", "--role", "viewer")
    bo = Client(stack.client.connection, "default", f"a_{shown['id']}")
    assert (await bo.send("app.create", {"name": "No"}, wait=30))["code"] == "forbidden"
    await done(stack, "tenant", "remove", "default", "bo@example.org")

    [made] = await done(stack, "key", "create", "site", "--permission", "app.manage", "--days", "9")
    id, key = made["ids"]["api_key"], made["key"]
    program = Client(stack.client.connection, "default", f"k_{id}")
    assert (await program.send("app.create", {"name": "By a program"}, wait=30))["status"] == "accepted"
    uses = JetStreamKeyUses(stack.client.connection)
    uses.used("default", id)
    await uses.write()
    [listed] = await done(stack, "key", "list")
    assert (listed["name"], listed["hint"], listed["type"]) == ("site", key[-4:], "tenant")
    assert listed["last_used_at"] is not None
    [other] = await done(stack, "key", "replace", id, "--overlap-hours", "1")
    assert other["key"] != key
    [row] = await stack.until("SELECT * FROM headrace.api_tokens WHERE former_hint IS NOT NULL")
    assert (row["tenant_id"], row["hint"], row["former_hint"]) == ("default", other["key"][-4:], key[-4:])
    for secret in (key, other["key"], sha256(key.encode()).hexdigest()):
        assert secret not in str(await stack.sql("SELECT * FROM headrace.api_tokens"))
    await done(stack, "key", "revoke", id)
    assert (await program.send("app.create", {"name": "Late"}, wait=30))["code"] == "forbidden"
    assert await done(stack, "key", "list") == []

    await done(stack, "tenant", "archive", "default", "--yes")
    assert (await stack.refused("app.create", name="Late"))["code"] == "archived"
    await done(stack, "tenant", "unarchive", "default")
    await stack.send("app.create", name="Again")
    await caught_up(stack)
    digests = await table_digests(stack.postgres_url)
    await rebuild(stack.settings)
    assert await table_digests(stack.postgres_url) == digests


@pytest.mark.long
async def test_an_export_holds_all_of_a_tenant_and_nothing_of_others(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_erase, "MARKS", [USER, "Wumpelfisch", OF_OTHERS])
    await bootstrapped(stack, tmp_path)
    async with faulty_server(at_length) as model:
        app = await app_on(stack, model.url, "parrot")
        handbook = Path(written(tmp_path, "handbook.md", "The gate is four metres high. " * 2000))
        dataset = await stack.make("dataset.create", name="Manuals")
        await stack.ended(await stack.upload(dataset, handbook))
        assert (await stack.ask(app, "How high?", user="ada"))[-1]["type"] == "answered"
        assert (await stack.ask(app, "A Wumpelfisch?", user=USER))[-1]["type"] == "answered"
    others = Stack(stack.settings, Client(stack.client.connection, "acme"), stack._log)
    others.tenant = "acme"
    theirs = await others.make("dataset.create", name=OF_OTHERS)
    await others.ended(await others.upload(theirs, Path(written(tmp_path, f"{OF_OTHERS}.md", f"{OF_OTHERS} " * 99))))

    first, second, busy = (tmp_path / name for name in ("first", "second", "busy"))
    [manifest] = await done(stack, "tenant", "export", "default", str(first))
    holds = found(first)
    assert set(holds) == {USER, "Wumpelfisch"}
    assert {Path(name).parts[0] for name in holds["Wumpelfisch"]} >= {"events.jsonl", "rows"}
    assert "stored.jsonl" not in holds["Wumpelfisch"], "what is sealed stays sealed where it is as it is stored"
    await as_in_the_log(stack, first, manifest)
    assert digest_of(first / "blobs" / digest_of(handbook)[:2] / digest_of(handbook)) == digest_of(handbook)
    tables = {path.stem: path.read_text().splitlines() for path in (first / "rows").iterdir()}
    assert {name: len(lines) for name, lines in tables.items()} == manifest["rows"]
    assert {json.loads(line)["tenant_id"] for lines in tables.values() for line in lines} == {"default"}
    assert len(tables["tenant_account_joins"]) == 2
    for path in (first, *first.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0
    summed(first)

    assert "is not empty" in await refused(stack, "tenant", "export", "default", str(first))
    assert "nothing of the tenant none" in await refused(stack, "tenant", "export", "none", str(second))
    busy.mkdir()
    (busy / "unfinished").touch()
    (busy / "events.jsonl").write_text("half of a line")
    await stack.send("end_user.erase", user=USER)
    await erased(stack)
    await done(stack, "tenant", "export", "default", str(busy))
    assert found(busy) == {}
    assert (await done(stack, "tenant", "export", "acme", str(second)))[0]["unreadable"] == {}
    assert set(found(second)) == {OF_OTHERS}
    for folder in (busy, second):
        assert not (folder / "unfinished").exists()
        summed(folder)


async def as_in_the_log(stack: Stack, folder: Path, manifest: Row) -> None:
    """The export has each message of the tenant, as it is stored and readable."""
    js = stack.client.connection.jetstream()
    state = (await js.stream_info(EVENTS, subjects_filter="evt.default.>")).state
    stored = [Message.of(line) for line in (folder / "stored.jsonl").read_bytes().splitlines()]
    own = [message for message in stored if message.subject != f"evt.{HOUSE}.tenant.default"]
    assert len(own) == sum((state.subjects or {}).values())
    assert len(stored) == manifest["commits"]
    for message in own[:: max(1, len(own) // 20)]:
        found = await js.get_msg(EVENTS, message.sequence)
        assert (found.subject, found.data) == (message.subject, message.body)
    sealed = {event["sealed"]["blob"] for message in own for event in json.loads(message.body) if large(event)}
    assert sealed, "an answer is a blob"
    assert not sealed & {path.name for path in (folder / "blobs").rglob("*")}, "it is opened in its event"
    readable: list[dict[str, Any]] = [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]
    assert sorted(each["sequence"] for each in readable) == sorted(message.sequence for message in stored)
    asked = [event["state"] for each in readable for event in each["events"] if event["type"] == "message.asked.v4"]
    assert {state["query"] for state in asked} == {"How high?", "A Wumpelfisch?"}
    answers = [
        event["state"] for each in readable for event in each["events"] if event["type"] == "message.answered.v3"
    ]
    assert all(state["answer"].count("You ask: ") == 1000 for state in answers)


def large(event: dict[str, Any]) -> bool:
    """True if the words of a person in a stored event are a blob."""
    return isinstance(event.get("sealed"), dict)


def digest_of(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def summed(folder: Path) -> None:
    """The sums are those of all files."""
    lines = {line[66:]: line[:64] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(lines) == files - {"SHA256SUMS"}
    assert all(digest_of(folder / name) == sum for name, sum in lines.items())


@pytest.mark.long
async def test_nothing_readable_is_left_of_an_erased_account(
    stack: Stack, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_erase, "MARKS", ["adelheid", "brindlemost", "Fimblethorpe"])
    await bootstrapped(stack, tmp_path)
    await caught_up(stack)
    await rebuild(stack.settings)
    assert set(found(home)) != set(), "there is nothing to be erased"
    assert await in_tables(stack) != []
    [ada] = await done(stack, "account", "show", ADA)
    assert await refused(stack, "account", "erase", ADA, "--yes") == "owner"
    for tenant in (HOUSE, "default"):
        await done(stack, "tenant", "transfer", tenant, "bo@example.org")
    await done(stack, "account", "erase", ADA, "--yes")
    js = stack.client.connection.jetstream()
    await stack.until(
        "SELECT FROM headrace.accounts WHERE id = %(id)s AND status = 'erased' AND log_position >= %(at)s",
        id=ada["id"],
        at=await appended(stack, f"evt.{HOUSE}.end_user.{ada['id']}"),
    )
    await erased(stack)
    assert (await js.consumer_info(EVENTS, "erase_account")).num_pending == 0

    assert await in_tables(stack) == []
    assert [each["email"] for each in await done(stack, "account", "list")] == ["bo@example.org"]
    assert "There is no account" in await refused(stack, "account", "disable", ADA)
    [left] = [each for each in await done(stack, "account", "list", "--all") if each["status"] == "erased"]
    assert (left["id"], left["name"], left["email"], left["has_password"]) == (ada["id"], "", "", False)
    [manifest] = await done(stack, "tenant", "export", "default", str(home / "export"))
    assert manifest["unreadable"] == {}
    assert found(home) == {}

    await caught_up(stack)
    digests = await table_digests(stack.postgres_url)
    await rebuild(stack.settings)
    assert await table_digests(stack.postgres_url) == digests
    checks = [check async for check in verify(stack.settings, timedelta(minutes=5), no_progress)]
    assert [check.first for check in checks if check.faults] == []
    [again] = await done(stack, "account", "create", ADA, "--name", "Another", "--no-password")
    assert again["ids"]["account"] != ada["id"]


async def appended(stack: Stack, subject: str) -> int:
    """The sequence of the last message of a subject, as soon as there is one."""
    js = stack.client.connection.jetstream()
    async with asyncio.timeout(30):
        while True:
            try:
                return int((await js.get_last_msg(EVENTS, subject)).seq or 0)
            except NotFoundError:
                await asyncio.sleep(0.05)
