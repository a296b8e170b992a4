"""A hard quota of 1,000 calls, twenty worker processes on real servers, and kill -9 in the middle of their calls.

The number of kills is a setting: `KILLS=500 pytest -m long tests/journeys/test_quota_kills.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nats.aio.client import Client

from adapters.jetstream import nats_py
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.streams import set_up as set_up_streams
from adapters.postgres.projector import Projector
from adapters.postgres.quotas import PostgresQuotas
from adapters.postgres.tables import set_up, wait_for
from adapters.privacy.vault import AesVault
from domain.log import EVENTS, Position
from domain.models.model_call import ModelCall
from domain.models.quota_window import QuotaWindow, used
from handlers.models.settle import Settle
from handlers.ports.log import Unavailable
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from tests.conftest import fresh_database
from tests.handlers.desk import Desk, files_of
from tests.quota_workers import AT_ONCE

KILLS = int(os.environ.get("KILLS", "40"))
PACE_S = 0.25
"""Mean time between two kills."""

WORKERS = 20
LIMIT = 1000
A_MINUTE = 700
IN_ANY_MINUTE = 600
TENANT = "acme"

pytestmark = [pytest.mark.long, pytest.mark.timeout(400 + 3 * KILLS)]


@asynccontextmanager
async def workers(url: str, seconds: float) -> AsyncIterator[set[int]]:
    """The process ids of workers, those that died among them."""
    arguments = ("-m", "tests.quota_workers", url, TENANT, str(WORKERS), str(seconds))
    program = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    pids = set[int]()

    async def read() -> None:
        assert program.stdout
        async for line in program.stdout:
            pids.add(int(line))

    reading = asyncio.create_task(read())
    try:
        yield pids
    finally:
        program.send_signal(signal.SIGTERM)
        await program.wait()
        await reading


async def test_a_hard_quota_holds_whatever_is_killed(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as nats, fresh_database(postgres) as url:
        nc = await nats_py.connect(nats.url)
        await set_up_streams(nc.jetstream())
        await set_up(url)
        try:
            await _hold(nc, nats.url, url)
        finally:
            await nc.close()


async def _hold(nc: Client, nats_url: str, url: str) -> None:
    desk = Desk(nc, TENANT)
    await desk.done("quota.set", name="all", unit="calls", period="month", limit=LIMIT)
    await desk.done("quota.set", name="rate", unit="calls", period="minute", limit=A_MINUTE)
    await desk.done("quota.set", name="rolls", unit="calls", period="minute", rolling=1, limit=IN_ANY_MINUTE)
    await desk.done("quota.set", name="tokens", unit="tokens", period="month", limit=10**7, scope="model")
    log = JetStreamLog(nc, JetStreamKeys(nc, AesVault(bytes(32))), JetStreamBlobs(nc))
    projector = asyncio.create_task(Projector(url, log, files_of(nc)).run())
    settle = Settle(desk.repository, PostgresQuotas(url, log.last, grace_s=1.0))

    async def keep_settling() -> None:
        while True:
            with suppress(Unavailable):
                await settle()
            await asyncio.sleep(0.5)

    settling = asyncio.create_task(keep_settling())
    # So that the calls last as long as the kills.
    seconds = max(0.1, KILLS * PACE_S * WORKERS * AT_ONCE / LIMIT)
    async with workers(nats_url, seconds) as pids:
        async with asyncio.timeout(60):
            while len(pids) < WORKERS:
                await asyncio.sleep(0.1)
        killed = set[int]()
        for _ in range(KILLS):
            await asyncio.sleep(random.uniform(0.0, 2 * PACE_S))
            if alive := sorted(pids - killed):
                killed.add(pid := random.choice(alive))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert len(killed) > KILLS // 2
        async with asyncio.timeout(240 + KILLS):
            while await _used(url, log) < LIMIT:
                await asyncio.sleep(1)
        await asyncio.sleep(2)  # they go on asking
    async with asyncio.timeout(60):
        while await _leased(url, log):
            await asyncio.sleep(0.5)
    settling.cancel()
    await _check(log, url)
    projector.cancel()
    await asyncio.gather(projector, settling, return_exceptions=True)


async def _rows(url: str, log: JetStreamLog, query: str) -> list[tuple[Any, ...]]:
    await wait_for(url, Position(EVENTS, await log.last(EVENTS)))
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def _used(url: str, log: JetStreamLog) -> int:
    query = "SELECT coalesce(sum(used), 0)::int FROM headrace.quota_windows WHERE quota_id = 'tenant/all'"
    [[used]] = await _rows(url, log, query)
    return used


async def _leased(url: str, log: JetStreamLog) -> int:
    [[leased]] = await _rows(url, log, "SELECT count(*)::int FROM headrace.quota_windows WHERE granted > 0")
    return leased


async def _check(log: JetStreamLog, url: str) -> None:
    """Fold the log: at every moment each limit holds, and at the end what is used is the sum of the calls."""
    limits = {"tenant/all": LIMIT, "tenant/rate": A_MINUTE, "tenant/rolls": IN_ANY_MINUTE, "tenant/tokens": 10**7}
    windows: dict[str, QuotaWindow] = {}
    calls: dict[str, ModelCall] = {}
    codes = Counter[str]()
    async for batch in log.read(EVENTS, 0, follow=False):
        for message in batch:
            for event in message.events:
                if isinstance(event, QuotaWindow.Event):
                    window = event.mutate(windows.get(message.subject.id))
                    assert isinstance(window, QuotaWindow)
                    windows[message.subject.id] = window
                    leased = sum(lease["amount"] for lease in window.leases.values())
                    assert used(window.parts, event.timestamp) + leased <= limits[window.quota]
                elif isinstance(event, ModelCall.Event):
                    call = event.mutate(calls.get(message.subject.id))
                    assert isinstance(call, ModelCall)
                    calls[message.subject.id] = call
                    if isinstance(event, ModelCall.Failed):
                        codes[event.code] += 1
    spent: defaultdict[str, int] = defaultdict(int)
    [rolls] = [id for id, window in windows.items() if window.rolling]
    rolled = sorted(
        (call.created_on, grant["amount"]) for call in calls.values() for grant in call.paid if grant["window"] == rolls
    )
    for first, (begins, _) in enumerate(rolled):
        minute = (amount for at, amount in rolled[first:] if at < begins + timedelta(minutes=1))
        assert sum(minute) <= IN_ANY_MINUTE
    for call in calls.values():
        assert call.status != "requested"
        assert {grant["window"] for grant in call.paid} <= windows.keys()
        for grant in call.paid:
            spent[grant["window"]] += grant["amount"]
    assert {id: window.used for id, window in windows.items() if window.used} == {id: n for id, n in spent.items() if n}
    assert all(not window.leases for window in windows.values())
    whole = [window for window in windows.values() if window.quota == "tenant/all"]
    assert sum(window.used for window in whole) == LIMIT
    assert len(calls) - codes["quota_exceeded"] == LIMIT
    assert codes["lost"] > 0
    tables = await _rows(url, log, "SELECT id, used FROM headrace.quota_windows ORDER BY id")
    assert tables == sorted((id, window.used) for id, window in windows.items())
