"""Previews as a service: a request on `preview.<tenant>` and its answer are JSON; nothing is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream.reply import respond

SUBJECT = "preview.{}"


async def serve(nc: Client, preview: Callable[[str, bytes], Awaitable[dict[str, Any]]]) -> None:
    """Answer requests until cancelled; those in progress get no answer then."""
    at_work: set[asyncio.Task[None]] = set()

    async def answer(message: Msg) -> None:
        found = await preview(message.subject.partition(".")[2], message.data)
        await respond(message, _fitting(found, nc.max_payload))

    async def take(message: Msg) -> None:
        if message.reply:
            task = asyncio.create_task(answer(message))
            at_work.add(task)
            task.add_done_callback(at_work.discard)

    subscription = await nc.subscribe(SUBJECT.format("*"), queue="preview", cb=take)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        if not nc.is_closed:
            await subscription.unsubscribe()
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)


def _fitting(found: dict[str, Any], limit: int) -> bytes:
    body = orjson.dumps(found)
    if len(body) <= limit:
        return body
    reason = f"The answer has {len(body):,} bytes, and the bus takes {limit:,}: ask for fewer segments."
    return orjson.dumps({"status": "rejected", "code": "too_large", "message": reason, "field": "limit"})
