"""An invitation: its link leads here, to accept it with an account, or to make one."""

from __future__ import annotations

from math import ceil
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import Outcome, rejection
from adapters.privacy import api_keys, passwords
from adapters.privacy.api_keys import digest
from adapters.privacy.passwords import Busy, Weak
from adapters.web.viewer import access, people
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.render import render
from adapters.web.viewer.sender import client
from adapters.web.viewer.visitor import known_visitor
from domain.access.account import address
from domain.access.actor import ANON
from domain.access.tenant import HOUSE

_ENDED = "This invitation was used, withdrawn, or has ended: ask for another one."


async def show(request: Request) -> Response:
    return await _form(request, request.query_params.get("of", ""), request.query_params.get("secret", ""))


async def _form(
    request: Request, of: str, secret: str, wrong: str = "", status: int = 200, said: dict[str, str] | None = None
) -> Response:
    """The page of an invitation, or that there is none: guesses of secrets are slowed as those of tokens are."""
    state = request.app.state
    entries: access.Entries = state.entries
    if wait := entries.wait(request, "link"):
        body = {"invitation": None, "wrong": access.TOO_MANY.format(ceil(wait))}
        return render(request, "invitation.html", body, 429, headers=access.retry_after(wait))
    register = await state.backend.register()
    found = people.invitation(register.tenants.get(of), digest(secret))
    if found is None:
        entries.failed(request, "link")
        return render(request, "invitation.html", {"invitation": None, "wrong": wrong or _ENDED}, 404)
    who = known_visitor(request)
    here = api_keys.invitation_link("", of, secret)
    given: dict[str, Any] = {
        "invitation": found,
        "of": of,
        "secret": secret,
        "member": bool(who and who.account and register.role(of, who.account)),
        "sign_in": f"/login?{urlencode({'next': here})}",
        "wrong": wrong,
        "said": said or {},
        "shortest": passwords.SHORTEST,
    }
    return render(request, "invitation.html", given, status)


async def accept(request: Request) -> Response:
    """Accept an invitation: with the account that is signed in, else with one that is made here."""
    form, who = await fields(request), known_visitor(request)
    of, secret = text(form, "of"), text(form, "secret")
    register = await request.app.state.backend.register()
    if people.invitation(register.tenants.get(of), digest(secret)) is None:
        return await _form(request, of, secret)
    if who and who.account:
        return await _accepted(request, of, secret, who.account)
    return await _join(request, of, secret)


async def _join(request: Request, of: str, secret: str) -> Response:
    """Make an account, by this door: it has checked the invitation, and has a password's hash."""
    form = await fields(request)
    said = {name: text(form, name) for name in ("name", "email")}
    new, again = (str(form.get(name, "")) for name in ("new", "again"))
    if new != again:
        return await _form(request, of, secret, "The password was typed in two ways.", 400, said)
    try:
        hashed = await passwords.hash(new, address(said["email"]))
    except Weak as error:
        return await _form(request, of, secret, str(error), 400, said)
    except Busy as error:
        return await _form(request, of, secret, str(error), 503, said)
    outcome = await _send(request, "account.create", {**said, "password": hashed})
    if outcome["status"] == "rejected":
        return await _form(request, of, secret, rejection(outcome), 400, said)
    return await _accepted(request, of, secret, outcome["ids"]["account"], begins=True)


async def _accepted(request: Request, of: str, secret: str, id: str, *, begins: bool = False) -> Response:
    """Make the account a member, and with `begins` sign it in."""
    state = request.app.state
    outcome = await _send(request, "tenant.accept", {"tenant": of, "digest": digest(secret), "account": id})
    if outcome["status"] == "rejected":
        return await _form(request, of, secret, rejection(outcome), 400)
    await seen(state.backend, [outcome])
    goal = f"/account?{urlencode({'done': 'invitation', 'tenant': of})}"
    account = await people.account(state.backend, id)
    if begins and account:
        return await access.begin(request, goal, "password", account)
    return RedirectResponse(goal, 303)


async def _send(request: Request, name: str, payload: dict[str, Any]) -> Outcome:
    """Send as the door itself, which has checked what no permission of an account covers."""
    return await (await client(request, HOUSE, ANON)).send(name, payload)


routes = [Route("/invitation", show), Route("/invitation", accept, methods=["POST"])]
