"""The login of a person to an MCP server, and tokens that are renewed: with a real server of OAuth."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from adapters.egress.addresses import allowances
from adapters.egress.client import Egress
from adapters.tools.mcp.login import login
from adapters.tools.mcp.processes import Processes
from adapters.tools.mcp.toolbox import McpToolboxes
from domain.tools.toolset import Toolset
from handlers.ports.tools import ToolError
from handlers.tools.renew_secret import RenewSecret
from tests.adapters.tools.mcp.servers import Recording, server, serving
from tests.adapters.tools.mcp.test_toolbox import _no_sandbox, call
from tests.handlers.desk import Desk
from tests.memory import Memory


class Authority:
    """A server of OAuth: clients register, people agree at once, codes and refresh tokens are good for one use."""

    def __init__(self) -> None:
        self.url = ""
        self.resource = ""
        self.issuer: str | None = None
        self.denies = False
        self.lifetime = 3600
        self.codes: dict[str, dict[str, str]] = {}
        self.valid: set[str] = set()
        self.refresh = ""
        self.grants: list[str] = []

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/oauth-authorization-server", self.metadata),
                Route("/register", self.register, methods=["POST"]),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
            ]
        )

    async def metadata(self, request: Request) -> Response:
        ends = {f"{name}_endpoint": f"{self.url}/{path}" for name, path in (("authorization", "authorize"),)}
        ends |= {"token_endpoint": f"{self.url}/token", "registration_endpoint": f"{self.url}/register"}
        supported = {"response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"]}
        parameter = {"authorization_response_iss_parameter_supported": True}
        return JSONResponse({"issuer": self.url, **ends, **supported, **parameter})

    async def register(self, request: Request) -> Response:
        return JSONResponse({**await request.json(), "client_id": "client-1"}, 201)

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")
        if self.denies:
            return RedirectResponse(f"{asked['redirect_uri']}?error=access_denied&state={asked['state']}", 302)
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        given = {"code": code, "state": asked["state"], "iss": self.issuer or self.url}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(given)}", 302)

    async def token(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.grants.append(form["grant_type"])
        if form["grant_type"] == "authorization_code":
            asked = self.codes.pop(form["code"])
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        elif form["refresh_token"] != self.refresh:
            return JSONResponse({"error": "invalid_grant"}, 400)
        number = len(self.grants)
        self.refresh = f"refresh-token-{number}"
        self.valid = {f"access-token-{number}"}
        token = {"access_token": f"access-token-{number}", "token_type": "Bearer", "expires_in": self.lifetime}
        return JSONResponse({**token, "refresh_token": self.refresh})


@asynccontextmanager
async def protected() -> AsyncIterator[tuple[Authority, str, Egress]]:
    """A server whose tools need a login, its address, and the way to both."""
    authority = Authority()
    inner = server().streamable_http_app()

    async def resource(request: Request) -> Response:
        return JSONResponse({"resource": authority.resource, "authorization_servers": [authority.url]})

    inner.router.routes.insert(0, Route("/.well-known/oauth-protected-resource/mcp", resource))
    app = Recording(inner)

    def refuses(headers: dict[str, str]) -> int:
        path_is_open = "authorization" not in headers and app.requests[-1][0] == "GET"
        allowed = headers.get("authorization", "").removeprefix("Bearer ") in authority.valid
        return 0 if path_is_open or allowed else 401

    app._refuses = refuses
    async with serving(app) as port, serving(authority.app) as other:
        authority.url, authority.resource = f"http://127.0.0.1:{other}", f"http://127.0.0.1:{port}/mcp"
        yield authority, authority.resource, Egress(allowances(f"127.0.0.1:{port},127.0.0.1:{other}"))


def browser(tasks: list[asyncio.Task[None]]) -> Any:
    """Opens the address as a browser does."""

    async def open_page(address: str) -> None:
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=True) as client:
            assert (await client.get(address)).text.startswith("Headrace has")

    return lambda address: tasks.append(asyncio.ensure_future(open_page(address)))


async def test_a_person_logs_in_and_the_tokens_are_renewed(tenant: str) -> None:
    tasks: list[asyncio.Task[None]] = []
    desk = Desk(Memory(), tenant)
    async with protected() as (authority, url, egress):
        secret = await login(egress, "acme", url, browser(tasks), timeout_s=20)
        await asyncio.gather(*tasks)
        kept = json.loads(secret)
        assert (kept["access_token"], kept["refresh_token"]) == ("access-token-1", "refresh-token-1")
        assert (kept["client_id"], kept["token_url"]) == ("client-1", f"{authority.url}/token")
        assert kept["expires_at"] == pytest.approx(time.time() + 3570, abs=60)
        mcp = {"url": url, "auth": {"type": "oauth"}}
        await desk.done("toolset.register", name="station", kind="mcp", mcp=mcp, secret=secret)
        renew = RenewSecret(desk.repository, desk.vault, desk.keys)
        makes = McpToolboxes(egress, desk.vault.open, Processes(_no_sandbox, {}), renew)

        async def box() -> Any:
            toolset = await desk.fold("toolset", "station")
            assert isinstance(toolset, Toolset)
            return makes(tenant, toolset)

        assert (await call(await box(), "add", a=1, b=1)).text == "2"
        authority.valid.clear()  # the server forgets its tokens
        old = await box()
        both = await asyncio.gather(call(old, "add", a=1, b=2), call(old, "add", a=2, b=2))
        assert [result.text for result in both] == ["3", "4"]
        assert (await call(await box(), "add", a=3, b=3)).text == "6"
        assert authority.grants == ["authorization_code", "refresh_token"]
        types = await desk.types("toolset", "station")
        assert types[-1] == "toolset.changed.v1"
        authority.valid.clear()
        authority.refresh = "another"
        with pytest.raises(ToolError) as raised:
            await call(await box(), "add", a=1, b=1)
    assert (raised.value.code, "expired" in raised.value.reason) == ("unauthorized", True)
    events = [vars(event) for event in await desk.events("toolset", "station")]
    assert "access-token" not in json.dumps(events, default=str)


async def test_an_answer_of_another_issuer_is_refused() -> None:
    tasks: list[asyncio.Task[None]] = []
    async with protected() as (authority, url, egress):
        authority.issuer = "https://elsewhere.example"
        with pytest.raises(ToolError) as raised:
            await login(egress, "acme", url, browser(tasks), timeout_s=20)
        await asyncio.gather(*tasks)
        assert authority.grants == []
    assert (raised.value.code, "iss" in raised.value.reason) == ("unauthorized", True)


async def test_a_person_who_refuses_is_not_logged_in() -> None:
    tasks: list[asyncio.Task[None]] = []
    async with protected() as (authority, url, egress):
        authority.denies = True
        with pytest.raises(ToolError) as raised:
            await login(egress, "acme", url, browser(tasks), timeout_s=20)
        await asyncio.gather(*tasks)
    assert (raised.value.code, raised.value.reason) == ("unauthorized", "The login was refused: access_denied.")


async def test_a_login_that_does_not_come_ends() -> None:
    shown: list[str] = []
    async with protected() as (_, url, egress):
        with pytest.raises(ToolError, match="no login"):
            await login(egress, "acme", url, shown.append, timeout_s=1)
    asked = parse_qs(urlsplit(shown[0]).query)
    assert asked["redirect_uri"][0].startswith("http://127.0.0.1:")
    assert asked["resource"] == [url]


async def test_a_server_without_a_login_is_refused() -> None:
    async with serving(server().streamable_http_app()) as port:
        egress, shown = Egress(allowances(f"127.0.0.1:{port}")), list[str]()
        with pytest.raises(ToolError) as raised:
            await login(egress, "acme", f"http://127.0.0.1:{port}/mcp", shown.append, timeout_s=20)
    assert raised.value.code == "unsupported"
