"""Responses of pages: HTML by templates, or the same content as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlencode

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from adapters.web.viewer import assets
from adapters.web.viewer.format import FILTERS, percent, plural
from adapters.web.viewer.visitor import known_visitor

NAVIGATION = (
    ("Traces", "/traces"),
    ("Conversations", "/conversations"),
    ("Annotations", "/annotations"),
    ("Errors", "/errors"),
    ("Costs", "/costs"),
    ("Models", "/models"),
    ("Tools", "/tools"),
    ("Plugins", "/plugins"),
    ("Workflows", "/workflows"),
    ("Proof", "/proof"),
    ("SQL", "/sql"),
    ("Audit", "/audit"),
)

PEOPLE = (("Members", "/members"), ("API keys", "/keys"), ("Account", "/account"))
"""Pages that a machine without accounts does not offer."""


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("adapters.web.viewer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= FILTERS
    made.globals |= {"static": assets.url, "percent": percent, "plural": plural}
    return made


def tenant(request: Request) -> str:
    """The tenant of the page; on a page that is open to all, the default of the viewer."""
    found = known_visitor(request)
    return found.tenant if found else str(request.app.state.backend.tenant)


def link(request: Request, path: str, query: Mapping[str, Any] | None = None, /, **more: Any) -> str:
    """A path with a query, without None and empty values, and with the tenant unless it is the default."""
    backend = getattr(request.app.state, "backend", None)
    named = {**(query or {}), **more}
    if backend and "tenant" not in named and (own := tenant(request)) != backend.tenant:
        named["tenant"] = own
    pairs = [(name, value) for name, value in named.items() if value not in (None, "", [], ())]
    return f"{path}?{urlencode(pairs, doseq=True)}" if pairs else path


def render(
    request: Request,
    template: str,
    context: Mapping[str, Any] | None = None,
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """The page; templates have `request`, `link(path, name=value)`, `tenant`, `shared` and `may(permission)`, too."""
    backend = getattr(request.app.state, "backend", None)

    def linked(path: str, query: Mapping[str, Any] | None = None, /, **more: Any) -> str:
        return link(request, path, query, **more)

    who = known_visitor(request)
    pages = (*NAVIGATION, *(PEOPLE if who and who.register.accounts else ()))
    given = {
        "request": request,
        "navigation": [(name, path) for name, path in pages if who and not who.refusal(path)],
        "may": who.may if who else lambda _: False,
        "is_operator": bool(who and who.is_operator),
        "account": who.account if who else "",
        "here": request.url.path,
        "link": linked,
        "tenant": tenant(request) if backend else "",
        "own_tenant": backend.tenant if backend else "",
        "shared": getattr(request.state, "shared", False),
    }
    html = environment().get_template(template).render(given | dict(context or {}))
    return HTMLResponse(html.encode("utf-8", "replace"), status, headers=headers)


def wants_json(request: Request) -> bool:
    """True for programs: the path ended in `.json`, or the request has `Accept: application/json`."""
    accept = request.headers.get("accept", "")
    return bool(getattr(request.state, "json", False)) or accept.partition(",")[0].strip() == "application/json"


def as_json(value: Any, status: int = 200) -> Response:
    body = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, media_type="application/json")


def problem(request: Request, status: int, title: str, advice: str, *, retry: bool = False) -> Response:
    """A page that states a problem, and what to do."""
    if wants_json(request):
        return as_json({"error": title, "advice": advice}, status)
    return render(request, "problem.html", {"title": title, "advice": advice, "retry": retry, "status": status}, status)
