"""Access to the pages: by an e-mail address and a password, a one-time code in a link, or the token in a form or a
header; then by a session's cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.jetstream.doors import Credential, DoorReports
from adapters.jetstream.sessions import Session, Sessions
from adapters.jetstream.streams import SESSION_S
from adapters.privacy.passwords import Busy
from adapters.web.viewer import people
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.guesses import Guesses, network
from adapters.web.viewer.render import problem, render
from adapters.web.viewer.sender import address, browser
from adapters.web.viewer.visitor import Visitor, visitor
from domain.access.account import Account
from domain.access.account import address as email_address
from domain.access.actor import account as actor_of
from domain.access.register import Register
from handlers.ports.log import Unavailable

OPEN = ("/login", "/healthz", "/static/", "/invitation")
"""Beginnings of the paths that are open to all."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "headrace.localhost"})
"""Names of this machine. Browsers send cookies to all ports of a name: the last one is the viewer's alone."""


class Refused(Exception):
    """The viewer must not run with these settings."""


@dataclass(frozen=True)
class Access:
    """The rules of access.

    `hosts` are the permitted names in requests; None: any, for an address reachable from outside, whose names are not
    known: a cookie is sent to the name it was set for, so a rebound name gets nothing.
    """

    token: str
    key: bytes = field(repr=False)
    hosts: frozenset[str] | None = LOOPBACK

    @classmethod
    def of(cls, host: str, token: str | None, kept: str, key: bytes, further: frozenset[str] = frozenset()) -> Access:
        """The rules for an address: `token` is the configured one, `kept` the random one of this installation.

        Raises: Refused, for an address other than loopback without a token.
        """
        if is_loopback(host):
            return cls(token or kept, key, LOOPBACK | {host} | further)
        if token is None:
            raise Refused(
                f"The viewer would be open to others at {host}: it needs a token of 16 characters or more, or a "
                "loopback address, which is reached through an SSH tunnel."
            )
        return cls(token, key, frozenset({host}) | further if further else None)

    def cookie(self, request: HTTPConnection) -> str:
        """The name of the cookie. Cookies ignore ports: two viewers on one machine must not log each other out.

        Behind TLS, a browser takes it from this server alone, and sends it over TLS alone.
        """
        return f"{'__Host-' if is_encrypted(request) else ''}headrace_{self._signed('name')[:8]}"

    def is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token.encode())

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the token: a new token ends the sessions that began with an earlier one."""
        return self._signed("token")[:16]

    def _signed(self, text: str) -> str:
        return hmac.new(self.key, f"viewer\0{self.token}\0{text}".encode(), sha256).hexdigest()

    def accepts_host(self, header: str) -> bool:
        try:
            name = urlsplit(f"//{header}").hostname
        except ValueError:
            return False
        return bool(name) and (self.hosts is None or name in self.hosts)


@dataclass(frozen=True)
class Entries:
    """Attempts to enter: failed ones make their address wait, and are reported."""

    guesses: Guesses
    reports: DoorReports

    def wait(self, request: HTTPConnection, credential: Credential, account: str = "") -> float:
        """Seconds until the sender may try again; 0: now. An attempt that comes too early is refused."""
        if wait := self.guesses.wait(address(request), account):
            self.reports.refused(credential, network(address(request)))
        return wait

    def trying(self, request: HTTPConnection, account: str) -> AbstractContextManager[None]:
        """An attempt whose result takes time."""
        return self.guesses.trying(address(request), account)

    def failed(self, request: HTTPConnection, credential: Credential, account: str = "") -> None:
        self.guesses.failed(address(request), account)
        self.reports.refused(credential, network(address(request)))

    def succeeded(self, request: HTTPConnection, account: str = "") -> None:
        self.guesses.succeeded(address(request), account)


class Gate:
    """Rejects requests without access, before all other code, and notes the visitor of the others."""

    def __init__(self, app: ASGIApp, backend: Backend, access: Access, sessions: Sessions, entries: Entries) -> None:
        self.app = app
        self.backend = backend
        self.access = access
        self.sessions = sessions
        self.entries = entries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.json = scope["path"].endswith(".json")
        try:
            answer = self._refusal(request) or await self._admit(request)
        except Unavailable as error:
            answer = problem(request, 503, "The bus does not work as it should", str(error), retry=True)
        await (answer or self.app)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        """The refusal of a request that is not allowed with any credentials."""
        headers = request.headers
        if not self.access.accepts_host(headers.get("host", "")):
            said = "The viewer is not served under this name: open it as 127.0.0.1, or add the name to its settings.\n"
            return PlainTextResponse(said, 421)
        if request.method not in ("GET", "HEAD") and not same_origin(headers):
            return PlainTextResponse("This request comes from another site, and is refused.\n", 403)
        return None

    async def _admit(self, request: Request) -> Response | None:
        """Note the visitor, at one tenant; the answer to a request that has no access, or not to this page."""
        path = request.scope["path"]
        if path == "/login" and request.method == "POST" and (wait := self.entries.wait(request, "password")):
            # Before the form is read: thousands of guesses must cost little.
            return await login_form(request, "/traces", 429, TOO_MANY.format(ceil(wait)), headers=retry_after(wait))
        if path.startswith(OPEN) and path != "/invitation":
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        session = None
        if scheme.lower() == "bearer":
            if refused := self._bearer(request, given):
                return refused
            # The operator needs no account: metrics and tables can be read while the bus is away.
            found: Visitor | None = Visitor(Register(), self.backend.tenant)
        else:
            session = await self.sessions.find(request.cookies.get(self.access.cookie(request), ""))
            found = await self._of(session)
        if found is None:
            return None if path.startswith(OPEN) else self._stranger(request)
        wanted = request.query_params.get("tenant", "") if path != "/names/tenant" else ""
        at = found.at(path, wanted, self.backend.tenant)
        request.state.visitor = at
        if (reason := at.refusal(path)) and not path.startswith(OPEN):
            if path == "/" or (path == "/traces" and not wanted and request.method == "GET"):
                return RedirectResponse("/account", 303)
            return problem(request, 403, "This page is not for your account", reason)
        return None

    async def _of(self, session: Session | None) -> Visitor | None:
        """The visitor with this session; None where the token or a sign-out has ended it."""
        if session is None or session.token != self.access.fingerprint:
            return None
        register = await self.backend.register()
        if session.account:
            account = register.accounts.get(session.account)
            if account is None or not account.is_signed_in(session.since):
                return None
        return Visitor(register, self.backend.tenant, session.actor, session)

    def _stranger(self, request: Request) -> Response:
        """The answer to a request without access."""
        if request.method != "GET" or not _is_page(request):
            return _unauthorized()
        path = request.scope["path"]
        here = path + (f"?{request.url.query}" if request.url.query else "")
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A strict cookie is not sent with a request from another site; from this page it is.
            return HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0"><title>Headrace</title>')
        return RedirectResponse(f"/login?next={quote(here, safe='')}", 303)

    def _bearer(self, request: Request, given: str) -> Response | None:
        if wait := self.entries.wait(request, "token"):
            return PlainTextResponse(TOO_MANY.format(ceil(wait)) + "\n", 429, retry_after(wait))
        if self.access.is_token(given):
            self.entries.succeeded(request)
            return None
        self.entries.failed(request, "token")
        return _unauthorized()


TOO_MANY = "Too many logins have failed: try again in {} s."


def retry_after(wait: float) -> dict[str, str]:
    return {"Retry-After": str(ceil(wait))}


def _unauthorized() -> Response:
    said = "Log in first, or send the token in the header `Authorization: Bearer …`.\n"
    return PlainTextResponse(said, 401, {"WWW-Authenticate": "Bearer"})


def is_encrypted(request: HTTPConnection) -> bool:
    """True behind TLS. A client that forges the header of a proxy changes the cookie of its own browser only."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (request.url.scheme, forwarded.lower())


def same_origin(headers: Headers) -> bool:
    """True if the request's origin, which every browser sends with a POST, is this server."""
    origin = headers.get("origin", "")
    return bool(origin) and origin != "null" and urlsplit(origin).netloc == headers.get("host", "")


def _is_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and "hx-request" not in request.headers


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def routes(backend: Backend, access: Access, sessions: Sessions, entries: Entries) -> list[Route]:
    async def login(request: Request) -> Response:
        if request.method == "POST":
            form = await request.form(max_files=0, max_fields=8, max_part_size=4096)
            goal = str(form.get("next", ""))
            goal = goal if _is_ours(goal) else "/traces"
            if email := str(form.get("email", "")):
                return await by_password(request, goal, email, str(form.get("password", "")))
            return await by_secret(request, goal, str(form.get("token", "")))
        goal = request.query_params.get("next", "")
        # Links are opened by GET; HEAD opens nothing.
        given = request.query_params.get("code", "") if request.method == "GET" else ""
        return await by_secret(request, goal if _is_ours(goal) else "/traces", given)

    async def by_secret(request: Request, goal: str, given: str) -> Response:
        """By the token in a form, or the code in a link."""
        credential: Credential = "token" if request.method == "POST" else "link"
        if not given:
            return await login_form(request, goal)
        if wait := entries.wait(request, credential):
            return await login_form(request, goal, 429, TOO_MANY.format(ceil(wait)), headers=retry_after(wait))
        if not (access.is_token(given) if request.method == "POST" else await sessions.redeem(given)):
            entries.failed(request, credential)
            return await login_form(request, goal, 403, _WRONG_TOKEN if request.method == "POST" else _WRONG_CODE)
        entries.succeeded(request)
        return await begin(request, goal, credential)

    async def by_password(request: Request, goal: str, email: str, password: str) -> Response:
        typed = email_address(email)
        if wait := entries.wait(request, "password", typed):
            said = TOO_MANY.format(ceil(wait))
            return await login_form(request, goal, 429, said, email, headers=retry_after(wait))
        with entries.trying(request, typed):
            try:
                account = await people.signed_in(backend, typed, password)
            except Busy as error:
                return await login_form(request, goal, 503, str(error), email, headers=retry_after(5))
            if account is None:
                entries.failed(request, "password", typed)
                return await login_form(request, goal, 403, _WRONG_PASSWORD, email)
        entries.succeeded(request, typed)
        return await begin(request, goal, "password", account)

    async def logout(request: Request) -> Response:
        cookie = access.cookie(request)
        if session := visitor(request).session:
            await sessions.end(session.id)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(cookie, httponly=True, samesite="strict", secure=is_encrypted(request))
        return answer

    return [Route("/login", login, methods=["GET", "POST"]), Route("/logout", logout, methods=["POST"])]


async def login_form(
    request: Request,
    goal: str,
    status: int = 200,
    wrong: str = "",
    email: str = "",
    *,
    headers: dict[str, str] | None = None,
) -> Response:
    """The page to log in, which asks for an address and a password where there are accounts."""
    register = await request.app.state.backend.register()
    accounts = any(not account.deleted for account in register.accounts.values())
    given = {"next": goal, "wrong": wrong, "accounts": accounts, "email": email}
    return render(request, "login.html", given, status, headers=headers)


async def begin(request: Request, goal: str, credential: Credential, account: Account | None = None) -> Response:
    """Begin a session: of an account, or of the operator; the browser goes on to `goal`."""
    state = request.app.state
    id = account.id if account else None
    await state.backend.reports.signed_in(credential, address(request), browser(request), id)
    return await begin_session(request, goal, account)


async def begin_session(request: Request, goal: str, account: Account | None) -> Response:
    """As `begin`, where a session of this browser was there just before."""
    state = request.app.state
    access: Access = state.access
    whose = {"actor": actor_of(account.id), "since": account.signed_out_at} if account else {}
    secret = await Sessions(state.backend.nc).begin(access.fingerprint, address(request), browser(request), **whose)
    answer = RedirectResponse(goal, 303)
    answer.set_cookie(
        access.cookie(request),
        secret,
        max_age=int(SESSION_S),
        httponly=True,
        samesite="strict",
        secure=is_encrypted(request),
    )
    return answer


_WRONG_TOKEN = "The token is wrong."
_WRONG_CODE = "The link is used up, or too old: each one works once, for ten minutes."
_WRONG_PASSWORD = "The e-mail address or the password is wrong."


def _is_ours(path: str) -> bool:
    """A path of this server: browsers read `//name` and `/\\name` as another one."""
    return path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()


class Headed:
    """Adds headers to every answer that forbid browsers everything that no page needs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, headed)


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With `no-referrer` the origin of a form would be `null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
