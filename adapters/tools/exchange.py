"""Requests to addresses that a toolset names, by the guarded transport, with the redirects that are safe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import httpx2

from adapters.egress.client import Egress, Refused, TooLarge
from handlers.ports.tools import ToolError

REDIRECTS = 5
"""Maximum number of redirects of a request that are followed; each address is checked like the first."""

CONNECT_S = 10.0
"""Time to connect, in seconds."""

CONNECTION = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "keep-alive"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers that a request has of itself, in lower case."""


class Request(NamedTuple):
    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    data: bytes
    url: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """`egress` has the rules for the addresses of tenants, `elsewhere` those for where their servers redirect to."""

    egress: Egress
    elsewhere: Egress

    async def __call__(self, tenant: str, request: Request, most: int) -> Answer:
        """The answer, of at most `most` bytes; one with an error status is cut off. Raises: ToolError, Refused."""
        try:
            return await self._followed(tenant, request, most)
        except TooLarge:
            raise ToolError("too_large", f"The answer has more than {most // 2**20} MiB.") from None
        except Refused:
            raise
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ValueError) as error:
            reason = "is compressed" if "compressed" in str(error) else f"does not arrive ({type(error).__name__})"
            raise ToolError("unreachable", f"The answer of the server {reason}.") from None

    async def _followed(self, tenant: str, request: Request, most: int) -> Answer:
        first = request
        for _ in range(REDIRECTS + 1):
            rules = self.egress if origin(request.url) == origin(first.url) else self.elsewhere
            async with rules.client(tenant, connect_s=CONNECT_S, most=most) as client:
                method, url, headers, content = request
                async with client.stream(method, url, headers=dict(headers), content=content) as answer:
                    target = answer.headers.get("location", "")
                    if not answer.is_redirect or not target:
                        return Answer(answer.status_code, answer.headers, await answer.aread(), url)
                    request = _redirected(first, request, answer.status_code, str(answer.url.join(target)))
        raise ToolError("unreachable", f"It was redirected more than {REDIRECTS} times.")


def _redirected(first: Request, request: Request, status: int, url: str) -> Request:
    """The request that follows a redirect; at another origin, one without headers and body. Raises: ToolError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or (request.url.startswith("https:") and parts.scheme == "http"):
        raise ToolError("unreachable", f"It is redirected to {parts.scheme[:20]}, which is not followed.")
    harmless = request.method in ("GET", "HEAD")
    again = harmless or status in (307, 308)
    if not again and status != 303:
        raise ToolError("bad_request", f"The server redirects with status {status}, which a {request.method} cannot.")
    headers = request.headers
    if origin(url) != origin(first.url):
        if again and not harmless:
            raise ToolError("unreachable", "It is redirected to another server, which does not get what was sent.")
        headers = {"Accept": request.headers.get("Accept", "*/*")}
    if again:
        return request._replace(url=url, headers=headers)
    kept = {name: value for name, value in headers.items() if name != "Content-Type"}
    return Request("GET", url, kept, None)


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


def is_field(text: str) -> bool:
    """True for a value that a header can have."""
    return text.isascii() and text.isprintable() and text == text.strip()


def with_query(url: str, name: str, value: str) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{quote(name, safe='')}={quote(value, safe='')}"
