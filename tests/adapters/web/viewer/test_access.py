from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx2
import pytest
from nats.js.errors import NotFoundError
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from adapters.jetstream.sessions import Sessions
from adapters.web.viewer import guesses
from adapters.web.viewer.access import Access, Refused
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.server import create_app
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import TOKEN, Site, serving

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("access"), lone_nats.url, module_database_url) as served:
        yield served


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of other tests make none of them wait."""
    monkeypatch.setattr(guesses, "FREE", 1000)
    monkeypatch.setattr(guesses, "FREE_IN_ALL", 1000)
    monkeypatch.setattr(guesses, "LOGGED_S", 0.0)


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
    for known in ("127.0.0.1:8400", "localhost", "headrace.localhost:8400", "[::1]:9000", "traces.example.org"):
        assert loopback.accepts_host(known), known
    for unknown in ("evil.example", "127.0.0.1.evil.example", "", "[", "evil.example@127.0.0.1:1"):
        assert not loopback.accepts_host(unknown) or unknown.endswith("@127.0.0.1:1"), unknown
    assert Access.of("0.0.0.0", TOKEN, "kept", b"key").accepts_host("any.example:8400")
    assert not Access.of("0.0.0.0", TOKEN, "kept", b"key", frozenset({"a.example"})).accepts_host("b.example")


async def test_without_a_login_there_is_only_the_form(stranger: httpx2.AsyncClient) -> None:
    answer = await stranger.get("/traces?state=error", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Ftraces%3Fstate%3Derror")
    for path in ("/traces.json", "/traces/x", "/sql", "/metrics", "/log/1", "/nothing"):
        assert (await stranger.get(path, headers={"Accept": "application/json"})).status_code == 401, path
    assert (await stranger.get("/traces", headers=HTML | {"HX-Request": "true"})).status_code == 401
    assert (await stranger.get("/healthz")).text == "ok\n"


@pytest.fixture
def sessions(site: Site) -> Sessions:
    return Sessions(site.wiring.nc)


def secret_of(answer: httpx2.Response) -> str:
    """The value of the cookie that an answer sets."""
    return str(answer.headers["set-cookie"]).partition("=")[2].partition(";")[0]


async def test_a_link_logs_in_once_and_the_cookie_stays(
    site: Site, stranger: httpx2.AsyncClient, sessions: Sessions
) -> None:
    link = await sessions.link(site.url)
    assert TOKEN not in link
    assert (await stranger.head(link)).status_code == 200  # what looks at links uses none up
    answer = await stranger.get(link, params={"code": link.partition("code=")[2], "next": "/traces?state=ok"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/traces?state=ok")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert TOKEN not in cookie
    assert (await stranger.get("/traces", headers=HTML)).status_code == 200
    again = await stranger.get(link)
    assert (again.status_code, "set-cookie" in again.headers) == (403, False)
    assert "works once" in again.text


async def test_a_link_is_opened_by_one_of_many(site: Site, sessions: Sessions) -> None:
    link = await sessions.link(site.url)
    async with httpx2.AsyncClient(timeout=30) as client:
        answers = await asyncio.gather(*(client.get(link) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [303, *[403] * 7]


async def test_a_link_that_is_too_old_logs_in_no_more(
    site: Site, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.jetstream.sessions.CODE_S", -1)
    link = await sessions.link(site.url)
    assert not await sessions.redeem(link.partition("code=")[2])


async def test_the_token_in_an_address_logs_in_no_more(stranger: httpx2.AsyncClient) -> None:
    for name in ("token", "code"):
        answer = await stranger.get("/login", params={name: TOKEN})
        assert "set-cookie" not in answer.headers


async def test_a_logout_ends_the_session_for_all_who_have_its_cookie(
    site: Site, stranger: httpx2.AsyncClient, sessions: Sessions
) -> None:
    await stranger.get(await sessions.link(site.url))
    async with httpx2.AsyncClient(base_url=site.url, cookies=stranger.cookies, timeout=30) as thief:
        assert (await thief.get("/traces", headers=HTML)).status_code == 200
        assert (await stranger.post("/logout", headers={"Origin": site.url})).status_code == 303
        assert (await stranger.get("/traces", headers=HTML)).status_code == 303
        assert (await thief.get("/traces", headers=HTML)).status_code == 303


async def test_only_hashes_of_secrets_are_kept(site: Site, stranger: httpx2.AsyncClient, sessions: Sessions) -> None:
    link = await sessions.link(site.url)
    secret = secret_of(await stranger.get(link, headers={"User-Agent": "x" * 1000}))
    session = await sessions.find(secret)
    assert session
    assert (session.address, len(session.browser)) == ("127.0.0.1", 200)
    assert session in await sessions.open()
    stream = (await site.wiring.nc.jetstream().stream_info("KV_sessions")).state
    kept = b""
    for sequence in range(stream.first_seq, stream.last_seq + 1):
        with suppress(NotFoundError):
            message = await site.wiring.nc.jetstream().get_msg("KV_sessions", sequence)
            kept += message.subject.encode() + (message.data or b"")
    assert session.id.encode() in kept
    assert secret.encode() not in kept
    assert link.partition("code=")[2].encode() not in kept


async def test_a_session_that_an_operator_ends_is_over(
    site: Site, stranger: httpx2.AsyncClient, sessions: Sessions
) -> None:
    session = await sessions.find(secret_of(await stranger.get(await sessions.link(site.url))))
    assert session
    await sessions.end(session.id)
    assert (await stranger.get("/traces", headers=HTML)).status_code == 303
    assert session not in await sessions.open()


async def test_a_session_ends_by_itself(
    site: Site, stranger: httpx2.AsyncClient, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.jetstream.sessions.SESSION_S", 0.5)
    await stranger.get(await sessions.link(site.url))
    assert (await stranger.get("/traces", headers=HTML)).status_code == 200
    await asyncio.sleep(0.6)
    assert (await stranger.get("/traces", headers=HTML)).status_code == 303


async def test_a_new_token_ends_the_sessions_of_the_old_one(site: Site, sessions: Sessions) -> None:
    """And every viewer with the same token and key knows the session."""
    tokens = {TOKEN: 200, "another token of 16 characters": 303}
    secret = await sessions.begin(Access(TOKEN, b"key").fingerprint)
    for token, status in tokens.items():
        access = Access(token, b"key")
        app = create_app(Backend(site.wiring.nc, site.wiring.settings.postgres_url), access)
        name = f"headrace_{access._signed('name')[:8]}"
        assert await status_of(app, f"{name}={secret}") == (status if status == 303 else 404)


async def status_of(app: ASGIApp, cookie: str) -> int:
    """The status of a page that does not exist, which only those see who have access."""
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return (await client.get("/log/nothing.json/x", headers=HTML | {"Cookie": cookie})).status_code


@pytest.mark.parametrize("forged", ["", "x", "é", "1999999999.abcdef", "a" * 10_000, "session.x", ">", "*"])
async def test_a_cookie_that_no_login_made_opens_nothing(
    site: Site, stranger: httpx2.AsyncClient, sessions: Sessions, forged: str
) -> None:
    name = (await stranger.get(await sessions.link(site.url))).headers["set-cookie"].partition("=")[0]
    async with httpx2.AsyncClient(base_url=site.url, timeout=30) as client:
        headers = HTML | {"Cookie": f"{name}={forged}".encode()}
        assert (await client.get("/traces", headers=headers)).status_code == 303  # type: ignore[arg-type]


async def test_behind_tls_the_cookie_is_of_this_host_and_secure(site: Site, sessions: Sessions) -> None:
    """Without it, a cookie that another server of the domain has set would be taken."""
    encrypted = {"X-Forwarded-Proto": "https"}
    async with httpx2.AsyncClient(base_url=site.url, timeout=30) as client:
        answer = await client.get(await sessions.link(site.url), headers=encrypted)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-")
        assert "secure" in cookie.lower()
        assert "domain" not in cookie.lower()
        pair = cookie.partition(";")[0]
        client.cookies.clear()
        known = HTML | encrypted | {"Cookie": pair}
        assert (await client.get("/traces", headers=known)).status_code == 200
        plain = HTML | encrypted | {"Cookie": pair.removeprefix("__Host-")}
        assert (await client.get("/traces", headers=plain)).status_code == 303
        known |= {"Origin": site.url}
        assert '=""' in (await client.post("/logout", headers=known)).headers["set-cookie"]
        assert (await client.get("/traces", headers=known)).status_code == 303


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


@pytest.mark.parametrize("way", ["form", "link", "header"])
async def test_after_failures_the_next_guess_must_wait(
    site: Site, stranger: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(guesses, "FREE", 0)
    monkeypatch.setattr(guesses, "LONGEST_S", 1.0)

    async def guess(given: str) -> httpx2.Response:
        if way == "form":
            return await stranger.post("/login", data={"token": given}, headers={"Origin": site.url})
        if way == "link":
            return await stranger.get("/login", params={"code": given})
        return await stranger.get("/traces.json", headers={"Authorization": f"Bearer {given}"})

    with capture_logs() as logged:
        assert (await guess("a wrong one")).status_code in (401, 403)
    assert [(each["event"], each["address"]) for each in logged] == [("login.failed", "127.0.0.1")]
    assert "a wrong one" not in str(logged)
    slowed = await guess(TOKEN)
    assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "1")
    assert "try again in 1 s" in slowed.text
    await asyncio.sleep(1.1)
    assert (await site.client.get("/traces.json")).status_code == 200


@pytest.mark.parametrize("goal", ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "/a\r\nb", ""])
async def test_a_login_leads_nowhere_else(site: Site, stranger: httpx2.AsyncClient, goal: str) -> None:
    answer = await stranger.post("/login", data={"token": TOKEN, "next": goal}, headers={"Origin": site.url})
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
