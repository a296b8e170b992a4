"""The role that keeps the tables, and recovers work that no worker has."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import orjson
import psycopg
import pytest

from ops.roles import project
from ops.servers.embedded import EmbeddedNats
from ops.settings import Settings
from ops.wiring import Wiring
from tests.adapters.test_recover import forget
from tests.handlers.desk import Desk


async def test_it_sweeps_through_outages(
    monkeypatch: pytest.MonkeyPatch, lone_nats: EmbeddedNats, database_url: str, tmp_path: Path, tenant: str
) -> None:
    """Here a table is gone, until the projector has made it again."""
    monkeypatch.setattr(project, "INTERVAL_S", 0.02)
    monkeypatch.setattr(project, "DEADLINE_S", 0.0)
    # The secret key of the desk.
    settings = Settings.load(home=tmp_path, nats_url=lone_nats.url, postgres_url=database_url, secret_key="\0" * 32)
    async with Wiring(settings, "project") as wiring:
        work = asyncio.ensure_future(await project.begin(wiring))
        desk = Desk(wiring.nc, tenant)
        dataset = await desk.done("dataset.create", name="Rules")
        document = await desk.done("document.upload", dataset=dataset, name="a.txt", text="x")
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("DROP TABLE headrace.messages")
            await forget(wiring.nc, "ingest")
        async with asyncio.timeout(10):
            while await desk.types("document", document) == ["document.uploaded.v2"]:
                await asyncio.sleep(0.02)
        expected = ["document.uploaded.v2", "document.failed.v1", "document.retried.v1"]
        assert await desk.types("document", document) == expected
        assert not work.done()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_it_erases_what_the_audit_knows_of_a_month_that_is_over(
    monkeypatch: pytest.MonkeyPatch, lone_nats: EmbeddedNats, database_url: str, tmp_path: Path, tenant: str
) -> None:
    """Through the command of an operator, so that tables, dead letters and the archive follow."""
    monkeypatch.setattr(project, "FORGETTING_S", 0.05)
    due = [(tenant, "door/2026-03", "an-account")]

    async def over(url: str, kept: timedelta) -> list[tuple[str, str, str]]:
        assert (url, kept) == (database_url, timedelta(days=90))
        return due

    monkeypatch.setattr(project, "over", over)
    settings = Settings.load(home=tmp_path, nats_url=lone_nats.url, postgres_url=database_url, secret_key="\0" * 32)
    async with Wiring(settings, "project") as wiring:
        due.append((tenant, "door/2026-03", await wiring.keys.person(tenant, "door/2026-03")))
        sent = await wiring.nc.subscribe(f"cmd.{tenant}.anon.end_user.erase")
        work = asyncio.ensure_future(await project.begin(wiring))
        first, again = [await sent.next_msg(timeout=10) for _ in range(2)]
        assert orjson.loads(first.data) == {"user": "door/2026-03"}
        assert (first.headers or {})["Headrace-Id"] == (again.headers or {})["Headrace-Id"]
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await wiring.nc.jetstream().purge_stream("COMMANDS")
