"""The visitor's own account: name, password, and the browsers that are signed in."""

from __future__ import annotations

import asyncio
from math import ceil
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.jetstream.sessions import Session, Sessions
from adapters.privacy import passwords
from adapters.privacy.passwords import Busy, Weak
from adapters.web.viewer import access, people
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.render import as_json, link, render, wants_json
from adapters.web.viewer.sender import client
from adapters.web.viewer.visitor import visitor
from domain.access.tenant import HOUSE

_ACCOUNT = "SELECT name, email FROM headrace.accounts WHERE id = %(id)s"


async def show(request: Request, wrong: str = "", status: int = 400) -> Response:
    backend: Backend = request.app.state.backend
    who = visitor(request)
    sessions, account = await asyncio.gather(
        Sessions(backend.nc).open(who.actor),
        backend.row(_ACCOUNT, {"id": who.account}) if who.account else _none(),
    )
    sessions.sort(key=lambda session: session.used_at, reverse=True)
    own = who.session.id if who.session else ""
    roles = who.register.tenants_of(who.account)
    if wants_json(request):
        listed = [_written(session) for session in sessions]
        body = {"account": who.account or None, **(account or {}), "roles": roles, "sessions": listed}
        return as_json(body | {"error": wrong or None}, status if wrong else 200)
    given: dict[str, Any] = {
        "person": account or {"name": "", "email": ""},
        "roles": sorted(roles.items()),
        "sessions": sessions,
        "own": own,
        "wrong": wrong,
        "shortest": passwords.SHORTEST,
        "done": request.query_params.get("done", ""),
    }
    return render(request, "account.html", given, status if wrong else 200)


async def _none() -> None:
    return None


def _written(session: Session) -> dict[str, Any]:
    names = ("id", "began_at", "used_at", "ends_at", "address", "browser")
    return {name: getattr(session, name) for name in names}


async def rename(request: Request) -> Response:
    form = await fields(request)
    outcome = await (await client(request, HOUSE)).send(
        "account.rename", {"account": visitor(request).account, "name": text(form, "name")}
    )
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    await seen(request.app.state.backend, [outcome])
    return RedirectResponse(link(request, "/account", done="name"), 303)


async def change_password(request: Request) -> Response:
    """Change the password, which ends every session, and begin another one for this browser."""
    backend: Backend = request.app.state.backend
    state = request.app.state
    who, form = visitor(request), await fields(request)
    row = await backend.row(_ACCOUNT, {"id": who.account}) or {}
    old, new, again = (str(form.get(name, "")) for name in ("old", "new", "again"))
    email, entries = row.get("email", ""), state.entries
    if wait := entries.wait(request, "password", email):
        return await show(request, access.TOO_MANY.format(ceil(wait)), 429)
    if new != again:
        return await show(request, "The new password was typed in two ways.")
    try:
        with entries.trying(request, email):
            known = await people.account(backend, who.account)
            if known is None or not await passwords.check(old, known.password):
                entries.failed(request, "password", email)
                return await show(request, "The present password is wrong.", 403)
        hashed = await passwords.hash(new, email)
    except Weak as error:
        return await show(request, str(error))
    except Busy as error:
        return await show(request, str(error), 503)
    outcome = await (await client(request, HOUSE)).send(
        "account.change_password", {"account": who.account, "password": hashed}
    )
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    return await _begin_again(request, "password")


async def end(request: Request) -> Response:
    """End one session of the visitor."""
    sessions, form = Sessions(request.app.state.backend.nc), await fields(request)
    for session in await sessions.open(visitor(request).actor):
        if session.id == text(form, "session"):
            await sessions.end(session.id)
    return RedirectResponse(link(request, "/account"), 303)


async def end_others(request: Request) -> Response:
    """End every session but this one: by an event, so that every viewer refuses them at once."""
    who = visitor(request)
    if not who.account:
        own = [who.session.id] if who.session else []
        await Sessions(request.app.state.backend.nc).end_all(who.actor, but=own)
        return RedirectResponse(link(request, "/account", done="sessions"), 303)
    outcome = await (await client(request, HOUSE)).send("account.sign_out", {"account": who.account})
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    return await _begin_again(request, "sessions")


async def _begin_again(request: Request, done: str) -> Response:
    """A new session for this browser, in place of those that an event has ended, whose entries go."""
    state, who = request.app.state, visitor(request)
    account = await people.account(state.backend, who.account)
    assert account is not None
    await Sessions(state.backend.nc).end_all(who.actor, before=account.signed_out_at)
    return await access.begin_session(request, f"/account?done={done}", account)


routes = [
    Route("/account", show),
    Route("/account/name", rename, methods=["POST"]),
    Route("/account/password", change_password, methods=["POST"]),
    Route("/account/sessions/end", end, methods=["POST"]),
    Route("/account/sessions/end-others", end_others, methods=["POST"]),
]
