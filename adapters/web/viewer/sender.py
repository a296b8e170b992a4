"""The sender of a request: its address and browser, and the client that sends its commands."""

from __future__ import annotations

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from adapters.jetstream.client import Client, NoOutcome, NotSent
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.render import problem, tenant
from adapters.web.viewer.visitor import known_visitor
from domain.access.actor import ANON, VIEWER
from handlers.ports.log import Unavailable

NOT_SENT = (Unavailable, NoOutcome, NotSent)
"""The errors of a command that was not sent, or has no outcome yet."""


def address(request: HTTPConnection) -> str:
    """The address of the peer: behind a proxy, that of the proxy."""
    return request.client.host if request.client else ""


def browser(request: HTTPConnection) -> str:
    """The browser or program, as it names itself."""
    return request.headers.get("user-agent", "")


async def client(request: Request, of: str = "", actor: str = "") -> Client:
    """The client that sends the commands of a page, with their origin. Raises: NotSent, Unavailable.

    They are about the tenant of the page, or another one; the actor is the visitor, or on a page that is open to all
    the door itself.
    """
    backend: Backend = request.app.state.backend
    who = known_visitor(request)
    of, actor = of or tenant(request), actor or (who.actor if who else ANON)
    origin = await backend.reports.origin(of, actor, address(request), browser(request))
    return Client(backend.nc, of, actor, door=VIEWER, origin=origin)


def not_sent(request: Request, error: Exception) -> Response:
    """The page for an error of `NOT_SENT`."""
    title = "The command was not sent" if isinstance(error, NotSent) else "The bus does not work as it should"
    return problem(request, 503, title, str(error))
