"""Requests of workflows, from public addresses and those that an operator allows; each redirect is checked."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import httpx2

from adapters.egress.client import Egress, GuardedClient, Refused, TooLarge
from handlers.ports.http import NoResponse, Response, Sending

REDIRECTS = 10
"""Maximum number of redirects that are followed."""

_BODILESS = {"content-length", "content-type", "transfer-encoding"}
_OF_ORIGIN = {"authorization", "cookie"}
"""Headers that another server does not get."""


class GuardedHttp:
    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def __call__(self, tenant: str, sending: Sending, most: int) -> Response:
        try:
            async with self._egress.client(tenant, connect_s=sending.connect_s, most=most) as client:
                return await _sent(client, sending)
        except (TimeoutError, httpx2.TimeoutException):
            raise NoResponse("timeout", "The server did not respond in time.") from None
        except TooLarge:
            raise NoResponse("too_large", f"The response exceeds {most:,} bytes.") from None
        except Refused as error:
            raise NoResponse("unreachable", f"The address may not be called: {error}"[:500]) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, UnicodeError) as error:
            raise NoResponse(
                "unreachable", f"The server does not respond: {error or type(error).__name__}"[:500]
            ) from None


async def _sent(client: GuardedClient, sending: Sending) -> Response:
    """Raises: NoResponse, and errors of the client."""
    request = _request(client, sending)
    async with asyncio.timeout(sending.read_s + sending.write_s + sending.connect_s):
        for _ in range(REDIRECTS + 1):
            response = await client.send(request, stream=True)
            try:
                target = response.headers.get("location") if response.is_redirect else None
                if target is None:
                    return Response(response.status_code, dict(response.headers.items()), await response.aread())
                request = _redirected(client, request, response.status_code, target)
            finally:
                await response.aclose()
    raise NoResponse("unreachable", f"It was redirected more than {REDIRECTS} times.")


def _request(client: GuardedClient, sending: Sending) -> httpx2.Request:
    url = httpx2.URL(sending.url).copy_with(fragment=None)
    if sending.params:
        url = url.copy_with(query=urlencode(sending.params).encode())
    body: dict[str, Any] = {"content": sending.content}
    headers = dict(sending.headers)
    if sending.multipart:
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        files = [(each.field, (each.name, each.data, each.media_type)) for each in sending.uploads]
        body = {"files": [*((name, (None, value.encode())) for name, value in sending.fields), *files]}
    elif sending.fields:
        body = {"content": urlencode(sending.fields).encode()}
    timeout = httpx2.Timeout(None, connect=sending.connect_s, read=sending.read_s, write=sending.write_s)
    return client.build_request(sending.method, url, headers=headers, timeout=timeout, **body)


def _redirected(client: GuardedClient, request: httpx2.Request, status: int, target: str) -> httpx2.Request:
    """The request that follows a redirect; as browsers do it, a POST becomes a GET. Raises: NoResponse."""
    url = request.url.join(target).copy_with(fragment=None)
    if url.scheme not in ("http", "https") or (request.url.scheme == "https" and url.scheme == "http"):
        raise NoResponse("unreachable", f"It is redirected to {url.scheme}, which is not followed.")
    kept = status in (307, 308) or request.method in ("GET", "HEAD")
    dropped = {"host", *(() if kept else _BODILESS), *(() if _same(request.url, url) else _OF_ORIGIN)}
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped]
    method = request.method if kept else "GET"
    content = request.content if kept else None
    return client.build_request(method, url, headers=headers, content=content, extensions=request.extensions)


def _same(one: httpx2.URL, other: httpx2.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
