"""Messages that are too large for a server: none of them ends the connection, or is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import nats.errors
import orjson
import pytest
from nats.aio.client import Client

from adapters.jetstream import previews
from adapters.jetstream.live import NatsLive
from adapters.jetstream.message import Message
from adapters.jetstream.raw import Occupied, RawStream
from adapters.jetstream.size import size_of
from domain.log import EVENTS

HEADERS = {"Nats-Msg-Id": "one", "Headrace-Actor": "Jürgen", "Empty": ""}


async def test_the_size_of_a_message_is_what_the_server_counts(fresh: Client) -> None:
    room = fresh.max_payload - size_of(b"", HEADERS)
    subscription = await fresh.subscribe("sized")
    await fresh.publish("sized", b"x" * room, headers=HEADERS)
    assert len((await subscription.next_msg(5)).data) == room
    await fresh.publish("sized", b"x" * (room + 1), headers=HEADERS)
    async with asyncio.timeout(10):
        while not fresh.is_closed:
            await asyncio.sleep(0.05)


async def test_a_frame_that_is_too_large_is_left_out(fresh: Client) -> None:
    live, frames = NatsLive(fresh), await fresh.subscribe("live.>")
    await live.publish("acme", "talk", "message", {"type": "token", "text": "x" * fresh.max_payload})
    await live.publish("acme", "talk", "message", {"type": "token", "text": "x"})
    assert orjson.loads((await frames.next_msg(5)).data)["text"] == "x"


@pytest.fixture
async def previewing(fresh: Client) -> AsyncIterator[Client]:
    """A service that gives as many characters as it is asked for."""

    async def preview(tenant: str, payload: bytes) -> dict[str, Any]:
        return {"status": "ok", "text": "x" * int(payload)}

    service = asyncio.create_task(previews.serve(fresh, preview))
    yield fresh
    service.cancel()
    await asyncio.wait([service])


@pytest.mark.parametrize(("more", "status"), [(-100, "ok"), (1, "rejected")])
async def test_a_preview_that_is_too_large_says_so(previewing: Client, more: int, status: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                asked = str(previewing.max_payload + more).encode()
                answer = orjson.loads((await previewing.request("preview.acme", asked, timeout=5)).data)
                break
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.05)
    assert answer["status"] == status
    assert answer.get("code") == (None if status == "ok" else "too_large")


async def test_a_message_that_the_server_does_not_take_cannot_be_put_back(fresh: Client) -> None:
    large = Message(1, "evt.acme.app.x", "2026-05-04T08:00:00Z", {}, b"x" * fresh.max_payload)

    async def chunks() -> AsyncIterator[list[Message]]:
        yield [large]

    with pytest.raises(Occupied, match="max_payload"):
        await RawStream(fresh, EVENTS).put_back(0, chunks(), lambda sequence: None)
    assert fresh.is_connected
