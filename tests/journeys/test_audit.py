"""The audit on real servers: what was accepted, rejected and refused, who entered, and what an erasure leaves of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adapters.jetstream.client import Client
from adapters.jetstream.sessions import Sessions
from domain.access.door import month
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import PATIENCE_S, Stack

AGENT = "Journey/7 (of the audit)"


@pytest.fixture(scope="module")
async def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("audit")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings, ("commands", "project")) as stack:
            yield stack


async def audit(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    """The lines that `headrace audit` prints."""
    code, lines = await stack.command("audit", *arguments)
    assert code == 0
    return lines


async def until(stack: Stack, count: int, *arguments: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await audit(stack, *arguments)) < count:
            await asyncio.sleep(0.2)
    return found


@pytest.mark.long
async def test_what_was_accepted_rejected_and_refused_is_read_and_addresses_are_erased(stack: Stack) -> None:
    await stack.start("view", HEADRACE_AUDIT_READS="true")
    url = (stack.settings.home / "run" / "viewer.url").read_text("utf-8")
    services = Client(stack.client.connection, stack.tenant, "s_crm")
    app = str((await services.send("app.create", {"name": "Guide"}, wait=30))["command"])
    missing = new_id()
    assert (await services.send("app.delete", {"app": missing}, wait=30))["code"] == "not_found"
    assert (await services.send("limits.impose", {"quantity": "tokens"}, wait=30))["status"] == "rejected"

    async with httpx2.AsyncClient(base_url=url, timeout=30, headers={"User-Agent": AGENT}) as browser:
        origin = {"Origin": url}
        for _ in range(3):
            answer = await browser.post("/login", data={"token": "a guess"}, headers=origin)
            assert answer.status_code in (403, 429)
        assert (await browser.get(await Sessions(stack.client.connection).link(url))).status_code == 303
        quota = {"name": "monthly", "scope": "tenant", "unit": "money", "period": "month", "limit": "100"}
        assert (await browser.post("/costs/quotas", data=quota, headers=origin)).status_code == 303
        page = await browser.get("/traces", params={"q": "tide"}, headers={"Accept": "text/html"})
        assert page.status_code == 200
    await stack.stop("view")  # which reports the refusals that it has counted

    rows = {row["action"]: row for row in await until(stack, 5)}
    created, deleted, imposed = rows["app.create"], rows["app.delete"], rows["limits.impose"]
    assert (created["actor"], created["outcome"], created["door"]) == ("s_crm", "accepted", "bus")
    assert (created["target_noun"], created["target_id"], created["address"]) == ("app", app, None)
    assert (deleted["outcome"], deleted["code"], deleted["target_id"]) == ("rejected", "not_found", missing)
    assert imposed["outcome"] == "rejected"
    for name, target in (("quota.set", "tenant"), ("trace.search", None)):
        row = rows[name]
        assert (row["actor"], row["outcome"], row["door"]) == ("anon", "accepted", "viewer")
        assert (row["address"], row["browser"]) == ("127.0.0.1", AGENT)
        assert target in (None, row["target_id"])
    assert rows["trace.search"]["detail"] == "/traces?q=tide"
    house = {row["action"]: row for row in await until(stack, 3, "--house")}
    assert (house["door.signed_in"]["code"], house["door.signed_in"]["address"]) == ("link", "127.0.0.1")
    refused = house["door.refused"]
    assert (refused["code"], refused["detail"], refused["address"]) == ("token", "3", "127.0.0.1")
    assert (house["door.used"]["actor"], house["door.used"]["browser"]) == ("anon", AGENT)

    this = month(datetime.now(UTC))
    for client in (Client(stack.client.connection, HOUSE), stack.client):
        assert (await client.send("end_user.erase", {"user": this}, wait=30))["status"] == "accepted"
    async with asyncio.timeout(PATIENCE_S):
        while any(
            [row["address"] or row["browser"] for row in await audit(stack, "--house")]
            + [row["address"] for row in await audit(stack)]
            + [row["detail"] for row in await audit(stack, "--action", "trace")]
        ):
            await asyncio.sleep(0.2)
    assert {row["action"] for row in await audit(stack, "--house")} == {*house, "end_user.erase"}
    code, _ = await stack.command("rebuild", "--check", "commands", "door_events")
    assert code == 0
