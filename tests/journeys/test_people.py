"""People with accounts in a real browser, with JavaScript and without: they sign in, make a key, invite, sign out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page

from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import PASSWORD, Site, serving
from tests.journeys.layout import faults
from tests.journeys.test_browser import Visit, browsing, pytestmark  # noqa: F401

OWNER, OTHER = "ada@example.com", "bo@example.com"


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("people"), lone_nats.url, module_database_url) as served:
        for tenant, email, name in ((served.tenant, OWNER, "Ada"), ("other", OTHER, "Bo")):
            owner = await served.account(email, name)
            await served.command("tenant.create", {"tenant": tenant, "name": f"Of {name}", "owner": owner})
            served.tenant = tenant
            app = await served.app(f"{name}'s guide", "Be brief.")
            await served.answer(app, await served.conversation(app), f"Asked at {name}'s: how high is the gate?")
        served.tenant = "default"
        await served.settled()
        yield served


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as opened:
        yield opened


@pytest.fixture(params=[True, False], ids=["script", "no_script"])
def script(request: pytest.FixtureRequest) -> bool:
    """Return whether the browser runs JavaScript."""
    return bool(request.param)


async def visiting(browser: Browser, site: Site, **options: Any) -> Visit:
    """A browser that visits the site, of which it needs the address alone."""
    return await Visit.begin(browser, cast(Any, site), **options)


async def signed_in(browser: Browser, site: Site, email: str, **options: Any) -> tuple[Visit, Page]:
    visit = await visiting(browser, site, **options)
    page = await visit.open("/traces")
    assert urlsplit(page.url).path == "/login"
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/traces**")
    return visit, page


async def test_a_wrong_password_is_said_and_the_address_stays(browser: Browser, site: Site, script: bool) -> None:
    visit = await visiting(browser, site, java_script_enabled=script)
    page = await visit.open("/login")
    await page.get_by_label("E-mail address").fill(OWNER)
    await page.get_by_label("Password").fill("not this one")
    await page.get_by_role("button", name="Sign in").click()
    assert "password is wrong" in await page.get_by_role("alert").inner_text()
    assert await page.get_by_label("E-mail address").input_value() == OWNER
    visit.wrong = [it for it in visit.wrong if "403" not in it]
    await visit.close()


async def test_a_person_sees_the_own_tenant_makes_a_key_and_signs_out_everywhere(
    browser: Browser, site: Site, script: bool
) -> None:
    visit, page = await signed_in(browser, site, OWNER, java_script_enabled=script)
    assert "Asked at Ada's" in await page.locator("main").inner_text()
    assert "Asked at Bo's" not in await page.locator("main").inner_text()
    assert await page.get_by_role("link", name="SQL").count() == 0
    await visit.open("/traces?tenant=other")
    assert "not for your account" in await page.locator("main").inner_text()
    visit.wrong = [it for it in visit.wrong if "403" not in it]

    await visit.open("/keys")
    name = f"website {script}"
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_role("button", name="Make the key").click()
    key = await page.locator("#made").inner_text()
    assert re.fullmatch(r"app-[A-Za-z0-9]{24}", key)
    await visit.open("/keys")
    assert await page.locator("#made").count() == 0
    row = page.get_by_role("row", name=name)
    await row.get_by_role("button", name="Replace").click()
    assert await page.locator("#made").inner_text() != key
    await row.get_by_role("button", name=f"Revoke {name}").click()
    await row.get_by_text("revoked").wait_for()

    second, other_page = await signed_in(browser, site, OWNER, java_script_enabled=script)
    await visit.open("/account")
    await page.get_by_role("button", name="End all others").click()
    await page.get_by_text("The other sessions ended").wait_for()
    await second.open("/traces")
    assert urlsplit(other_page.url).path == "/login"
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/login")
    for each in (visit, second):
        await each.close()


async def test_a_guest_comes_in_by_an_invitation(browser: Browser, site: Site, script: bool) -> None:
    visit, page = await signed_in(browser, site, OWNER, java_script_enabled=script)
    await visit.open("/members")
    await page.get_by_label("Role", exact=True).select_option("viewer")
    await page.get_by_role("button", name="Make an invitation").click()
    link = await page.locator("#made").inner_text()
    guest = await visiting(browser, site, java_script_enabled=script)
    opened = await guest.open(link.removeprefix(site.url))
    name = f"Cy {script}"
    await opened.get_by_label("Name").fill(name)
    await opened.get_by_label("E-mail address").fill(f"cy-{script}@example.com")
    for label in ("Password (", "The password again"):
        await opened.get_by_label(label).fill(PASSWORD)
    await opened.get_by_role("button", name="Make the account").click()
    await opened.get_by_text("You are a member of default now").wait_for()
    await guest.open("/traces")
    assert "Asked at Ada's" in await opened.locator("main").inner_text()
    assert await opened.get_by_role("link", name="API keys").count() == 0
    await visit.open("/members")
    await page.get_by_role("row", name=name).get_by_role("button", name=f"Remove {name}").click()
    await page.get_by_role("row", name=name).wait_for(state="detached")
    await guest.open("/traces")
    assert urlsplit(opened.url).path == "/account"
    for each in (visit, guest):
        await each.close()


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(390, 844, "light"), (390, 844, "dark"), (1440, 900, "light"), (1440, 900, "dark"), (2560, 1300, "light")],
)
async def test_no_page_of_people_has_a_fault_in_its_layout(
    browser: Browser, site: Site, width: int, height: int, scheme: str
) -> None:
    window = {"width": width, "height": height}
    visit, page = await signed_in(browser, site, OWNER, viewport=window, color_scheme=scheme)
    await visit.open("/members")
    await page.get_by_role("button", name="Make an invitation").click()
    link = await page.locator("#made").inner_text()
    found = [f"/members, made: {fault}" for fault in await faults(page)]
    await visit.open("/keys")
    await page.get_by_label("Name", exact=True).fill("the key of the website of the harbour, with a name that is long")
    await page.get_by_role("button", name="Make the key").click()
    found += [f"/keys, made: {fault}" for fault in await faults(page)]
    for path in ("/account", "/members", "/keys", link.removeprefix(site.url), "/login"):
        await visit.open(path)
        found += [f"{path[:20]}: {fault}" for fault in await faults(page)]
    stranger = await visiting(browser, site, viewport=window, color_scheme=scheme)
    for path in ("/login", link.removeprefix(site.url)):
        found += [f"{path[:20]}: {fault}" for fault in await faults(await stranger.open(path))]
    assert not found, "\n".join(found)
    for each in (visit, stranger):
        await each.close()
