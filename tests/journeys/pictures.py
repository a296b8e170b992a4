"""The pictures of the viewer in docs/; `python -m tests.journeys.pictures` makes them again."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from tempfile import mkdtemp

from playwright.async_api import Browser, Page

from ops.docs import DOCS
from ops.servers.embedded import EmbeddedPostgres
from tests.chat_servers import Exchange, fails, faulty_server
from tests.journeys.test_browser import Site, browsing, logged_in, served
from tests.journeys.test_handbook import HANDBOOK, QUESTIONS

LARGEST = 250_000
"""Bytes of a picture."""

SAID = (
    "The surge tank is inspected every May, before the thaw raises the river [1].",
    "Every May [1]. The tank is emptied, and two people look at its lining; the report goes to the shift leader.",
)
PEOPLE = ("ada", "grace", "emmy", "lise")
QUESTION = "When is the surge tank inspected, and by whom?"


async def answers(exchange: Exchange) -> None:
    """As a model does that takes its time."""
    await exchange.begin()
    for word in SAID[exchange.number % 2].split(" "):
        await asyncio.sleep(0.02)
        await exchange.say(f"{word} ")
    await exchange.say(finish="stop")
    usage = {"prompt_tokens": 912, "completion_tokens": 31, "total_tokens": 943}
    await exchange.event({"choices": [], "usage": usage})
    await exchange.event("[DONE]")
    await exchange.end()


async def fill(site: Site, model_url: str, broken_url: str) -> None:
    """Questions on the handbook, most of them answered."""
    stack = site.stack
    dataset = await stack.make("dataset.create", name="handbook")
    await stack.ended(await stack.upload(dataset, *HANDBOOK))
    await stack.send("provider.register", name="openai", base_url=model_url)
    await stack.send("provider.register", name="spare", base_url=broken_url)
    models = {
        "Handbook": {"provider": "builtin", "name": "extractive"},
        "Assistant": {"provider": "openai", "name": "gpt-4o-mini"},
        "Night shift": {"provider": "spare", "name": "gpt-4o"},
    }
    apps = {name: await stack.make("app.create", name=name) for name in models}
    for name, chosen in models.items():
        await stack.send("app.configure", app=apps[name], datasets=[dataset], model=chosen)
    for number, question in enumerate(QUESTIONS[:14]):
        name = "Night shift" if number == 12 else "Handbook"
        await stack.ask(apps[name], question["question"], user=PEOPLE[number % len(PEOPLE)])
    frames = await stack.ask(apps["Assistant"], QUESTION, user="ada")
    site.ids["answered"] = frames[0]["message"]
    await stack.until("SELECT FROM headrace.traces WHERE status = 'running'", lambda rows: not rows)


async def replay(site: Site) -> str:
    """The id of a replay that is done."""
    statement = "SELECT id FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat' AND status = 'completed'"
    [call] = await site.stack.until(statement, id=site.ids["answered"])
    id = await site.stack.make("replay.request", call=call["id"], parameters={"temperature": 0.2})
    await site.stack.until("SELECT FROM headrace.replays WHERE status = 'completed'")
    return id


async def main() -> None:
    home = Path(mkdtemp(prefix="headrace-pictures-"))
    async with (
        EmbeddedPostgres(home) as postgres,
        served(home, postgres) as site,
        faulty_server(fails) as broken,
        faulty_server(answers) as model,
        browsing() as browser,
    ):
        await fill(site, model.url, broken.url)
        await take(browser, site)
    shutil.rmtree(home)


async def take(browser: Browser, site: Site) -> None:
    for scheme, after in (("light", ""), ("dark", "-dark")):
        visit = await logged_in(browser, site, color_scheme=scheme, timezone_id="UTC", locale="en-GB")
        page = await visit.open("/traces")
        if scheme == "light":
            await picture(page, "viewer-list")
        await page.get_by_role("link", name=QUESTION).last.click()
        await page.locator("#tree").get_by_role("link", name="chat").last.click()
        await page.locator("#panel").get_by_text("as the model saw them").wait_for()
        await picture(page, f"viewer-trace{after}")
        if scheme == "light":
            await page.set_viewport_size({"width": 1280, "height": 420})
            await visit.open(f"/replays?id={await replay(site)}")
            await picture(page, "viewer-diff")
        await visit.close()


async def picture(page: Page, name: str) -> None:
    await page.evaluate("document.fonts.ready")
    image = await page.screenshot(path=DOCS / f"{name}.png", animations="disabled")
    assert len(image) <= LARGEST, f"{name}: {len(image):,} bytes"


if __name__ == "__main__":
    asyncio.run(main())
