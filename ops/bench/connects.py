"""Connections to the bus with an API key, which a worker judges, and the register of many keys."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import time
from datetime import UTC, datetime

import nats.errors
import psutil
from rich.progress import Progress

from adapters.jetstream import accounts, nats_py
from domain.access.api_key import ApiKey
from domain.access.register import Register
from domain.aggregate import new_id
from domain.log import EVENTS, Commit, Metadata, Position, Subject
from ops.bench.measure import Aim, Measure, in_turns
from ops.bench.stack import Sizes, Stack
from ops.servers.embedded import HOST, EmbeddedNats

KEYS = 100_000
AT_ONCE = 16
WITHIN_S = 30.0


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    """Connections in a second by key, with those of a user that the server lists as the limit."""
    task = bars.add_task("connects", total=2 * sizes.rounds)
    server = EmbeddedNats(stack.settings.home)
    listed = server.last_url_of(accounts.login(stack.settings.tenant))
    key = f"app-{hashlib.sha256(new_id().encode()).hexdigest()[:24]}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    fields = {"name": "Bench", "digest": digest, "hint": key[-4:], "permissions": ["chat", "read"]}
    await stack.make("api_key.create", fields)
    by_key = f"nats://{key}@{HOST}:{server.port}"
    async with asyncio.timeout(WITHIN_S):
        while not await _connects(by_key):
            await asyncio.sleep(0.05)

    async def rate(url: str) -> float:
        began = time.perf_counter()
        left = iter(range(sizes.connects))

        async def repeat() -> None:
            for _ in left:
                await (await nats_py.connect(url)).close()

        await asyncio.gather(*(repeat() for _ in range(AT_ONCE)))
        bars.advance(task)
        return sizes.connects / (time.perf_counter() - began)

    ours, limit = await in_turns(sizes.rounds, lambda _: rate(by_key), lambda _: rate(listed))
    checks, megabytes = _register()
    return [
        Measure("connects.key", ours, "connects/s", limit, Aim(ratio=0.2)),
        Measure("connects.checks", checks, "keys/s", aim=Aim(at_least=100_000)),
        Measure("connects.memory", megabytes, "MB", aim=Aim(at_most=80)),
    ]


async def _connects(url: str) -> bool:
    try:
        await (await nats_py.connect(url, allow_reconnect=False, error_cb=_ignore)).close()
    except (nats.errors.Error, OSError, TimeoutError):
        return False
    return True


def _register() -> tuple[float, float]:
    """Keys checked in a second, from their text to their permissions, and megabytes of a register of many keys."""
    process, register = psutil.Process(), Register()
    now = datetime.now(UTC)
    gc.collect()
    before = process.memory_info().rss
    for number in range(KEYS):
        tenant, id = f"tenant-{number % 1000}", new_id()
        created = ApiKey.begin(
            ApiKey.Created,
            id,
            now,
            name="Bench",
            digest=hashlib.sha256(str(number).encode()).hexdigest(),
            hint="abcd",
            permissions=["chat", "read"],
            apps=[],
            datasets=[],
            expires_at=None,
            account=None,
        )
        subject, metadata = Subject(tenant, ApiKey.TOPIC, id), Metadata(id, tenant, id)
        register.take(Commit(subject, created.pending(), metadata, Position(EVENTS, number + 1), now))
    gc.collect()
    megabytes = (process.memory_info().rss - before) / 1e6
    texts = [str(number).encode() for number in range(KEYS)]
    began = time.perf_counter()
    for text in texts:
        assert register.key(hashlib.sha256(text).digest(), now) is not None
    return KEYS / (time.perf_counter() - began), megabytes


async def _ignore(_: Exception) -> None:
    """Ignore refusals until the key is known."""
