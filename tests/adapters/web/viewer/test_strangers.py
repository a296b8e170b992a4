"""A client without a login, and a page of another site, against the viewer: every byte is as they send it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import TOKEN, Site, serving

CLOSED = [
    *("/traces", "/traces.json", "/traces/x", "/sql", "/sql.json", "/metrics", "/log/1", "/costs", "/replays", "/"),
    *("//traces", "/static/../traces", "/static/%2e%2e/traces", "/login/../traces", "/login/../sql.json", "/%6cog/1"),
    *("/static//../traces", "/healthz/../sql", "/%2e/traces", "/TRACES", "/traces/", "/login%2f..%2ftraces"),
    *(
        "/static/..%2f..%2fserver.py",
        "/static/....//server.py",
        "/static/%252e%252e/server.py",
        "/static/\\..\\server.py",
    ),
]

HOSTS = [
    *("127.0.0.1/login?", "127.0.0.1/static/", "127.0.0.1#", "127.0.0.1?x", "evil.example", "127.0.0.1.evil.example"),
    *("127.0.0.1@evil.example", "evil.example/127.0.0.1", "[::1", "", "localhost/healthz", "127.0.0.1\\@evil"),
]


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("strangers"), lone_nats.url, module_database_url) as served:
        yield served


async def sent(site: Site, request: bytes, *, body: int = 0) -> tuple[int, bytes, int]:
    """Send a request and `body` bytes after it; gives the status, the answer, and the bytes that were taken."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    taken = 0
    with suppress(ConnectionError):
        while taken < body and not reader._buffer:  # type: ignore[attr-defined]
            writer.write(bytes(2**16))
            await writer.drain()
            taken += 2**16
    answer = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(10):
            while piece := await reader.read(2**16):
                answer += piece
    writer.close()
    return int(answer.split(b" ", 2)[1]) if answer else 0, answer, taken


async def asked(
    site: Site, path: str, *headers: str, method: str = "GET", host: str | None = None
) -> tuple[int, bytes]:
    named = site.url.removeprefix("http://") if host is None else host
    lines = [f"{method} {path} HTTP/1.1", f"Host: {named}", *headers, "Connection: close", "", ""]
    status, answer, _ = await sent(site, "\r\n".join(lines).encode())
    return status, answer


@pytest.mark.parametrize("path", CLOSED)
async def test_without_a_login_no_path_leads_in(site: Site, path: str) -> None:
    for accept in ("Accept: text/html", "Accept: application/json", "X: y"):
        status, answer = await asked(site, path, accept)
        assert status in (303, 401, 404), path
        if status == 303:
            assert b"\r\nlocation: /login?next=" in answer.lower()


@pytest.mark.parametrize("host", HOSTS)
async def test_no_name_of_a_host_leads_in(site: Site, host: str) -> None:
    for path in ("/traces.json", "/sql", "/log/1"):
        status, _ = await asked(site, path, host=host)
        assert status in (400, 401, 421), path


async def test_two_names_are_no_name(site: Site) -> None:
    status, _ = await asked(site, "/login", "Host: evil.example")
    assert status == 400


@pytest.mark.parametrize(
    "goal", ["/\t/evil.example", "javascript:alert(1)", "/\\\t/evil", "/%0d%0aX:y", "///evil", "/\u2028"]
)
async def test_a_login_leads_to_pages_of_the_viewer(site: Site, goal: str) -> None:
    answer = await site.client.post("/login", data={"token": TOKEN, "next": goal}, follow_redirects=False)
    assert answer.headers["location"] in ("/traces", "/%0d%0aX:y")
    assert "x" not in answer.headers


@pytest.mark.parametrize("origin", ["", "Origin: null", "Origin: http://evil.example", "Origin: http://127.0.0.1:1"])
async def test_a_page_of_another_site_sends_nothing(site: Site, origin: str) -> None:
    for path in ("/login", "/logout", "/costs/quotas", "/replays/new"):
        headers = [f"Authorization: Bearer {TOKEN}", *([origin] if origin else []), "Content-Length: 0"]
        status, _ = await asked(site, path, *headers, method="POST")
        assert status == 403, path


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
async def test_a_large_form_is_cut_off(site: Site, kind: str) -> None:
    """Without a login, and from a page of another site."""
    size, host = 60 * 2**20, site.url.removeprefix("http://")
    begin = "--b\r\nContent-Disposition: form-data; name=token\r\n\r\n" if "multipart" in kind else "token="
    for path, origin in (("/login", site.url), ("/login", "http://evil.example"), ("/costs/quotas", site.url)):
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {host}",
            f"Origin: {origin}",
            f"Content-Type: {kind}",
            "Connection: close",
        ]
        head = "\r\n".join([*lines, f"Content-Length: {size}", "", begin])
        status, _, taken = await sent(site, head.encode(), body=size - len(begin))
        assert status in (0, 400, 401, 403, 413), path
        assert taken < 10 * 2**20, path


async def test_a_long_query_is_refused(site: Site) -> None:
    answer = await site.client.get("/sql.json", params={"query": "SELECT 1 --" + "x" * 32_000})
    assert (answer.status_code, "at most 32,000" in answer.text) == (400, True)
