"""Access to the pages: by the token in a link, a form or a header, and then by a signed cookie."""

from __future__ import annotations

import hmac
import ipaddress
import time
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.web.viewer.render import render

SESSION_S = 30 * 24 * 3600
"""Lifetime of a login, in seconds."""

OPEN = ("/login", "/healthz", "/static/")
"""Paths that are open to all."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


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

    @property
    def cookie(self) -> str:
        """The name of the cookie. Cookies ignore ports: two viewers on one machine must not log each other out."""
        return f"headrace_{self._signed('name')[:8]}"

    def is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.strip().encode(), self.token.encode())

    def session(self) -> str:
        until = str(int(time.time()) + SESSION_S)
        return f"{until}.{self._signed(until)}"

    def is_session(self, given: str) -> bool:
        until, _, signature = given.partition(".")
        good = hmac.compare_digest(signature.encode(), self._signed(until).encode())
        return good and until.isascii() and until.isdigit() and int(until) > time.time()

    def _signed(self, text: str) -> str:
        """The key of signatures: a new token invalidates earlier ones."""
        return hmac.new(self.key, f"viewer\0{self.token}\0{text}".encode(), sha256).hexdigest()

    def knows(self, request: HTTPConnection) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(given)
        return self.is_session(request.cookies.get(self.cookie, ""))

    def accepts_host(self, header: str) -> bool:
        try:
            name = urlsplit(f"//{header}").hostname
        except ValueError:
            return False
        return bool(name) and (self.hosts is None or name in self.hosts)


class Gate:
    """Rejects requests without access, before all other code."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        answer = self._refusal(request)
        await (answer or self.app)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        headers, path = request.headers, request.url.path
        if not self.access.accepts_host(headers.get("host", "")):
            said = "The viewer is not served under this name: open it as 127.0.0.1, or add the name to its settings.\n"
            return PlainTextResponse(said, 421)
        if request.method not in ("GET", "HEAD") and not same_origin(headers):
            return PlainTextResponse("This request comes from another site, and is refused.\n", 403)
        if path.startswith(OPEN) or self.access.knows(request):
            return None
        if request.method != "GET" or not _is_page(request):
            said = "Log in first, or send the token in the header `Authorization: Bearer …`.\n"
            return PlainTextResponse(said, 401, {"WWW-Authenticate": "Bearer"})
        here = path + (f"?{request.url.query}" if request.url.query else "")
        if headers.get("sec-fetch-site") == "cross-site":
            # A strict cookie is not sent with a request from another site; from this page it is.
            return HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0"><title>Headrace</title>')
        return RedirectResponse(f"/login?next={quote(here, safe='')}", 303)


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


def routes(access: Access) -> list[Route]:
    async def login(request: Request) -> Response:
        if request.method == "POST":
            form = await request.form(max_files=0, max_fields=8, max_part_size=4096)
            given, goal = str(form.get("token", "")), str(form.get("next", ""))
        else:
            given, goal = request.query_params.get("token", ""), request.query_params.get("next", "")
        goal = goal if _is_ours(goal) else "/traces"
        if not access.is_token(given):
            return render(request, "login.html", {"next": goal, "wrong": bool(given)}, 403 if given else 200)
        answer = RedirectResponse(goal, 303)
        answer.set_cookie(
            access.cookie,
            access.session(),
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    async def logout(request: Request) -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(access.cookie, httponly=True, samesite="strict")
        return answer

    return [Route("/login", login, methods=["GET", "POST"]), Route("/logout", logout, methods=["POST"])]


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
