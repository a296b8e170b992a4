"""The login of a person to an MCP server, by OAuth's authorization code with PKCE; the package `mcp` drives it.

The code comes back to an address of this machine. The issuer of the answer is checked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from adapters.egress.client import Egress
from adapters.tools.mcp import session
from adapters.tools.tokens import EARLY_S, USUAL_S, Login
from handlers.ports.tools import ToolError

CONNECT_S = 10.0
"""Time limit of a connection, in seconds."""

PATH = "/callback"

MOST_HEAD = 16 * 2**10
"""Maximum size of the head of a request of the browser, in bytes."""

PAGE = "Headrace has what it needs: close this page."

GRANTS = ["authorization_code", "refresh_token"]


@dataclass(slots=True)
class _Storage:
    """Tokens and client of one login, in memory."""

    client: OAuthClientInformationFull | None = None
    tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


async def login(
    egress: Egress,
    tenant: str,
    url: str,
    show: Callable[[str], None],
    *,
    client_id: str = "",
    client_secret: str = "",
    port: int = 0,
    timeout_s: float = 300.0,
) -> str:
    """Have a person log in at the address that `show` is given. Return the secret for auth `oauth`.

    Without a `client_id`, the client registers itself; `port` is where it is called back, 0 for any. Raises: ToolError.
    """
    began = time.time()
    try:
        async with asyncio.timeout(timeout_s), _callback(port) as (address, answers):
            provider, storage = _provider(url, address, answers, show, client_id, client_secret)
            await _connect(egress, tenant, url, provider)
    except TimeoutError:
        raise ToolError("timeout", f"There was no login within {timeout_s:g} s.") from None
    context, tokens, client = provider.context, storage.tokens, storage.client
    if tokens is None or client is None or context.oauth_metadata is None:
        raise ToolError("unsupported", "The server asks for no login, or says nothing of its server of tokens.")
    resource = context.should_include_resource_param(context.protocol_version)
    lifetime = tokens.expires_in if tokens.expires_in is not None else USUAL_S
    kept = Login(
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token or "",
        expires_at=began + max(lifetime - EARLY_S, 0.0),
        token_url=str(context.oauth_metadata.token_endpoint),
        client_id=client.client_id,
        client_secret=client.client_secret or "",
        method=client.token_endpoint_auth_method or "",
        resource=context.get_resource_url() if resource else "",
    )
    return json.dumps(kept)


def _provider(
    url: str,
    address: str,
    answers: asyncio.Queue[dict[str, str]],
    show: Callable[[str], None],
    client_id: str,
    client_secret: str,
) -> tuple[OAuthClientProvider, _Storage]:
    async def redirect(to: str) -> None:
        show(to)

    async def answered() -> AuthorizationCodeResult:
        given = await answers.get()
        if "code" not in given:
            reason = given.get("error_description") or given.get("error") or "no reason"
            raise ToolError("unauthorized", f"The login was refused: {reason[:300]}.")
        return AuthorizationCodeResult(code=given["code"], state=given.get("state"), iss=given.get("iss"))

    callback: Any = [AnyUrl(address)]
    storage = _Storage()
    method: Any = "client_secret_basic" if client_secret else "none"
    if client_id:
        storage.client = OAuthClientInformationFull(
            client_id=client_id,
            client_secret=client_secret or None,
            redirect_uris=callback,
            token_endpoint_auth_method=method,
        )
    wanted = OAuthClientMetadata(
        client_name="Headrace", redirect_uris=callback, grant_types=GRANTS, token_endpoint_auth_method=method
    )
    return OAuthClientProvider(url, wanted, storage, redirect, answered), storage


async def _connect(egress: Egress, tenant: str, url: str, provider: OAuthClientProvider) -> None:
    """List the tools, for which the server asks for the login. Raises: ToolError."""

    def make() -> Any:
        client = egress.client(tenant, connect_s=CONNECT_S, most=session.MOST_BYTES)
        client.auth = provider
        return client

    http = session.Http(make, url, None)
    try:
        async with http.connected() as client:
            await session.tools(client)
    except Exception as error:
        raise session.login_fault(error, http.status) from None


@asynccontextmanager
async def _callback(port: int) -> AsyncIterator[tuple[str, asyncio.Queue[dict[str, str]]]]:
    """An address of this machine, and the parameters that a browser is sent back to it with."""
    answers: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
            target = urlsplit(head.partition(" ")[2].partition(" ")[0])
            found = head.startswith("GET ") and target.path == PATH
            if found:
                answers.put_nowait({name: values[0] for name, values in parse_qs(target.query).items()})
            body = PAGE if found else "There is nothing here."
            status = "200 OK" if found else "404 Not Found"
            fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
            writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}".encode())
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port, limit=MOST_HEAD) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{PATH}", answers
