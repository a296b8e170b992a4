"""Every route of the viewer, for every role, at its own tenant and at another one.

Nothing of the other is shown, and no command reaches it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
import pytest
from argon2 import PasswordHasher
from starlette.applications import Starlette
from starlette.routing import Route

from adapters.privacy import passwords
from adapters.web.viewer import visitor
from adapters.web.viewer.access import Access
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.server import create_app
from domain.access.permissions import ROLES
from domain.access.tenant import HOUSE
from domain.chat.file import file_id
from domain.log import OUTCOMES, Subject
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import TOKEN, Site, serving

MARK = "quokka"
"""A word that is in every text and name of the other tenant, and in nothing else."""

OTHER = f"{MARK}-tenant"

OPEN = {"/", "/healthz", "/login", "/static/{name}", "/invitation"}
"""Routes that are open to all, or lead to another."""

ROLES_OF_MEMBERS = (*ROLES, "outsider")


@dataclass
class Two:
    """A site with two tenants that hold the same, and ids of each by the name of a path's part."""

    site: Site
    own: dict[str, str] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    people: dict[str, httpx2.AsyncClient] = field(default_factory=dict)
    """A browser by role, each signed in."""


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "HASHER", PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1))
        yield


async def filled(site: Site, tenant: str, word: str) -> dict[str, str]:
    """A trace, a conversation, a budget, a key, a member and an invitation; gives their ids."""
    site.tenant = tenant
    owner = await site.account(f"owner-{word}@example.com", f"Owner {word}")
    await site.command("tenant.create", {"tenant": tenant, "name": f"Of {word}", "owner": owner})
    app = await site.app(f"{word} app", f"{word} instructions")
    talk = await site.conversation(app, f"user {word}", f"{word} talk")
    picture = f"a picture of a {word}".encode()
    trace, message, call = await site.answer(app, talk, f"{word} question", f"{word} answer", picture=picture)
    await site.answer(app, talk, f"{word} question", fails=(f"{word}_error", f"{word} reason"))
    await site.command(
        "budget.set", {"name": f"{word}-budget", "scope": "user", "subject": word, "amount_usd": 5.0}, tenant
    )
    server = {"name": f"{word}-budget", "base_url": f"https://{word}.example.com", "key": f"{word}-0123456789"}
    await site.command("provider.register", server, tenant)
    await site.command("model.set", {"provider": f"{word}-budget", "model": f"{word} model"}, tenant)
    key = {"name": f"{word} key", "digest": word.encode().hex().ljust(64, "0")[:64], "hint": "abcd"}
    made = await site.command("api_key.create", {**key, "permissions": ["chat"]}, tenant)
    tool = await site.tool(trace, message, app, talk, arguments=f'{{"city": "{word}"}}', picture=picture)
    flow, run = await site.flow(f"{word} flow", word)
    commits = await site.store.load(Subject(tenant, "conversation", talk.id))
    return {
        "flow": flow.id,
        "run": run.id,
        "id": trace,
        "call": call,
        "file": file_id(message, 0),
        "which": "answer",
        "tool": tool.id,
        "verb": "release",
        "talk": talk.id,
        "message": message,
        "name": f"{word}-budget",
        "key": made["ids"]["api_key"],
        "app": app.id,
        "owner": owner,
        "sequence": str(commits[0].position.sequence),
    }


@pytest.fixture(scope="module")
async def two(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Two]:
    async with serving(tmp_path_factory.mktemp("tenants"), lone_nats.url, module_database_url) as site:
        found, tenant = Two(site), site.tenant
        found.own = await filled(site, tenant, "wombat")
        found.other = await filled(site, OTHER, MARK)
        site.tenant = tenant
        for role in ROLES_OF_MEMBERS:
            email = f"{role}@example.com"
            account = await site.account(email, role)
            if role == "owner":
                await site.command("tenant.transfer", {"tenant": tenant, "account": account})
            elif role != "outsider":
                await site.command("tenant.add_member", {"tenant": tenant, "account": account, "role": role})
            found.people[role] = await site.sign_in(email)
        for role in ("owner", "viewer"):
            account = await site.account(f"house-{role}@example.com", f"house {role}")
            if role == "owner":
                await site.command("tenant.create", {"tenant": HOUSE, "name": "Us", "owner": account})
            else:
                await site.command("tenant.add_member", {"tenant": HOUSE, "account": account, "role": role})
            found.people[f"house {role}"] = await site.sign_in(f"house-{role}@example.com")
        await site.settled()
        yield found


def routes(site: Site) -> list[tuple[str, str]]:
    """Method and path of every route that is not open to all."""
    backend = Backend(site.wiring.nc, site.wiring.settings.postgres_url)
    app = cast(Starlette, cast(Any, create_app(backend, Access(TOKEN, b"key"))).app)
    found = [(method, route.path) for route in app.routes if isinstance(route, Route) for method in route.methods or ()]
    return sorted((method, path) for method, path in found if path not in OPEN and method != "HEAD")


def address(path: str, ids: Mapping[str, str]) -> str:
    """The address of a route with these ids."""
    part = {"/conversations": "talk", "/keys": "key"}.get("/" + path.split("/")[1], "id")
    for name in ("call", "file", "which", "name", "tool", "verb", "run"):
        path = path.replace(f"{{{name}}}", ids[name])
    path = path.replace("{app}", ids["flow"])
    path = path.replace("{id}", ids[part]).replace("{sequence:int}", ids["sequence"]).replace("{kind}", "app")
    return path.replace("{number:int}", "0")


FORM = {
    "name": "x",
    "permissions": "chat",
    "scope": "tenant",
    "amount_usd": "1",
    "rating": "like",
    "role": "viewer",
    "days": "1",
    "step": "ask",
    "action": "yes",
    "new": "x",
}


async def asked(
    client: httpx2.AsyncClient, method: str, path: str, ids: Mapping[str, str], **query: str
) -> tuple[int, str]:
    """The status and the text of a route; a form names everything that its tenant has."""
    form = FORM | {"message": ids["message"], "call": ids["call"], "account": ids["owner"], "token": ids["id"]}
    if path.endswith("/value"):
        query |= {"of": "inputs", "name": "place"}
    answer = await client.request(method, address(path, ids), params=query, data=form if method == "POST" else None)
    return answer.status_code, answer.text


async def state(site: Site) -> tuple[set[str], object]:
    """The commands that the other tenant ever had, and the tenant as the house has it."""
    info = await site.wiring.nc.jetstream().stream_info(OUTCOMES, subjects_filter=f"out.{OTHER}.*")
    tenant = (await site.register()).tenants[OTHER]
    return set(info.state.subjects or {}), vars(tenant)


@pytest.mark.parametrize("role", ROLES_OF_MEMBERS)
async def test_nothing_of_another_tenant_is_shown_or_changed(two: Two, role: str) -> None:
    client, before = two.people[role], await state(two.site)
    for method, path in routes(two.site):
        if path == "/logout" or (method == "POST" and path.startswith(visitor.OWN)):
            continue
        texts = method == "POST" or path.startswith("/log/") or path.endswith(("{which}", "/value"))
        for suffix in ("",) if texts else ("", ".json"):
            for ids in (two.other, two.own):  # at the other tenant, with its ids and with own ones
                status, text = await asked(client, method, path + suffix, ids, tenant=OTHER)
                assert MARK not in text.replace(OTHER, ""), (role, method, path)
                assert status == 403 or path.startswith(visitor.OWN), (role, method, path, status)
            # Ids of the other tenant, at the own one.
            status, text = await asked(client, method, path + suffix, two.other, tenant=two.site.tenant)
            assert MARK not in text.replace(two.other["name"], ""), (role, method, path)
    assert await state(two.site) == before


@pytest.mark.parametrize("role", ROLES_OF_MEMBERS)
async def test_a_role_opens_the_pages_that_it_has_the_permission_for(two: Two, role: str) -> None:
    client, may = two.people[role], ROLES.get(role, frozenset())
    for method, path in routes(two.site):
        if method != "GET":
            continue
        needed = next((needed for begin, needed in visitor.NEEDS.items() if path.startswith(begin)), "read")
        fits = path.startswith(visitor.OWN) or (needed in may and not path.startswith(visitor.OF_OPERATORS))
        status, _ = await asked(client, method, path, two.own, tenant=two.site.tenant)
        assert (status == 403) != fits, (role, path, status)
        if fits and "/compare" not in path:
            assert status in (200, 303), (role, path, status)


async def test_operators_see_every_tenant_and_only_owners_change_it(two: Two) -> None:
    for role in ("house owner", "house viewer"):
        client = two.people[role]
        for path in ("/traces", "/conversations", "/errors", "/sql", "/proof"):
            assert (await client.get(path, params={"tenant": OTHER})).status_code == 200, (role, path)
        assert MARK in (await client.get("/traces", params={"tenant": OTHER})).text
        shown = (await client.get("/members", params={"tenant": OTHER})).status_code
        assert shown == (200 if role == "house owner" else 403)
    form = {"rating": "like", "message": two.other["message"]}
    path = f"/conversations/{two.other['talk']}/rate"
    refused = await two.people["house viewer"].post(path, params={"tenant": OTHER}, data=form)
    assert (refused.status_code, "may not do this" in refused.text) == (400, True)
    assert (await two.people["house owner"].post(path, params={"tenant": OTHER}, data=form)).status_code == 303


async def test_commands_are_sent_as_the_account_and_refused_by_its_role(two: Two) -> None:
    """Also where a page offers no button."""
    form = {"rating": "like", "message": two.own["message"]}
    path = f"/conversations/{two.own['talk']}/rate"
    refused = await two.people["viewer"].post(path, data=form)
    assert (refused.status_code, "It needs &#39;chat&#39;" in refused.text) == (400, True)
    assert (await two.people["editor"].post(path, data=form)).status_code == 303
    rows = await two.site.json("/sql", query="SELECT actor, door, status FROM commands WHERE name = 'message.rate'")
    names = [row[0] for row in rows["rows"] if row[2] == "accepted"]
    assert names
    assert all(name.startswith("a_") for name in names)
    assert {row[1] for row in rows["rows"]} == {"viewer"}


@pytest.mark.parametrize(("role", "offered"), [("viewer", False), ("editor", True)])
async def test_buttons_show_where_the_role_may_press_them(two: Two, role: str, offered: bool) -> None:
    client = two.people[role]
    assert ("Fork from here" in (await client.get(f"/conversations/{two.own['talk']}")).text) == offered
    assert (">Replay<" in (await client.get(f"/traces/{two.own['id']}")).text) == offered
    assert "Set quota" not in (await client.get("/costs")).text
    page = (await client.get("/traces")).text
    assert 'href="/sql"' not in page
    assert 'href="/members"' not in page
    assert 'href="/account"' in page


async def test_a_member_learns_of_no_other_tenant(two: Two) -> None:
    client = two.people["owner"]
    names = (await client.get("/names/tenant.json", params={"tenant": ""})).json()
    assert [name["value"] for name in names["names"]] == [two.site.tenant]
    refused = [(await client.get("/traces", params={"tenant": tenant})) for tenant in (OTHER, "never-created")]
    assert [page.status_code for page in refused] == [403, 403]
    assert refused[0].text.replace(OTHER, "never-created") == refused[1].text
    costs = (await client.get("/costs", params={"by": "tenant"})).text
    assert MARK not in costs
    proof = (await client.get("/proof.json")).json()
    assert (proof["streams"], proof["exports"]) == ({}, [])


async def test_without_a_tenant_in_the_address_it_is_one_of_the_visitor(two: Two) -> None:
    site = two.site
    account = await site.account("elsewhere@example.com", "Elsewhere")
    await site.command("tenant.add_member", {"tenant": OTHER, "account": account, "role": "viewer"})
    client = await site.sign_in("elsewhere@example.com")
    page = await client.get("/traces")
    assert MARK in page.text
    assert f"tenant={OTHER}" in page.text
    assert "wombat" not in page.text
    outsider = await two.people["outsider"].get("/traces")
    assert (outsider.status_code, outsider.headers["location"]) == (303, "/account")
