"""Embedding as a service: texts of many documents go through one model together.

A request on `embed.<model>` is a body of little-endian numbers: uint32 n, n uint32 lengths, and all token ids as int32
one after the other. Its header `Headrace-Urgent: 1` marks a question, `Headrace-Tenant` names the tenant of the texts.
Until the answer comes, a message with `Headrace-Status: working` follows every second. The answer has
`Headrace-Status`

- `ok`: the body is the float32 matrix, row by row; `Headrace-Identity`, `Headrace-Dimension`, `Headrace-Duration-Ms`;
- `busy`: the queue is full, retry later; `bad_request`, `failed`: the body is the reason, a sentence.

`embed.<model>.info` answers anything with JSON: `{"identity", "dimension", "longest"}`.
"""

from __future__ import annotations

import asyncio
import json
import time

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.embedding.engine import Engine
from adapters.embedding.lanes import WINDOW, LocalEmbedder
from adapters.embedding.wire import DIMENSION, DURATION, IDENTITY, STATUS, TENANT, URGENT, unpack
from adapters.jetstream.reply import respond
from adapters.model_files import subject
from handlers.ports.log import Unavailable

log = structlog.get_logger(__name__)


BEAT = 1.0
"""Interval between heartbeats, in seconds."""


async def serve(nc: Client, engine: Engine, *, window: float = WINDOW, queued: int | None = None) -> None:
    """Answer requests with this model until cancelled; those in progress are then answered `busy`."""
    at_work: set[asyncio.Task[None]] = set()
    info = {"identity": engine.identity, "dimension": engine.dimension, "longest": engine.longest}

    async def take(message: Msg) -> None:
        task = asyncio.create_task(_answer(message, embedder))
        at_work.add(task)
        task.add_done_callback(at_work.discard)

    async def introduce(message: Msg) -> None:
        await respond(message, json.dumps(info).encode())

    async with LocalEmbedder(engine, window=window, queued=queued) as embedder:
        here = subject(engine.name)
        subscriptions = [
            await nc.subscribe(here, queue="embed", cb=take),
            await nc.subscribe(f"{here}.info", queue="embed", cb=introduce),
        ]
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            if not nc.is_closed:
                for subscription in subscriptions:
                    await subscription.unsubscribe()
            for task in at_work:
                task.cancel()
            await asyncio.gather(*at_work, return_exceptions=True)


async def _answer(message: Msg, embedder: LocalEmbedder) -> None:
    async def reply(status: str, body: bytes = b"", **headers: str) -> None:
        await respond(message, body, {STATUS: status} | headers)

    try:
        asked = message.headers or {}
        tenant, urgent = asked.get(TENANT, ""), asked.get(URGENT) == "1"
        began = time.perf_counter()
        work = asyncio.create_task(embedder.embed(unpack(message.data), tenant=tenant, urgent=urgent))
        try:
            while not (await asyncio.wait([work], timeout=BEAT))[0]:
                await reply("working")
        finally:
            work.cancel()
        vectors = work.result()
        milliseconds = f"{(time.perf_counter() - began) * 1000:.1f}"
        headers = {IDENTITY: embedder.identity, DIMENSION: str(embedder.dimension), DURATION: milliseconds}
        await reply("ok", vectors.astype("<f4").tobytes(), **headers)
    except (Unavailable, asyncio.CancelledError) as reason:
        await reply("busy", str(reason).encode())
    except (ValueError, nats.errors.MaxPayloadError) as reason:
        await reply("bad_request", str(reason).encode())
    except Exception as error:
        log.exception("embedding failed")
        await reply("failed", f"{type(error).__name__}: {error}".encode())
