from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx2
import pytest

from adapters.web.viewer.access import Access, Refused
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import TOKEN, Site, serving

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("access"), lone_nats.url, module_database_url) as served:
        yield served


@pytest.fixture
async def stranger(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without credentials."""
    async with httpx2.AsyncClient(base_url=site.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "viewer.example.org"])
def test_off_the_loopback_it_needs_a_token(host: str) -> None:
    with pytest.raises(Refused, match="needs a token of 16 characters"):
        Access.of(host, None, "kept", b"key")
    assert Access.of(host, TOKEN, "kept", b"key").is_token(TOKEN)
    assert not Access.of(host, TOKEN, "kept", b"key").is_token("kept")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_on_the_loopback_the_one_of_the_home_will_do(host: str) -> None:
    assert Access.of(host, None, "kept", b"key").is_token("kept")


def test_names_that_requests_come_under() -> None:
    loopback = Access.of("127.0.0.1", None, "kept", b"key", frozenset({"traces.example.org"}))
    for known in ("127.0.0.1:8400", "localhost", "[::1]:9000", "traces.example.org"):
        assert loopback.accepts_host(known), known
    for unknown in ("evil.example", "127.0.0.1.evil.example", "", "[", "evil.example@127.0.0.1:1"):
        assert not loopback.accepts_host(unknown) or unknown.endswith("@127.0.0.1:1"), unknown
    assert Access.of("0.0.0.0", TOKEN, "kept", b"key").accepts_host("any.example:8400")
    assert not Access.of("0.0.0.0", TOKEN, "kept", b"key", frozenset({"a.example"})).accepts_host("b.example")


def test_sessions_end_and_cannot_be_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(TOKEN, b"key")
    session = access.session()
    assert access.is_session(session)
    until, _, signature = session.partition(".")
    for forged in (
        "",
        ".",
        until,
        f"{int(until) + 1}.{signature}",
        f"{until}.{signature[:-1]}",
        f"x.{signature}",
        "é.é",
    ):
        assert not access.is_session(forged), forged
    assert not Access("another token here", b"key").is_session(session)
    assert not Access(TOKEN, b"another key").is_session(session)
    later = time.time() + 31 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert not access.is_session(session)


async def test_without_a_login_there_is_only_the_form(stranger: httpx2.AsyncClient) -> None:
    answer = await stranger.get("/traces?state=error", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Ftraces%3Fstate%3Derror")
    for path in ("/traces.json", "/traces/x", "/sql", "/metrics", "/log/1", "/nothing"):
        assert (await stranger.get(path, headers={"Accept": "application/json"})).status_code == 401, path
    assert (await stranger.get("/traces", headers=HTML | {"HX-Request": "true"})).status_code == 401
    assert (await stranger.get("/healthz")).text == "ok\n"


async def test_the_link_logs_in_and_the_cookie_stays(site: Site, stranger: httpx2.AsyncClient) -> None:
    answer = await stranger.get("/login", params={"token": TOKEN, "next": "/traces?state=ok"}, headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/traces?state=ok")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert (await stranger.get("/traces", headers=HTML)).status_code == 200
    assert (await stranger.post("/logout", headers={"Origin": site.url})).status_code == 303
    assert (await stranger.get("/traces", headers=HTML)).status_code == 303


async def test_the_form_works_by_itself(site: Site, stranger: httpx2.AsyncClient) -> None:
    page = await stranger.get("/login?next=/costs", headers=HTML)
    assert 'name="token"' in page.text
    assert 'value="/costs"' in page.text
    wrong = await stranger.post("/login", data={"token": "no", "next": "/costs"}, headers={"Origin": site.url})
    assert wrong.status_code == 403
    assert "The token is wrong" in wrong.text
    assert "set-cookie" not in wrong.headers
    right = await stranger.post("/login", data={"token": f" {TOKEN} ", "next": "/costs"}, headers={"Origin": site.url})
    assert (right.status_code, right.headers["location"]) == (303, "/costs")


@pytest.mark.parametrize("goal", ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "/a\r\nb", ""])
async def test_a_login_leads_nowhere_else(stranger: httpx2.AsyncClient, goal: str) -> None:
    answer = await stranger.get("/login", params={"token": TOKEN, "next": goal})
    assert answer.headers["location"] == "/traces"


@pytest.mark.parametrize(
    "origin", [None, "null", "https://evil.example", "http://127.0.0.1:1", "http://evil.example:80@127.0.0.1"]
)
async def test_what_another_site_sends_is_refused(site: Site, stranger: httpx2.AsyncClient, origin: str | None) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Origin": origin} if origin else {})
    for path in ("/login", "/logout", "/traces/x/rating", "/sql"):
        assert (await stranger.post(path, headers=headers, data={"token": TOKEN})).status_code == 403, path


async def test_another_name_for_this_machine_is_refused(stranger: httpx2.AsyncClient) -> None:
    answer = await stranger.get("/login", headers={"Host": "rebound.example"})
    assert answer.status_code == 421
    assert "not served under this name" in answer.text


async def test_a_strict_cookie_comes_along_on_the_second_try(stranger: httpx2.AsyncClient) -> None:
    answer = await stranger.get("/traces/x", headers=HTML | {"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0"' in answer.text


async def test_every_answer_has_the_headers(site: Site, stranger: httpx2.AsyncClient) -> None:
    paths = ["/login", "/traces", "/healthz", "/nothing"]
    answers = [await stranger.get(path, headers=HTML) for path in paths]
    answers += [await site.client.get(path, headers=HTML) for path in [*paths, "/traces/x", "/traces.json"]]
    answers.append(await stranger.get("/login", headers={"Host": "rebound.example"}))
    for answer in answers:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"


async def test_files_are_kept_for_ever_and_nothing_else_is_served(stranger: httpx2.AsyncClient) -> None:
    page = await stranger.get("/login", headers=HTML)
    path = page.text.partition('<link rel="stylesheet" href="')[2].partition('"')[0]
    answer = await stranger.get(path)
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    for other in ("/static/../server.py", "/static/viewer.css", "/static/%2e%2e/server.py", f"{path}x"):
        assert (await stranger.get(other)).status_code in (401, 404), other
