"""Limits of tenants on real servers: two workers take commands, and one counts what waits."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.jetstream.client import Client
from domain.aggregate import new_id
from handlers.models.grants import HELD_S
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import Stack


@pytest.fixture(scope="module")
async def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Without a worker that answers."""
    home: Path = tmp_path_factory.mktemp("limits")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings, ("commands", "commands.second", "project")) as stack:
            yield stack


class Tenant:
    """A tenant of its own, with an app of the built-in model."""

    def __init__(self, stack: Stack) -> None:
        self.name = f"t-{new_id()}"
        self.client = Client(stack.client.connection, self.name)

    async def send(self, name: str, /, **payload: Any) -> dict[str, Any]:
        return await self.client.send(name, payload, wait=30)

    async def make(self, name: str, /, **payload: Any) -> str:
        outcome = await self.send(name, **payload)
        assert outcome["status"] == "accepted", outcome
        return str(outcome["command"])

    async def app(self) -> str:
        app = await self.make("app.create", name="Guide")
        await self.make("app.configure", app=app)
        return app

    async def messages(self, app: str, count: int) -> Counter[str | None]:
        """The codes of messages that are sent at once."""
        sent = await asyncio.gather(*(self.send("message.send", app=app, query="?") for _ in range(count)))
        return Counter(outcome["code"] for outcome in sent)


async def test_a_tenant_over_its_rate_is_refused_until_the_next_minute_and_no_other_is(stack: Stack) -> None:
    busy, other = Tenant(stack), Tenant(stack)
    await busy.make("limits.set", quantity="messages", period="minute", scope="user", most=3)
    app, theirs = await busy.app(), await other.app()
    if (left := 60 - time.time() % 60) < 10:
        await asyncio.sleep(left)
    assert await busy.messages(app, 8) == {None: 3, "over_quota": 5}
    assert await other.messages(theirs, 8) == {None: 8}
    refused = await busy.send("message.send", app=app, query="?")
    details = refused["details"]
    assert (refused["field"], details["limit"], details["most"]) == ("user", "messages/minute/user", 3)
    assert 0 < details["retry_after_s"] <= 60
    await asyncio.sleep(details["retry_after_s"])
    assert await busy.messages(app, 4) == {None: 3, "over_quota": 1}


async def test_what_waits_is_limited_until_it_has_ended_and_tokens_are_until_they_are_spent(stack: Stack) -> None:
    slow, spender = Tenant(stack), Tenant(stack)
    await slow.make("limits.impose", quantity="messages", period="waiting", most=2)
    await spender.make("limits.set", quantity="tokens", period="day", scope="app", most=1)
    app, theirs = await slow.app(), await spender.app()
    counts = await stack.client.connection.subscribe(f"waiting.{slow.name}")
    assert await slow.messages(app, 2) == {None: 2}
    while json.loads((await counts.next_msg(30)).data) != {"messages": 2}:
        pass
    await counts.unsubscribe()
    refused = await slow.send("message.send", app=app, query="?")
    assert (refused["code"], refused["details"]["limit"]) == ("over_quota", "messages/waiting/tenant")

    message = await spender.make("message.send", app=theirs, query="?")
    await stack.start("answer")
    statement = "SELECT * FROM headrace.messages WHERE id = %(id)s AND status NOT IN ('asked', 'answering')"
    [row] = await stack.until(statement, id=message)
    assert row["status"] == "answered", row
    refused = await spender.send("message.send", app=theirs, query="?")
    assert (refused["code"], refused["details"]["limit"]) == ("over_quota", "tokens/day/app")
    assert refused["details"]["count"] >= 1

    async with asyncio.timeout(60):
        while (await slow.send("message.send", app=app, query="?"))["code"] == "over_quota":
            await asyncio.sleep(0.5)


async def test_a_hard_quota_ends_the_calls_of_a_model_and_a_raised_one_allows_them_again(stack: Stack) -> None:
    """The worker that answers is there since the test before."""
    tenant = Tenant(stack)
    app = await tenant.app()
    known = {"name": "trial", "scope": "app", "unit": "calls", "period": "month"}
    await tenant.make("quota.impose", **known, limit=2)
    statement = "SELECT * FROM headrace.messages WHERE id = %(id)s AND status NOT IN ('asked', 'answering')"
    for _ in range(2):
        message = await tenant.make("message.send", app=app, query="?")
        [row] = await stack.until(statement, id=message)
        assert row["status"] == "answered", row
    window = "SELECT * FROM headrace.quota_windows WHERE tenant_id = %(tenant)s AND granted = 0 AND used = 2"
    [row] = await stack.until(window, lambda rows: len(rows) == 1, tenant=tenant.name)
    assert (row["most"], row["subject"]) == (2, app)
    await asyncio.sleep(1)  # for which a worker remembers the window
    refused = await tenant.send("message.send", app=app, query="?")
    assert (refused["code"], refused["field"]) == ("quota_exceeded", "app")
    assert (refused["details"]["quota"], refused["details"]["limit"]) == ("operator/trial", "2 calls")
    paid = "SELECT grants FROM headrace.model_calls WHERE tenant_id = %(tenant)s"
    calls = await stack.until(paid, lambda rows: len(rows) == 2, tenant=tenant.name)
    assert [grant["amount"] for call in calls for grant in call["grants"]] == [1, 1]
    await tenant.make("quota.impose", **known, limit=3)
    await asyncio.sleep(2 * HELD_S)
    [row] = await stack.until(statement, id=await tenant.make("message.send", app=app, query="?"))
    assert row["status"] == "answered", row


async def test_the_command_line_sets_lists_and_removes_quotas(stack: Stack) -> None:
    tenant = Tenant(stack)

    async def quota(*arguments: str) -> list[dict[str, Any]]:
        code, lines = await stack.command("quota", *arguments, "--tenant", tenant.name)
        assert code == 0, lines
        return lines

    await quota("set", "trial", "1000", "--unit", "calls", "--period", "month", "--operator")
    [outcome] = await quota(
        "set", "monthly", "9.5", "--unit", "money", "--period", "month", "--scope", "user", "--soft"
    )
    assert outcome["ids"] == {"quota": "tenant"}
    query = "SELECT * FROM headrace.quotas WHERE tenant_id = %(tenant)s"
    await stack.until(query, lambda rows: len(rows) == 2, tenant=tenant.name)
    assert [(row["set_by"], row["name"], row["scope"], row["most"], row["hard"]) for row in await quota("list")] == [
        ("operator", "trial", "tenant", 1000, True),
        ("tenant", "monthly", "user", 9.5, False),
    ]
    await quota("remove", "monthly")
    code, [refused] = await stack.command("quota", "remove", "trial", "--tenant", tenant.name)
    assert (code, refused["code"]) == (1, "not_found")


async def test_the_command_line_sets_lists_and_removes_limits(stack: Stack) -> None:
    tenant = Tenant(stack)

    async def limits(*arguments: str) -> list[dict[str, Any]]:
        code, lines = await stack.command("limits", *arguments, "--tenant", tenant.name)
        assert code == 0, lines
        return lines

    async def listed() -> set[tuple[str, str, str, int]]:
        return {
            (row["set_by"], f"{row['quantity']}/{row['period']}/{row['scope']}", row["subject"], row["most"])
            for row in await limits("list")
        }

    defaults = {
        ("default", "messages/waiting/tenant", "", 10_000),
        ("default", "documents/waiting/tenant", "", 100_000),
        ("default", "replays/waiting/tenant", "", 10_000),
    }
    await limits("set", "messages/waiting=5", "--operator")
    [outcome] = await limits("set", "tokens/day/key=1000", "--subject", "k_crm")
    await stack.until(
        "SELECT * FROM headrace.limits WHERE tenant_id = %(tenant)s",
        lambda rows: len(rows) == 2,
        tenant=tenant.name,
    )
    assert outcome["ids"] == {"limits": "tenant"}
    assert await listed() == {
        *(limit for limit in defaults if not limit[1].startswith("messages")),
        ("operator", "messages/waiting/tenant", "", 5),
        ("tenant", "tokens/day/key", "k_crm", 1000),
    }
    await limits("remove", "tokens/day/key", "--subject", "k_crm")
    code, [refused] = await stack.command("limits", "remove", "tokens/day/key", "--tenant", tenant.name)
    assert (code, refused["code"]) == (1, "not_found")
