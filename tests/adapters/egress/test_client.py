from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2
import pytest

from adapters.egress import client as egress_client
from adapters.egress.addresses import allowances
from adapters.egress.client import MOST_BYTES, MOST_ERROR_BYTES, Egress, Refused, TooLarge

Answer = Callable[[str], bytes]


class Server:
    """Answers each request with what `answer` makes of its head; keeps the heads."""

    def __init__(self, answer: Answer) -> None:
        self.heads: list[str] = []
        self.port = 0
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write(self._answer(head))
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    kept = Server(answer)
    server = await asyncio.start_server(kept.serve, "127.0.0.1", 0)
    kept.port = server.sockets[0].getsockname()[1]
    async with server:
        yield kept


def says(body: bytes, status: int = 200, **headers: str) -> Answer:
    fields = {"Content-Length": str(len(body)), "Connection": "close", **headers}
    lines = [f"HTTP/1.1 {status} Status", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return lambda head: "\r\n".join([*lines, "", ""]).encode() + body


def allowing(port: int, **more: Any) -> Egress:
    return Egress(allowances(f"127.0.0.1:{port}"), **more)


async def get(egress: Egress, url: str) -> httpx2.Response:
    async with egress.client("acme", connect_s=2) as client:
        return await client.get(url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.1", "[::ffff:127.0.0.1]", "0.0.0.0"],
)
async def test_a_host_that_is_this_machine_in_disguise_is_refused(host: str) -> None:
    async with serving(says(b"secret")) as server:
        with pytest.raises(Refused, match=r"never called|on this machine"):
            await get(Egress(), f"http://{host}:{server.port}/")
        assert server.heads == []


async def test_a_refusal_names_the_address_the_rule_and_the_setting() -> None:
    with pytest.raises(Refused, match=r"^localhost:9 \(.+\) is on this machine; .+ HEADRACE_EGRESS_ALLOW=.+:9\.$"):
        await get(Egress(), "http://localhost:9/")


async def test_an_allowed_port_is_called_by_its_name() -> None:
    async with serving(says(b"fine")) as server:
        answer = await get(allowing(server.port), f"http://localhost:{server.port}/v1?x=1")
    assert (answer.status_code, answer.content) == (200, b"fine")
    [head] = server.heads
    assert head.startswith("GET /v1?x=1 HTTP/1.1\r\n")
    assert f"Host: localhost:{server.port}\r\n".lower() in head.lower()


async def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that has a permitted address first and another one afterwards."""
    asked: list[str] = []
    lookup = asyncio.get_running_loop().getaddrinfo

    async def rebinding(host: Any, *rest: Any, **options: Any) -> Any:
        if host != "rebinding.example":
            return await lookup(host, *rest, **options)
        asked.append(host)
        return await lookup("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *rest, **options)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding)
    async with serving(says(b"fine")) as server:
        answer = await get(allowing(server.port), f"http://rebinding.example:{server.port}/")
    assert (answer.content, len(asked)) == (b"fine", 1)


async def test_one_forbidden_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(host: Any, port: Any, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("1.1.1.1", "169.254.169.254")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
    with pytest.raises(Refused, match=r"169\.254\.169\.254"):
        await get(Egress(), "http://two.example/")


async def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(host: Any, port: Any, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.9", "127.0.0.1")]

    async with serving(says(b"fine")) as server:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
        assert (await get(allowing(server.port), f"http://two.example:{server.port}/")).content == b"fine"


async def test_redirects_are_not_followed() -> None:
    async with serving(says(b"", 302, Location="http://169.254.169.254/latest/meta-data/")) as server:
        answer = await get(allowing(server.port), f"http://127.0.0.1:{server.port}/")
    assert answer.status_code == 302


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(says(b"proxied")) as proxy, serving(says(b"direct")) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        answer = await get(allowing(server.port), f"http://127.0.0.1:{server.port}/")
    assert (answer.content, proxy.heads) == (b"direct", [])


async def test_our_own_servers_are_refused_though_their_port_is_allowed() -> None:
    async with serving(says(b"secret")) as server:
        egress = allowing(server.port, own=lambda: [("localhost", server.port), ("unknown.invalid", 1)])
        with pytest.raises(Refused, match="own servers"):
            await get(egress, f"http://127.0.0.1:{server.port}/")


async def test_local_model_servers_are_for_the_tenants_that_may(monkeypatch: pytest.MonkeyPatch) -> None:
    async def only(tenant: str) -> bool:
        return tenant == "default"

    async with serving(says(b"fine")) as server:
        monkeypatch.setattr("adapters.egress.addresses.LOCAL_MODELS", (server.port,))
        egress = Egress(local_models=only)
        async with egress.client("default", connect_s=2) as client:
            assert (await client.get(f"http://127.0.0.1:{server.port}/")).content == b"fine"
        async with egress.client("acme", connect_s=2) as client:
            with pytest.raises(Refused):
                await client.get(f"http://127.0.0.1:{server.port}/")


async def test_an_answer_has_a_bound() -> None:
    async with serving(says(b"x" * (MOST_BYTES + 1))) as server:
        with pytest.raises(TooLarge, match=f"{MOST_BYTES:,} bytes"):
            await get(allowing(server.port), f"http://127.0.0.1:{server.port}/")


async def test_an_error_is_cut_off() -> None:
    async with serving(says(b"x" * (MOST_ERROR_BYTES * 8), 500)) as server:
        answer = await get(allowing(server.port), f"http://127.0.0.1:{server.port}/")
    assert (answer.status_code, len(answer.content) <= MOST_ERROR_BYTES) == (500, True)


async def test_a_compressed_answer_is_refused() -> None:
    async with serving(says(gzip.compress(b"x" * 10**6), Content_Encoding="gzip")) as server:
        with pytest.raises(httpx2.RemoteProtocolError, match="compressed"):
            await get(allowing(server.port), f"http://127.0.0.1:{server.port}/")
    assert "accept-encoding: identity" in server.heads[0].lower()


async def test_a_server_that_accepts_no_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*rest: Any, **options: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent)
    async with Egress().client("acme", connect_s=0.05) as client:
        with pytest.raises(httpx2.ConnectTimeout):
            await client.get("http://slow.example/")


@pytest.mark.parametrize("public", [True, False])
async def test_it_knows_whether_its_server_is_public(public: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_client, "is_public", lambda ip: public)
    async with serving(says(b"fine")) as server, allowing(server.port).client("acme", connect_s=2) as client:
        assert client.internal
        await client.get(f"http://127.0.0.1:{server.port}/")
        assert client.internal is not public
