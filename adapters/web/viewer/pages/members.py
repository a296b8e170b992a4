"""Members of the tenant: their roles, and invitations, whose links are shown once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.privacy.api_keys import digest, invitation_link, new_invitation
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from adapters.web.viewer.visitor import visitor
from domain.access.tenant import GIVEN_ROLES, HOUSE

LIFETIMES = {"1": "a day", "3": "3 days", "7": "a week", "30": "30 days"}
"""Lifetimes of an invitation, in days."""

PAGE = 100
"""Number of members per page."""

_MEMBERS = """
SELECT j.account_id, j.role, j.created_at, a.name, a.email, a.kind, a.status FROM headrace.tenant_account_joins j
LEFT JOIN headrace.accounts a ON a.id = j.account_id
WHERE j.tenant_id = %(tenant)s AND (%(after)s = '' OR j.account_id > %(after)s)
ORDER BY j.account_id LIMIT {limit}
"""

_INVITATIONS = """
SELECT id, role, created_by, created_at, ends_at FROM headrace.tenant_invitations
WHERE tenant_id = %(tenant)s AND status = 'open' AND ends_at > now() ORDER BY created_at DESC
"""

_TENANT = "SELECT id, name, status FROM headrace.tenants WHERE id = %(tenant)s"


async def show(request: Request, wrong: str = "", made: str = "") -> Response:
    backend: Backend = request.app.state.backend
    values = {"tenant": tenant(request), "after": request.query_params.get("after", "").replace("\0", "")}
    known, found, invitations = await asyncio.gather(
        backend.row(_TENANT, values),
        backend.rows(_MEMBERS.format(limit=PAGE + 1), values),
        backend.rows(_INVITATIONS, values),
    )
    members: list[Row] = found[:PAGE]
    after = members[-1]["account_id"] if len(found) > PAGE else None
    if wants_json(request):
        body = {"tenant": known, "members": members, "after": after, "invitations": invitations}
        return as_json(body | {"error": wrong or None}, 400 if wrong else 200)
    given: dict[str, Any] = {
        "known": known,
        "members": members,
        "after": after,
        "invitations": invitations,
        "roles": GIVEN_ROLES,
        "lifetimes": LIFETIMES,
        "own": visitor(request).account,
        "made": made,
        "wrong": wrong,
        "now": datetime.now(UTC),
    }
    return render(request, "members.html", given, 400 if wrong else 200)


async def invite(request: Request) -> Response:
    """Make the secret of an invitation here: only its SHA-256 is sent, and the link is shown once."""
    form = await fields(request)
    days = int(text(form, "days")) if text(form, "days") in LIFETIMES else 7
    secret = new_invitation()
    ends_at = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    payload = {"digest": digest(secret), "role": text(form, "role"), "ends_at": ends_at}
    outcome = await (await client(request, HOUSE)).send("tenant.invite", {"tenant": tenant(request), **payload})
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    await seen(request.app.state.backend, [outcome])
    made = invitation_link(str(request.base_url), tenant(request), secret)
    if wants_json(request):
        return as_json({"link": made, "ends_at": ends_at})
    return await show(request, made=made)


async def set_role(request: Request) -> Response:
    form = await fields(request)
    return await _changed(request, "tenant.set_role", {"account": text(form, "account"), "role": text(form, "role")})


async def remove(request: Request) -> Response:
    form = await fields(request)
    return await _changed(request, "tenant.remove_member", {"account": text(form, "account")})


async def withdraw(request: Request) -> Response:
    form = await fields(request)
    return await _changed(request, "tenant.withdraw", {"digest": text(form, "invitation")})


async def _changed(request: Request, command: str, payload: Row) -> Response:
    outcome = await (await client(request, HOUSE)).send(command, {"tenant": tenant(request), **payload})
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    await seen(request.app.state.backend, [outcome])
    return RedirectResponse(link(request, "/members"), 303)


routes = [
    Route("/members", show),
    Route("/members/invite", invite, methods=["POST"]),
    Route("/members/role", set_role, methods=["POST"]),
    Route("/members/remove", remove, methods=["POST"]),
    Route("/members/withdraw", withdraw, methods=["POST"]),
]
