"""Reads for the audit: where the operator asks for it, a page with recorded words is a command before it is shown."""

from __future__ import annotations

import re
from time import monotonic
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.jetstream.client import rejection
from adapters.web.viewer import access, visitor
from adapters.web.viewer.render import problem, tenant
from adapters.web.viewer.sender import NOT_SENT, address, browser, client, not_sent
from domain.access.tenant import TENANT_OR_HOUSE

AGAIN_S = 600.0
"""Time for which a page may be read again without another command, in seconds: pages reload their parts."""

MOST = 10_000
"""Maximum number of readings that are remembered."""

FREE = (*access.OPEN, *visitor.OWN, *visitor.NEEDS, "/metrics")
"""Paths without recorded words."""

_TRACE = re.compile(r"/traces/([^/]{1,255})(/.*)?")
_NOT_SOUGHT = frozenset({"tenant", "part", "version", "strip", "before", "after", "span", "fold", "unfold"})
"""Parameters of an address that choose a part of what was found."""


class Audited:
    """Sends `trace.open` or `trace.search` before a page is shown, and refuses what has no accepted outcome."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._read: dict[tuple[str, ...], float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._refusal(Request(scope, receive)) if scope["type"] == "http" else None
        await (answer or self.app)(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        path, of = request.scope["path"], tenant(request)
        if path == "/" or path.startswith(FREE) or not TENANT_OR_HOUSE.fullmatch(of):
            return None  # no row is of another tenant
        name, payload = reading(request)
        each = (of, address(request), browser(request), name, *payload.values())
        if self._read.get(each, 0.0) > monotonic():
            return None
        try:
            outcome = await (await client(request)).send(name, payload)
        except NOT_SENT as error:
            return not_sent(request, error)
        if outcome["status"] == "rejected":
            return problem(request, 403, "What you read is recorded, and this was rejected", rejection(outcome))
        if len(self._read) >= MOST:
            del self._read[next(iter(self._read))]
        self._read[each] = monotonic() + AGAIN_S
        return None


def reading(request: Request) -> tuple[str, dict[str, str]]:
    """The command of a request that reads, and its payload."""
    path = request.scope["path"]
    if found := _TRACE.fullmatch(path):
        return "trace.open", {"trace": found[1]}
    if path.startswith("/names/"):  # each letter that is typed asks for names
        return "trace.search", {"search": path}
    pairs = [(name, value) for name, value in request.query_params.multi_items() if name not in _NOT_SOUGHT and value]
    return "trace.search", {"search": f"{path}?{urlencode(pairs)}" if pairs else path}
