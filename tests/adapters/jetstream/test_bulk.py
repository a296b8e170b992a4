from __future__ import annotations

import time

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from adapters.jetstream import bulk as module
from adapters.jetstream.bulk import Stored, bulk, headers
from handlers.ports.log import Unavailable

COUNT = 50


@pytest.fixture
async def stream(nc: Client, tenant: str) -> str:
    """A stream of numbered messages."""
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name=tenant, subjects=[f"{tenant}.>"]))
    for number in range(1, COUNT + 1):
        await js.publish(f"{tenant}.{number}", str(number).encode(), headers={"Number": f"№ {number}"})
    return tenant


def numbers(messages: list[Stored]) -> list[int]:
    return [int(message.data) for message in messages]


async def test_messages_come_whole_and_in_order(nc: Client, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ASKED", 4)
    found = [message async for chunk in bulk(nc, stream, 7, 31) for message in chunk]
    assert numbers(found)[: 31 - 7] == list(range(8, 32))
    assert found[0].subject == f"{stream}.8"
    assert dict(found[0].headers) == {"Number": "№ 8"}
    assert "Number" in found[0].headers
    assert found[0].headers.get("Other") is None
    assert [chunk async for chunk in bulk(nc, stream, COUNT, COUNT)] == []


async def test_requests_that_end_at_their_bytes_are_made_again(
    nc: Client, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pause, although each brings fewer messages than it asked for."""
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name=tenant, subjects=[f"{tenant}.>"]))
    size = nc.max_payload // 8
    for number in range(1, COUNT + 1):
        await js.publish(f"{tenant}.{number}", str(number).encode().ljust(size))
    monkeypatch.setattr(module, "request_bytes", lambda nc: 3 * size)
    monkeypatch.setattr(module, "_CHUNK", 2 * size)
    began = time.monotonic()
    chunks = [chunk async for chunk in bulk(nc, tenant, 0, COUNT)]
    assert time.monotonic() - began < module._SILENCE_S
    assert [int(message.data) for chunk in chunks for message in chunk] == list(range(1, COUNT + 1))
    assert max(map(len, chunks)) <= 2


async def test_it_goes_on_when_its_consumer_has_gone(nc: Client, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ASKED", 4)
    monkeypatch.setattr(module, "_AHEAD", 1)
    monkeypatch.setattr(module, "_SILENCE_S", 0.3)
    found: list[Stored] = []
    async for chunk in bulk(nc, stream, 0, COUNT):
        if not found:
            for consumer in await nc.jetstream().consumers_info(stream):
                await nc.jetstream().delete_consumer(stream, consumer.name)
        found += chunk
    assert numbers(found) == list(range(1, COUNT + 1))


async def test_a_stream_that_ends_early_is_unavailable(
    nc: Client, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SILENCE_S", 0.2)
    with pytest.raises(Unavailable, match=f"after {COUNT}"):
        [chunk async for chunk in bulk(nc, stream, 0, COUNT + 1)]


def test_headers_may_be_missing_or_odd() -> None:
    assert headers(b"") == {}
    odd = headers(b"NATS/1.0\r\nA:b\r\nC:  d:e \r\nF\xff: g\xff\r\n\r\n")
    assert odd == {"A": "b", "C": "d:e", "F�": "g�"}
