"""The viewer in a real browser, with JavaScript and without: every page, and no request to anybody but the viewer."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request, Response, async_playwright

from adapters.jetstream.client import Client
from adapters.jetstream.sessions import Sessions
from adapters.web.viewer.render import NAVIGATION
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.chat_servers import Exchange, fails, faulty_server
from tests.conftest import fresh_database
from tests.journeys.layout import faults
from tests.journeys.stack import Stack

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1280, "height": 800}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("BROWSER_TESTS") != "required",
    reason="there is no browser: apt-get install chromium",
)

TOKEN = "the-token-of-the-tests"
TEXT = "The surge tank is inspected in May. The oil boom of the intake is 40 metres long.\n" * 3
HARM = '"><img src=x onerror=alert(1)><script>alert(2)</script><svg onload=alert(3)> \u202e[x](javascript:alert(4))'

VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@dataclass
class Site:
    """A Headrace, its viewer, and what can be looked at there."""

    stack: Stack
    url: str
    ids: dict[str, str] = field(default_factory=dict)
    """Of the message of each app, by its name."""
    talks: dict[str, str] = field(default_factory=dict)
    """Of the conversation of each app."""
    document: str = ""
    call: str = ""
    """Of a chat model, which was replayed."""
    replay: str = ""
    state: Any = None
    """The cookies of a user who has logged in."""


async def answers(exchange: Exchange) -> None:
    """Otherwise each time, and in hostile words where that is the model."""
    said = HARM if exchange.body["model"] == HARM else "It is inspected every May."
    await exchange.finish(f"{said} This is answer {exchange.number}.")


@asynccontextmanager
async def served(home: Path, postgres: EmbeddedPostgres) -> AsyncIterator[Site]:
    """A Headrace of its own, in which nothing has happened yet."""
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        prices = home / "prices.toml"
        prices.write_text('[[price]]\nprovider = "openai"\nas = "openai"\n')  # a model here goes by this name
        async with Stack.running(settings, []) as stack:
            await stack.start("all", HEADRACE_VIEW_TOKEN=TOKEN, HEADRACE_PRICES=str(prices))
            yield Site(stack, settings.viewer)


@pytest.fixture(scope="module")
async def site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with (
        served(tmp_path_factory.mktemp("viewed"), postgres) as site,
        faulty_server(fails) as broken,
        faulty_server(answers) as model,
    ):
        await fill(site, model.url, broken.url)
        yield site


async def fill(site: Site, model_url: str, broken_url: str) -> None:
    """Questions that were answered, one that was not, a document, a replay, and words that mean harm."""
    stack = site.stack
    dataset = await stack.make("dataset.create", name="handbook")
    site.document = await stack.make("document.upload", dataset=dataset, name="tank.txt", text=TEXT)
    await stack.ended([site.document])
    await stack.send("provider.register", name="openai", base_url=model_url)
    await stack.send("provider.register", name="broken", base_url=broken_url)
    models = {
        "assistant": {"provider": "builtin", "name": "extractive"},
        "talker": {"provider": "openai", "name": "gpt-4o-mini"},
        HARM: {"provider": "openai", "name": HARM},
        "unlucky": {"provider": "broken", "name": "any"},
    }
    for name, chosen in models.items():
        app = await stack.make("app.create", name=name)
        await stack.send("app.configure", app=app, datasets=[dataset], model=chosen)
        query = (
            HARM
            if name == HARM
            else f"When does the {name} say the surge tank is inspected, and who opens the gates at night?"
        )
        frames = await stack.ask(app, query, user=HARM if name == HARM else "ada")
        assert frames[-1]["type"] == ("failed" if name == "unlucky" else "answered"), frames[-1]
        site.ids[name] = frames[0]["message"]
        site.talks[name] = frames[0]["conversation"]
    await stack.refused("app.delete", app=dataset)
    [call] = await stack.until(
        "SELECT id FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat' AND status = 'completed'",
        id=site.ids["talker"],
    )
    site.call = call["id"]
    site.replay = await stack.make("replay.request", call=site.call, parameters={"temperature": 0.5})
    await stack.until(
        "SELECT FROM headrace.traces WHERE status IN ('ok', 'error')", lambda rows: len(rows) == len(models) + 2
    )


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    assert CHROMIUM, "there is no browser: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as browser:
        yield browser


class Visit:
    """A window of its own in the browser, and all in it that must not be."""

    def __init__(self, context: BrowserContext, page: Page, site: Site) -> None:
        self.context = context
        self.page = page
        self.site = site
        self.wrong: list[str] = []
        page.on("request", self._requested)
        page.on("response", self._answered)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)

    @classmethod
    async def begin(cls, browser: Browser, site: Site, **options: Any) -> Visit:
        context = await browser.new_context(**({"viewport": DESK} | options))
        context.set_default_timeout(10_000)
        await context.add_init_script(VIOLATIONS)
        return cls(context, await context.new_page(), site)

    def _requested(self, request: Request) -> None:
        if urlsplit(request.url)[:2] != urlsplit(self.site.url)[:2]:
            self.wrong.append(f"asks {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} {response.url}")

    async def open(self, path: str) -> Page:
        await self.page.goto(f"{self.site.url}{path}", wait_until="load")
        return self.page

    async def close(self) -> None:
        await self.context.close()
        assert self.wrong == []


@pytest.fixture(params=[True, False], ids=["script", "no_script"])
def script(request: pytest.FixtureRequest) -> bool:
    """Return whether the browser runs JavaScript."""
    return bool(request.param)


@pytest.fixture
async def stranger(browser: Browser, site: Site, script: bool) -> AsyncIterator[Visit]:
    """A user who has not logged in."""
    visit = await Visit.begin(browser, site, java_script_enabled=script)
    yield visit
    await visit.close()


@pytest.fixture
async def visit(browser: Browser, site: Site, script: bool) -> AsyncIterator[Visit]:
    visit = await logged_in(browser, site, java_script_enabled=script)
    yield visit
    await visit.close()


@pytest.fixture
async def scripted(browser: Browser, site: Site) -> AsyncIterator[Visit]:
    visit = await logged_in(browser, site)
    yield visit
    await visit.close()


async def logged_in(browser: Browser, site: Site, **options: Any) -> Visit:
    if site.state is None:
        first = await Visit.begin(browser, site)
        async with await Client.connect(site.stack.settings.nats_url) as client:
            await first.open((await Sessions(client.connection).link(site.url)).removeprefix(site.url))
        site.state = await first.context.storage_state()
        await first.close()
    return await Visit.begin(browser, site, storage_state=site.state, **options)


async def trace_of(visit: Visit, name: str) -> Page:
    """The page of the trace whose message is this."""
    page = await visit.open(f"/traces?q={visit.site.ids[name]}")
    await page.locator("[data-row] a").first.click()
    await page.wait_for_url("**/traces/*")
    return page


def paths(site: Site) -> list[str]:
    """An address of every page; a trace has the id of the command that began it."""
    asked = site.ids["talker"]
    return [
        *(path for _, path in NAVIGATION),
        "/traces?q=no+such+words+anywhere",
        *(f"/traces/{id}" for id in (asked, site.ids["unlucky"], site.document, site.replay)),
        f"/conversations/{site.talks['talker']}",
        f"/replays/new?call={site.call}",
        "/replays",
        f"/replays?id={site.replay}",
        f"/compare?a={asked}&b={site.replay}",
        "/compare",
        "/sql?query=SELECT+*+FROM+model_calls",
    ]


# --- who may come in -----------------------------------------------------------------------------------------


async def test_login_and_logout(stranger: Visit) -> None:
    page = await stranger.open("/traces?state=error")
    assert urlsplit(page.url).path == "/login"
    await page.get_by_label("Token").fill("not the token")
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_role("alert").wait_for()
    stranger.wrong = [it for it in stranger.wrong if "403" not in it]
    await page.get_by_label("Token").fill(TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/traces?state=error")
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/login")
    await stranger.open("/traces")
    assert urlsplit(page.url).path == "/login"


# --- pages ---------------------------------------------------------------------------------------------------


async def test_the_list_shows_filters_and_searches(visit: Visit, script: bool) -> None:
    page = await visit.open("/traces")
    rows = page.locator("[data-row]")
    assert await rows.count() == 6
    await page.get_by_label("State").select_option("error")
    if not script:
        await page.get_by_role("button", name="Search").click()
    await page.wait_for_url("**state=error**")
    assert await rows.count() == 1
    assert "server_error" in await rows.first.inner_text()
    await visit.open("/traces")
    await page.get_by_placeholder("Words in prompts").fill("talker inspects")
    await page.get_by_role("button", name="Search").click()
    await page.wait_for_url("**q=talker**")
    assert await rows.count() >= 1
    assert "talker" in await rows.last.inner_text()


async def test_names_are_offered_while_they_are_typed(scripted: Visit) -> None:
    page = await scripted.open("/traces")
    app = page.get_by_label("App", exact=True)
    await app.press_sequentially("alke")
    await page.locator("#app-names option[value=talker]:only-child").wait_for(state="attached")
    await app.press("Enter")
    await page.wait_for_url("**app=alke**")
    assert await page.locator("[data-row]").count() == 1
    await page.get_by_role("link", name="Conversations").click()
    await page.get_by_label("User").press_sequentially("da")
    await page.locator("#user-names option[value=ada]:only-child").wait_for(state="attached")


async def test_times_in_fields_are_those_of_the_reader(browser: Browser, site: Site) -> None:
    visit = await logged_in(browser, site, timezone_id="Asia/Kolkata")
    page = await visit.open("/traces?from=2026-01-31T03:00:00")
    assert await page.get_by_label("From").input_value() == "2026-01-31T08:30"
    await page.get_by_label("From").fill("2026-01-31T09:00")
    await page.get_by_role("button", name="Search").click()
    await page.wait_for_url("**from=2026-01-31T03%3A30%3A00**")
    assert await page.get_by_label("From").input_value() == "2026-01-31T09:00"
    await visit.close()


async def test_every_page_opens_and_says_what_it_is(visit: Visit) -> None:
    for path in paths(visit.site):
        page = await visit.open(path)
        assert await page.locator("h1").count() == 1, path
        assert await page.title() != "Headrace", path


async def test_a_trace_shows_what_was_done_and_said(visit: Visit) -> None:
    page = await trace_of(visit, "talker")
    tree, panel = page.locator("#tree"), page.locator("#panel")
    assert await tree.locator("rect.bar").count() >= 4
    await tree.get_by_role("link", name="chat").last.click()
    await panel.get_by_text("as the model saw them").wait_for()
    said = await panel.inner_text()
    assert "It is inspected every May." in said
    assert "The surge tank is inspected in May." in said
    assert "tank.txt" in said
    await tree.get_by_role("link", name="retrieval").last.click()
    await panel.get_by_text("Result").wait_for()


async def test_no_span_begins_before_its_parent(site: Site) -> None:
    """As workers record them, with a retrieval and the embedding of its question."""
    rows = await site.stack.sql(
        "SELECT child.kind, parent.started_at <= child.started_at AS after FROM headrace.spans child "
        "JOIN (SELECT tenant_id, id, started_at FROM headrace.spans UNION ALL "
        "SELECT tenant_id, id, started_at FROM headrace.traces) parent "
        "ON parent.tenant_id = child.tenant_id AND parent.id = coalesce(child.parent_id, child.trace_id)"
    )
    [spans] = await site.stack.sql("SELECT count(*) FROM headrace.spans")
    assert len(rows) == spans["count"]
    assert {row["kind"] for row in rows} >= {"handler", "retrieval", "embedding", "chat"}
    assert [row for row in rows if not row["after"]] == []


async def test_a_call_is_sent_again_and_compared(visit: Visit) -> None:
    page = await trace_of(visit, "talker")
    await page.locator("#tree").get_by_role("link", name="chat").last.click()
    await page.locator("#panel").get_by_role("button", name="Replay").click()
    await page.wait_for_url("**/replays/new?**")
    await page.get_by_label("Parameters").fill('{"temperature": 0.9}')
    await page.get_by_role("button", name="Send again").click()
    await page.wait_for_url("**/replays?**")
    await page.locator("ins").first.wait_for()
    assert await page.locator("del").count() >= 1
    assert '"temperature": 0.9' in await page.locator(".runs").inner_text()
    await page.get_by_role("link", name="compare", exact=True).first.click()
    await page.wait_for_url("**/compare?**")
    differs = await page.locator("tr.differs").inner_text()
    assert "temperature" in differs
    assert "0.9" in differs


async def test_a_conversation_is_rated_forked_and_seen_as_it_was(visit: Visit) -> None:
    page = await visit.open(f"/conversations/{visit.site.talks['talker']}")
    turn = page.locator("article.turn")
    await turn.get_by_text("Rate, fork").click()
    await turn.get_by_role("button", name="Like", exact=True).click()
    await page.get_by_text("liked").first.wait_for()
    await turn.get_by_text("Rate, fork").click()
    await page.get_by_role("button", name="Fork from here").click()
    await page.get_by_text("Goes on from").wait_for()
    assert "It is inspected every May." in await page.locator("main").inner_text()
    await visit.open(f"/conversations/{visit.site.talks['talker']}")
    await page.get_by_role("link", name="One event back").click()
    await page.get_by_text("as it was then").wait_for()


async def test_what_failed_is_grouped(visit: Visit) -> None:
    page = await visit.open("/errors")
    failures = page.get_by_role("region", name="Failures")
    assert "failed (500)" in await failures.inner_text()
    assert "app.delete" in await page.get_by_role("region", name="Rejected commands").inner_text()
    await failures.get_by_role("link", name="latest trace").first.click()
    await page.get_by_role("alert").first.wait_for()
    assert "server_error" in await page.get_by_role("alert").first.inner_text()


async def test_costs_and_a_quota(visit: Visit, script: bool) -> None:
    page = await visit.open("/costs")
    assert "gpt-4o-mini" in await page.get_by_role("region", name="By").inner_text()
    name = f"monthly-{script}".lower()
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Limit", exact=True).fill("100")
    await page.get_by_role("button", name="Set quota").click()
    await page.get_by_role("cell", name=f"{name} soft", exact=True).wait_for()
    await page.get_by_role("button", name=f"Remove quota {name}").click()
    await page.get_by_role("cell", name=f"{name} soft", exact=True).wait_for(state="detached")


async def test_the_proof_adds_up(visit: Visit) -> None:
    """Work in progress is no fault: the tables may be behind for a moment."""
    page = await visit.open("/proof")
    async with asyncio.timeout(30):
        while await page.get_by_role("heading", name="Everything adds up").count() == 0:
            await visit.open("/proof?count=log")
    assert await page.get_by_text("does not hold").count() == 0
    assert await page.locator(".equation").count() >= 3


async def test_a_query(visit: Visit) -> None:
    page = await visit.open("/sql")
    await page.get_by_label("Query").fill("SELECT name FROM apps ORDER BY name DESC")
    await page.get_by_role("button", name="Run").click()
    await page.get_by_role("heading", name="4 rows").wait_for()
    assert await page.get_by_role("cell", name="talker").count() == 1
    await page.get_by_label("Query").fill("DELETE FROM apps")
    await page.get_by_role("button", name="Run").click()
    await page.get_by_role("alert").wait_for()
    visit.wrong = [it for it in visit.wrong if "400" not in it]
    [row] = await visit.site.stack.sql("SELECT count(*) FROM headrace.apps")
    assert row["count"] == 4


# --- what must never be --------------------------------------------------------------------------------------


async def test_words_that_mean_harm_are_shown_as_they_are(scripted: Visit) -> None:
    page = await trace_of(scripted, HARM)
    assert "<script>alert(2)</script>" in await page.locator("main").inner_text()
    for path in [urlsplit(page.url).path, f"/conversations/{scripted.site.talks[HARM]}", *paths(scripted.site)]:
        await scripted.open(path)
        assert await page.evaluate("window.violations") == [], path
        assert await page.locator("img[src=x], svg[onload], main script, a[href^='javascript:']").count() == 0, path


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(390, 844, "light"), (390, 844, "dark"), (1440, 900, "light"), (1440, 900, "dark"), (2560, 1300, "light")],
)
async def test_no_page_has_a_fault_in_its_layout(
    browser: Browser, site: Site, width: int, height: int, scheme: str
) -> None:
    window = {"width": width, "height": height}
    visit = await logged_in(browser, site, viewport=window, has_touch=width < 400, color_scheme=scheme)
    found: list[str] = []
    for path in paths(visit.site):
        page = await visit.open(path)
        if await page.locator("#strip").count():
            await page.locator("#strip .graph").first.wait_for()
        found += [f"{path}: {fault}" for fault in await faults(page)]
    assert not found, "\n".join(found)
    await visit.close()


# --- keys ----------------------------------------------------------------------------------------------------


async def test_keys(scripted: Visit) -> None:
    page = await scripted.open("/traces")
    links = [await page.locator("[data-row]").nth(place).locator("a").first.get_attribute("href") for place in (0, 1)]
    focused = "document.activeElement.getAttribute('href')"
    await page.keyboard.press("j")
    assert await page.evaluate(focused) == links[0]
    await page.keyboard.press("j")
    assert await page.evaluate(focused) == links[1]
    await page.keyboard.press("k")
    assert await page.evaluate(focused) == links[0]
    await page.keyboard.press("/")
    assert await page.evaluate("document.activeElement.id") == "q"
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    assert await page.get_by_role("dialog").is_visible()
    await page.keyboard.press("Escape")
    assert not await page.get_by_role("dialog").is_visible()
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**{links[0]}")
    await page.keyboard.press("Escape")
    await page.wait_for_url("**/traces")
