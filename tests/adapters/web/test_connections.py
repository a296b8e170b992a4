from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from adapters.web.connections import BoundedProtocol

GOOD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body; `/large` with 64 MB, `/slow` after a second."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(64 if scope["path"] == "/large" else 0):
        await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
    await send({"type": "http.response.body", "body": str(size).encode()})


class Quick(BoundedProtocol):
    arrival_s = 0.5
    stall_s = 0.5


class Few(Quick):
    connections_limit = 20
    arrival_s = 30.0


@asynccontextmanager
async def serving(protocol: type[BoundedProtocol]) -> AsyncIterator[int]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(echo, http=protocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    work = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    await work
    listening.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(Quick) as port:
        yield port


async def opened(port: int, begin: bytes) -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    await writer.drain()
    return reader, writer


async def asked(port: int, request: bytes = GOOD) -> bytes:
    reader, writer = await opened(port, request)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head.partition(b"\r\n")[0]


async def lasted(stream: Stream, within: float = 10.0) -> float:
    """Seconds until the server closes the connection."""
    began = monotonic()
    with suppress(ConnectionError):
        async with asyncio.timeout(within):
            await stream[0].read()
    stream[1].close()
    return monotonic() - began


async def test_half_sent_requests_end_and_a_good_one_is_served(port: int) -> None:
    slow = [await opened(port, b"GET / HTTP/1.1\r\nHost: a\r\nX-") for _ in range(150)]
    assert await asked(port) == b"HTTP/1.1 200 OK"
    assert max(await asyncio.gather(*(lasted(each) for each in slow))) < 2


@pytest.mark.parametrize("begin", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"])
async def test_what_trickles_in_does_not_buy_time(port: int, begin: bytes) -> None:
    reader, writer = await opened(port, begin)
    began = monotonic()

    async def trickle() -> None:
        while True:
            writer.write(b"a")
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    assert await lasted((reader, writer)) + monotonic() - began < 4
    trickling.cancel()


async def test_an_idle_connection_ends_after_its_last_response(port: int) -> None:
    reader, writer = await opened(port, GOOD)
    end = b"\r\n0\r\n0\r\n\r\n"
    await reader.readuntil(end)
    await asyncio.sleep(0.3)
    writer.write(GOOD)
    assert (await reader.readuntil(end)).startswith(b"HTTP/1.1 200 OK")
    assert 0.3 < await lasted((reader, writer)) < 2


async def test_an_answer_that_takes_long_is_no_slow_request(port: int) -> None:
    assert await asked(port, GOOD.replace(b"/ ", b"/slow ", 1)) == b"HTTP/1.1 200 OK"


async def test_a_response_that_is_not_taken_ends(port: int) -> None:
    reader, writer = await opened(port, GOOD.replace(b"/ ", b"/large ", 1))
    await asyncio.sleep(1.5)
    taken = 0
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while piece := await reader.read(2**20):
            taken += len(piece)
    writer.close()
    assert taken < 64 * 2**20


async def test_a_large_response_that_is_taken_is_whole(port: int) -> None:
    reader, writer = await opened(
        port, GOOD.replace(b"/ ", b"/large ", 1).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )
    assert len(await reader.read()) > 64 * 2**20
    writer.close()


async def test_too_many_connections_end_those_that_wait_longest() -> None:
    async with serving(Few) as port:
        slow = [await opened(port, b"GET / HTTP/1.1\r\n") for _ in range(30)]
        assert await asked(port) == b"HTTP/1.1 200 OK"
        ends = await asyncio.gather(*(lasted(each, 0.5) for each in slow), return_exceptions=True)
        assert all(isinstance(end, float) for end in ends[:10])
        assert all(isinstance(end, TimeoutError) for end in ends[-10:])
        for _, writer in slow:
            writer.close()
