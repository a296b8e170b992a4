"""People with accounts in the viewer: they sign in, see what their role lets them, and are out within a second."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from time import monotonic
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher

from adapters.jetstream.key_uses import JetStreamKeyUses
from adapters.jetstream.sessions import Sessions
from adapters.privacy import passwords
from adapters.web.viewer import guesses
from domain.access.account import Account
from domain.access.tenant import HOUSE
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import PASSWORD, Site, serving, text_of

NAMES = ("owner", "admin", "viewer", "other", "op")
OWNER, ADMIN, VIEWER, OUTSIDER, OPERATOR = (f"{name}@example.com" for name in NAMES)
CHEAP = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    """Passwords that take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "HASHER", CHEAP)
        passwords._unmatched.cache_clear()
        yield
    passwords._unmatched.cache_clear()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of other tests make none of them wait."""
    for name in ("FREE", "FREE_OF_ACCOUNT", "FREE_IN_ALL"):
        monkeypatch.setattr(guesses, name, 100_000)


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("people"), lone_nats.url, module_database_url) as served:
        owner, admin, viewer, outsider, operator = [
            await served.account(email, email.partition("@")[0].title())
            for email in (OWNER, ADMIN, VIEWER, OUTSIDER, OPERATOR)
        ]
        await served.command("tenant.create", {"tenant": "_house", "name": "Us", "owner": operator})
        await served.command("tenant.create", {"tenant": served.tenant, "name": "Acme", "owner": owner})
        await served.command("tenant.create", {"tenant": "other", "name": "Other", "owner": outsider})
        await served.command("tenant.add_member", {"tenant": served.tenant, "account": admin, "role": "admin"})
        await served.command("tenant.add_member", {"tenant": served.tenant, "account": viewer, "role": "viewer"})
        await served.settled()
        yield served


async def fresh(site: Site, name: str, role: str = "viewer") -> tuple[str, str]:
    """A new member: account and address."""
    email = f"{name}@example.com"
    account = await site.account(email, name.title())
    await site.command("tenant.add_member", {"tenant": site.tenant, "account": account, "role": role})
    return account, email


async def status(client: httpx2.AsyncClient, path: str = "/traces") -> int:
    return (await client.get(path)).status_code


# --- signing in -----------------------------------------------------------------------------------------------


async def test_with_accounts_the_form_asks_for_an_address_and_a_password(site: Site) -> None:
    page = (await site.browser().get("/login")).text
    assert 'name="email"' in page
    assert 'name="token"' in page


async def test_a_person_signs_in_and_out(site: Site) -> None:
    client = await site.sign_in(f" {OWNER.upper()} ", **{"User-Agent": "Mozilla of the tests"})
    page = await client.get("/traces")
    assert page.status_code == 200
    account = text_of((await client.get("/account")).text)
    assert "Owner owner@example.com" in account
    assert "Mozilla of the tests 127.0.0.1 this one" in account
    assert (await client.post("/logout")).status_code == 303
    assert await status(client) == 303


@pytest.mark.parametrize(
    ("email", "password"), [(OWNER, "not my geese"), ("unknown@example.com", PASSWORD), (OWNER, "")]
)
async def test_a_wrong_password_and_an_unknown_address_get_one_answer(site: Site, email: str, password: str) -> None:
    client = site.browser()
    answer = await client.post("/login", data={"email": email, "password": password, "next": "/costs"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "The e-mail address or the password is wrong." in answer.text
    assert password not in answer.text or not password
    assert 'value="/costs"' in answer.text


async def test_no_disabled_and_no_erased_account_signs_in(site: Site) -> None:
    for command in ("account.disable", "account.erase"):
        account, email = await fresh(site, f"gone-{command[-3:]}")
        await site.command(command, {"account": account})
        answer = await site.browser().post("/login", data={"email": email, "password": PASSWORD})
        assert answer.status_code == 403, command


async def test_a_password_of_older_parameters_is_hashed_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    account, email = await fresh(site, "old")
    monkeypatch.setattr(passwords, "HASHER", PasswordHasher(time_cost=2, memory_cost=1024, parallelism=1))
    client = await site.sign_in(email)
    assert await status(client) == 200
    kept = await site.wiring.repository.get(Account, HOUSE, account)
    assert kept
    assert "t=2" in kept.password
    await site.sign_in(email)
    later = await site.wiring.repository.get(Account, HOUSE, account)
    assert later
    assert later.password == kept.password


async def test_the_token_and_a_link_go_on_working_for_the_operator(site: Site) -> None:
    assert "You are logged in as the operator" in text_of(await site.get("/account"))
    client = site.browser()
    assert (await client.get(await Sessions(site.wiring.nc).link(site.url))).status_code == 303
    assert await status(client, "/traces?tenant=other") == 200


# --- out within a second --------------------------------------------------------------------------------------


async def out(client: httpx2.AsyncClient) -> float:
    """Seconds until the session is refused."""
    began = monotonic()
    while await status(client) != 303:
        assert monotonic() - began < 5
        await asyncio.sleep(0.01)
    return monotonic() - began


@pytest.mark.parametrize("command", ["account.disable", "account.sign_out", "account.erase", "account.change_password"])
async def test_what_ends_sessions_ends_them_within_a_second(site: Site, command: str) -> None:
    account, email = await fresh(site, f"out-{command.partition('.')[2].replace('_', '-')}")
    clients = [await site.sign_in(email) for _ in range(2)]
    assert [await status(client) for client in clients] == [200, 200]
    hashed = {"password": await passwords.hash("another good one")} if "password" in command else {}
    await site.command(command, {"account": account, **hashed})
    assert max([await out(client) for client in clients]) < 1
    sessions = Sessions(site.wiring.nc)
    async with asyncio.timeout(5):
        while await sessions.open(f"a_{account}"):  # the work of the workers deletes the entries
            await asyncio.sleep(0.02)


async def test_a_role_that_was_taken_away_shows_nothing_within_a_second(site: Site) -> None:
    account, email = await fresh(site, "left")
    client = await site.sign_in(email)
    assert await status(client, f"/traces?tenant={site.tenant}") == 200
    await site.command("tenant.remove_member", {"tenant": site.tenant, "account": account})
    began = monotonic()
    while await status(client, f"/traces?tenant={site.tenant}") != 403:
        await asyncio.sleep(0.01)
        assert monotonic() - began < 1
    assert await status(client, "/account") == 200


async def test_a_person_ends_other_sessions(site: Site) -> None:
    _, email = await fresh(site, "many")
    one, two, three = [await site.sign_in(email, **{"User-Agent": f"browser {number}"}) for number in range(3)]
    listed = (await one.get("/account", headers={"Accept": "application/json"})).json()["sessions"]
    assert sorted(each["browser"] for each in listed) == ["browser 0", "browser 1", "browser 2"]
    [second] = [each["id"] for each in listed if each["browser"] == "browser 1"]
    assert (await one.post("/account/sessions/end", data={"session": second})).status_code == 303
    assert [await status(client) for client in (one, two, three)] == [200, 303, 200]
    assert (await one.post("/account/sessions/end-others")).status_code == 303
    assert [await status(client) for client in (one, two, three)] == [200, 303, 303]


async def test_a_person_ends_no_session_of_another(site: Site) -> None:
    victim = await site.sign_in(OWNER)
    [listed, *_] = (await victim.get("/account", headers={"Accept": "application/json"})).json()["sessions"]
    other = await site.sign_in(VIEWER)
    await other.post("/account/sessions/end", data={"session": listed["id"]})
    assert await status(victim) == 200


async def test_a_person_changes_the_password(site: Site) -> None:
    _, email = await fresh(site, "changer")
    one, two = await site.sign_in(email), await site.sign_in(email)

    async def change(old: str, new: str, again: str) -> httpx2.Response:
        return await one.post("/account/password", data={"old": old, "new": new, "again": again})

    assert "present password is wrong" in (await change("no", "x" * 12, "x" * 12)).text
    assert "two ways" in (await change(PASSWORD, "ten red cows moo", "ten red cows")).text
    assert "at least 12" in (await change(PASSWORD, "short", "short")).text
    assert "most common" in (await change(PASSWORD, "passwordpassword", "passwordpassword")).text
    changed = await change(PASSWORD, "ten red cows moo", "ten red cows moo")
    assert (changed.status_code, changed.headers["location"]) == (303, "/account?done=password")
    assert [await status(client) for client in (one, two)] == [200, 303]
    assert (await site.browser().post("/login", data={"email": email, "password": PASSWORD})).status_code == 403
    await site.sign_in(email, "ten red cows moo")


async def test_a_person_changes_the_name(site: Site) -> None:
    _, email = await fresh(site, "namer")
    client = await site.sign_in(email)
    assert (await client.post("/account/name", data={"name": "Grace <b>"})).status_code == 303
    page = (await client.get("/account")).text
    assert "Grace &lt;b&gt;" in page
    refused = await client.post("/account/name", data={"name": " "})
    assert (refused.status_code, "Must not be blank" in refused.text) == (400, True)


# --- members and invitations ----------------------------------------------------------------------------------


def made(page: str) -> str:
    """The secret that a page shows once."""
    found = re.search(r'id="made">([^<]+)<', page)
    assert found, page[:3000]
    return found[1].replace("&amp;", "&")


async def test_an_invitation_makes_an_account_a_member_once(site: Site) -> None:
    admin = await site.sign_in(ADMIN)
    page = await admin.post("/members/invite", data={"role": "editor", "days": "3"})
    link = made(page.text)
    assert link.startswith(f"{site.url}/invitation?of={site.tenant}&secret=")
    assert link.partition("secret=")[2] not in (await admin.get("/members")).text
    guest = site.browser()
    assert "Make the account" in (await guest.get(link)).text
    form = {"of": site.tenant, "secret": link.partition("secret=")[2], "name": "Newt", "email": "Newt@Example.com"}
    weak = await guest.post("/invitation", data={**form, "new": "short", "again": "short"})
    assert (weak.status_code, "at least 12" in weak.text, 'value="Newt"' in weak.text) == (400, True, True)
    joined = await guest.post("/invitation", data={**form, "new": PASSWORD, "again": PASSWORD})
    assert joined.status_code == 303, joined.text
    assert f"member of {site.tenant} now" in text_of((await guest.get(joined.headers["location"])).text)
    assert await status(guest) == 200
    listed = (await admin.get("/members.json")).json()
    assert [each["role"] for each in listed["members"] if each["email"] == "newt@example.com"] == ["editor"]
    again = await site.browser().get(link)
    assert (again.status_code, "was used, withdrawn, or has ended" in again.text) == (404, True)


async def test_an_invitation_is_accepted_by_who_is_signed_in(site: Site) -> None:
    owner = await site.sign_in(OWNER)
    link = made((await owner.post("/members/invite", data={"role": "viewer", "days": "1"})).text)
    account = await site.account("joiner@example.com", "Joiner")
    guest = site.browser()
    signing = re.search(r'href="(/login\?next=[^"]+)"', (await guest.get(link)).text)
    assert signing
    await guest.post("/login", data={"email": "joiner@example.com", "password": PASSWORD})
    assert "Accept with your account" in (await guest.get(link)).text
    form = {"of": site.tenant, "secret": link.partition("secret=")[2]}
    assert (await guest.post("/invitation", data=form)).status_code == 303
    register = await site.register()
    assert register.role(site.tenant, account) == "viewer"


async def test_an_invitation_that_is_withdrawn_or_guessed_leads_nowhere(site: Site) -> None:
    owner = await site.sign_in(OWNER)
    link = made((await owner.post("/members/invite", data={"role": "viewer", "days": "1"})).text)
    secret = link.partition("secret=")[2]
    digest = sha256(secret.encode()).hexdigest()
    assert (await owner.post("/members/withdraw", data={"invitation": digest})).status_code == 303
    form = {"of": site.tenant, "name": "X", "email": "x@example.com", "new": PASSWORD, "again": PASSWORD}
    for given in (secret, "guessed", digest):
        answer = await site.browser().post("/invitation", data={**form, "secret": given})
        assert (answer.status_code, "set-cookie" in answer.headers) == (404, False)
    assert (
        await site.browser().post("/login", data={"email": "x@example.com", "password": PASSWORD})
    ).status_code == 403


async def test_a_role_is_set_and_a_member_removed(site: Site) -> None:
    account, _ = await fresh(site, "moved")
    owner = await site.sign_in(OWNER)
    assert (await owner.post("/members/role", data={"account": account, "role": "editor"})).status_code == 303
    found = {each["account_id"]: each["role"] for each in (await owner.get("/members.json")).json()["members"]}
    assert found[account] == "editor"
    refused = await owner.post("/members/role", data={"account": account, "role": "owner"})
    assert (refused.status_code, "has one owner" in refused.text) == (400, True)
    assert (await owner.post("/members/remove", data={"account": account})).status_code == 303
    assert account not in (await owner.get("/members")).text


async def test_no_admin_changes_its_own_role(site: Site) -> None:
    admin = await site.sign_in(ADMIN)
    [own] = [each for each in (await admin.get("/members.json")).json()["members"] if each["email"] == ADMIN]
    refused = await admin.post("/members/role", data={"account": own["account_id"], "role": "viewer"})
    assert (refused.status_code, "No account changes its own role" in refused.text) == (400, True)


# --- keys -----------------------------------------------------------------------------------------------------


async def test_a_key_is_made_replaced_and_revoked(site: Site) -> None:
    app = await site.command("app.create", {"name": "Guide"}, site.tenant)
    owner = await site.sign_in(OWNER)
    form = {"name": "website", "permissions": ["chat"], "apps": [app["ids"]["app"]], "expires_at": "2099-01-31"}
    page = await owner.post("/keys/new", data=form)
    key = made(page.text)
    assert re.fullmatch(r"app-[A-Za-z0-9]{24}", key)
    later = (await owner.get("/keys")).text
    assert key not in later
    assert f"…{key[-4:]}" in later
    [row] = [each for each in (await owner.get("/keys.json")).json()["keys"] if each["name"] == "website"]
    assert (row["permissions"], row["expires_at"][:10], row["created_by"][:2]) == (["chat"], "2099-02-01", "a_")
    assert row["last_used_at"] is None
    uses = JetStreamKeyUses(site.wiring.nc)
    uses.used(site.tenant, row["id"])
    await uses.write()
    assert "last used" in text_of((await owner.get("/keys")).text)

    async def known(given: str) -> bool:
        register = await site.register()
        found = register.digests.get(sha256(given.encode()).digest())
        return bool(found and found[:2] in register.keys)

    assert await known(key)
    other = made((await owner.post(f"/keys/{row['id']}/replace", data={"overlap": "3600"})).text)
    assert other != key
    assert await known(other)
    assert (await owner.post(f"/keys/{row['id']}/revoke")).status_code == 303
    assert not await known(other)
    assert "revoked" in text_of((await owner.get("/keys")).text)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "x"}, "permissions"),
        ({"name": " ", "permissions": "chat"}, "name"),
        ({"name": "x", "permissions": "key.manage"}, "Must be one of"),
        ({"name": "x", "permissions": "chat", "expires_at": "2001-01-01"}, "in the future"),
        ({"name": "x", "permissions": "chat", "expires_at": "never"}, "must be a date"),
        ({"name": "x", "permissions": "chat", "expires_at": "9999-12-31"}, "must be a date"),
        ({"name": "x", "permissions": "chat", "apps": "00000000-0000-4000-8000-000000000000"}, "There is no app"),
    ],
)
async def test_a_key_that_cannot_be_says_why(site: Site, fields: dict[str, Any], said: str) -> None:
    owner = await site.sign_in(OWNER)
    page = await owner.post("/keys/new", data=fields)
    assert (page.status_code, said in page.text, 'id="made"' in page.text) == (400, True, False)


# --- the audit ------------------------------------------------------------------------------------------------


async def test_sign_ins_and_commands_of_a_person_are_in_the_audit(site: Site) -> None:
    account, email = await fresh(site, "audited", "admin")
    client = await site.sign_in(email, **{"User-Agent": "Firefox of the tests"})
    made((await client.post("/keys/new", data={"name": "audited", "permissions": "chat"})).text)
    await site.settled()
    signed_in = (await site.json("/audit", tenant=HOUSE, outcome="signed_in"))["operations"]
    assert [(row["code"], row["browser"]) for row in signed_in if row["account_id"] == account] == [
        ("password", "Firefox of the tests")
    ]
    created = (await site.json("/audit", actor=f"a_{account}"))["operations"]
    assert [(row["action"], row["outcome"], row["door"], row["address"]) for row in created] == [
        ("api_key.create", "accepted", "viewer", "127.0.0.1")
    ]
    assert (await client.get("/audit")).status_code == 200
    assert (await client.get("/audit", params={"tenant": HOUSE})).status_code == 403
