"""The network of a plugin: the hosts of its manifest, at addresses that the guard permits, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from adapters.plugins import hosts
from adapters.plugins.hosts import Containment, Hosts, named_hosts
from handlers.ports.plugins import EnabledPlugin, PluginFailed
from tests.adapters.plugins.conftest import Site

PROGRAM = """
import http.client, os, socket, urllib.request
from urllib.parse import urlsplit
from headrace_plugin import *

def before(call):
    try:
        return answer(globals()[call["do"]](*call["with"]))
    except OSError as error:
        return answer(f"{type(error).__name__}: {error}")

def get(url):
    return urllib.request.urlopen(url, timeout=5).read().decode()

def post(url, size):
    return urllib.request.urlopen(url, b"x" * size, timeout=5).read().decode()

def tunnel(host, port):
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    connection = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=5)
    connection.set_tunnel(host, port)
    connection.request("GET", "/through")
    return connection.getresponse().read().decode()

def direct(host, port):
    socket.create_connection((host, port), 2)
    return "connected"

def raw(text):
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    with socket.create_connection((proxy.hostname, proxy.port), 5) as connection:
        connection.sendall(text.encode())
        return connection.recv(100).decode()

serve(globals(), threads=4)
"""


@asynccontextmanager
async def web() -> AsyncIterator[int]:
    """The port of a server that answers with the path and the size of a request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            size = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
            await reader.readexactly(size)
            body = f"{head.split(' ')[1]} {size}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def does(site: Site, plugin: EnabledPlugin, do: str, *arguments: Any) -> str:
    reply = await site.hosts.ask(plugin, "before_invoke", {"do": do, "with": arguments})
    return str(reply.fields["response"])


@pytest.fixture
async def port(site: Site) -> AsyncIterator[int]:
    async with web() as port:
        site.allow(f"127.0.0.1:{port}")
        yield port


async def test_requests_pass_to_the_hosts_of_the_manifest(site: Site, port: int) -> None:
    plugin = await site.plugin(PROGRAM, network=[f"127.0.0.1:{port}"])
    assert await does(site, plugin, "get", f"http://127.0.0.1:{port}/a?b=c") == "/a?b=c 0"
    assert await does(site, plugin, "post", f"http://127.0.0.1:{port}/a", 300_000) == "/a 300000"
    assert await does(site, plugin, "tunnel", "127.0.0.1", port) == "/through 0"


async def test_other_hosts_and_ports_are_refused(site: Site, port: int) -> None:
    plugin = await site.plugin(PROGRAM, network=["127.0.0.1:1", "example.com"])
    assert "403" in await does(site, plugin, "get", f"http://127.0.0.1:{port}/")
    assert "403" in await does(site, plugin, "tunnel", "127.0.0.1", port)
    assert "403" in await does(site, plugin, "get", "http://example.com:8080/")


async def test_the_guard_has_the_last_word(site: Site) -> None:
    async with web() as port:  # which no operator allows
        plugin = await site.plugin(PROGRAM, network=[f"127.0.0.1:{port}", "169.254.169.254:80"])
        assert "403" in await does(site, plugin, "get", f"http://127.0.0.1:{port}/")
        assert "403" in await does(site, plugin, "get", "http://169.254.169.254/latest/meta-data")


async def test_nothing_leads_past_the_proxy(site: Site, port: int) -> None:
    plugin = await site.plugin(PROGRAM, network=[f"127.0.0.1:{port}"])
    assert "Refused" in await does(site, plugin, "direct", "127.0.0.1", port)
    assert "unreachable" in await does(site, plugin, "direct", "192.0.2.1", 80)


@pytest.mark.parametrize("text", ["GET / HTTP/1.1\r\n\r\n", "\r\n\r\n", "GET http:// HTTP/1.1\r\n\r\n", "x" * 100_000])
async def test_what_is_no_request_of_a_proxy_is_dropped(site: Site, port: int, text: str) -> None:
    plugin = await site.plugin(PROGRAM, network=[f"127.0.0.1:{port}"])
    assert await does(site, plugin, "raw", text) in ("", "ConnectionResetError: [Errno 104] Connection reset by peer")
    assert await does(site, plugin, "get", f"http://127.0.0.1:{port}/") == "/ 0"


async def test_an_address_in_a_setting_is_a_host(site: Site, port: int) -> None:
    plugin = await site.plugin(PROGRAM, network=["$endpoint"])
    plugin = plugin._replace(settings={"endpoint": f"http://127.0.0.1:{port}/v1"})
    assert await does(site, plugin, "get", f"http://127.0.0.1:{port}/") == "/ 0"


def test_hosts_are_those_of_the_manifest_and_of_settings() -> None:
    manifest: Any = {"network": ["api.example.com", "$one", "$two", "$three", "$four"]}
    settings = {"one": "https://a.example.com/x", "two": "http://B.example.com:81", "three": "no address", "four": 7}
    plugin = EnabledPlugin("acme", "p", "1.0.0", "d", manifest, settings, {}, "none")
    assert named_hosts(plugin) == {"api.example.com", "a.example.com:443", "b.example.com:81"}


async def test_without_namespaces_a_plugin_with_network_does_not_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "PAUSE_S", 0.01)
    plugin = await site.plugin(PROGRAM, network=["127.0.0.1:1"], timeout_ms=10_000)
    sandbox = site.hosts._containment.sandbox
    confined = Hosts(
        site.environments,
        Containment(sandbox, site.egress, namespaces=False),
        lambda tenant, sealed: sealed,
        site.hosts._suspend,
    )
    with pytest.raises(PluginFailed, match="this machine has no namespaces"):
        await confined.ask(plugin, "before_invoke", {})
    await confined.close()
