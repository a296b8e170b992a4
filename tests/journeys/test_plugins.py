"""Filters of plugins in a whole Headrace: what is sent and recorded, through kills of plugin, worker and both."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters.jetstream.client import Client
from domain.access.tenant import HOUSE
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.rebuild import rebuild
from tests.chat_servers import Exchange, FaultyServer, faulty_server
from tests.conftest import fresh_database
from tests.journeys.stack import Stack
from tests.packages import manifest, package

MASK = """
import re, time
from headrace_plugin import *

def load(settings):
    global mark
    mark = settings.get("mark", "#")

def before(call):
    time.sleep(0.2 if "slowly" in str(call["messages"]) else 0)
    if "break" in call["messages"][-1]["content"]:
        raise ValueError("broken")
    masked = [{**each, "content": re.sub(r"\\d", mark, each["content"])} for each in call["messages"]]
    return replace(messages=masked)

def after(call):
    return replace(response=call["response"].replace("said", "wrote"))

serve(globals(), threads=4)
"""
HOOKS = {"before_invoke": "before", "after_invoke": "after", "load": "load"}


@pytest.fixture(scope="module")
async def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("plugins")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings, ("commands", "answer", "project")) as stack:
            yield stack


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FaultyServer]:
    async def says(exchange: Exchange) -> None:
        await exchange.finish(f"You said {exchange.body['messages'][-1]['content']}. And no more.")

    async with faulty_server(says) as server:
        yield server


async def install(stack: Stack, data: bytes, name: str = "mask", content: str = "none") -> None:
    house = Client(stack.client.connection, HOUSE)
    digest = await house.upload_blob(data)
    outcome = await house.send("plugin.install", {"plugin": name, "package": digest, "content": content}, wait=60)
    assert outcome["status"] == "accepted", outcome


@pytest.fixture(scope="module")
async def app(stack: Stack, server: FaultyServer) -> str:
    await install(stack, package(MASK, manifest(hooks=HOOKS, timeout_ms=8000)))
    await stack.send("plugin.configure", plugin="mask", settings={"mark": "*"})
    await stack.send("plugin.enable", plugin="mask")
    await stack.send("provider.register", name="lab", base_url=server.url, key="sk-x")
    app = await stack.make("app.create", name="talker")
    await stack.send("app.configure", app=app, model={"provider": "lab", "name": "m"})
    return app


async def runs(stack: Stack, message: str) -> list[dict[str, Any]]:
    return await stack.until(
        """SELECT run.*, call.attempt FROM headrace.plugin_runs run JOIN headrace.model_calls call
        ON call.tenant_id = run.tenant_id AND call.id = run.call_id
        WHERE call.cause_id = %(message)s AND call.status = 'completed' ORDER BY run.hook""",
        lambda rows: len(rows) >= 2,
        message=message,
    )


async def plugin_process(stack: Stack) -> psutil.Process:
    async with asyncio.timeout(30):
        while True:
            for each in psutil.Process(stack._workers["answer"].pid).children(recursive=True):
                with suppress(psutil.Error):
                    if any(part.endswith("/main.py") for part in each.cmdline()) and "bwrap" not in each.name():
                        return each
            await asyncio.sleep(0.05)


async def test_what_is_sent_is_recorded_and_shown_as_the_filter_leaves_it(
    stack: Stack, app: str, server: FaultyServer
) -> None:
    frames = await stack.ask(app, "My number is 4711")
    assert frames[-1]["type"] == "answered", frames
    assert frames[-1]["answer"] == "You wrote My number is ****. And no more."
    message = frames[0]["message"]
    found = await runs(stack, message)
    assert [(run["hook"], run["action"], run["changed"], run["version"]) for run in found] == [
        ("after_invoke", "replace", True, "1.0.0"),
        ("before_invoke", "replace", True, "1.0.0"),
    ]
    [call] = await stack.sql("SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s", id=message)
    [sent] = await stack.sql("SELECT * FROM headrace.model_call_requests WHERE id = %(id)s", id=call["id"])
    assert sent["request"]["messages"][-1]["content"] == "My number is ****"
    assert call["response"] == frames[-1]["answer"]


async def test_the_command_line_installs_enables_and_lists(stack: Stack, app: str, tmp_path: Path) -> None:
    folder = tmp_path / "quiet"
    assert (await stack.command("plugin", "new", "quiet", "--kind", "monitor", "--folder", str(folder)))[0] == 0
    code, [outcome] = await stack.command("plugin", "install", str(folder), "--content", "masked")
    assert (code, outcome["status"], outcome["ids"]) == (0, "accepted", {"plugin": "quiet"})
    code, [refused] = await stack.command("plugin", "enable", "missing", "--tenant", stack.tenant)
    assert (code, refused["code"]) == (1, "not_found")
    for command in (("enable", "quiet", "--no-content"), ("disable", "quiet")):
        assert (await stack.command("plugin", *command, "--tenant", stack.tenant))[0] == 0
    await stack.until("SELECT 1 FROM headrace.plugin_uses WHERE id = 'quiet' AND status = 'disabled' AND NOT content")
    code, listed = await stack.command("plugin", "list", "--tenant", stack.tenant)
    assert [(each["id"], each["version"], each["status"]) for each in listed] == [
        ("mask", "1.0.0", "enabled"),
        ("quiet", "0.1.0", "disabled"),
    ]
    assert (await stack.command("plugin", "remove", "quiet", "--yes"))[0] == 0


async def test_a_plugin_that_is_killed_within_a_hook_loses_no_answer(stack: Stack, app: str) -> None:
    asking = asyncio.create_task(stack.ask(app, "slowly 1"))
    process = await plugin_process(stack)
    await asyncio.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    frames = await asking
    assert (frames[-1]["type"], frames[-1]["answer"]) == ("answered", "You wrote slowly *. And no more.")


@pytest.mark.parametrize("both", [False, True])
async def test_a_worker_that_is_killed_within_a_hook_loses_no_answer(stack: Stack, app: str, both: bool) -> None:
    asking = asyncio.create_task(stack.ask(app, "slowly 2"))
    process = await plugin_process(stack)
    await asyncio.sleep(0.15)
    if both:
        os.kill(process.pid, signal.SIGKILL)
    await stack.kill("answer")
    await stack.start("answer")
    frames = await asking
    assert (frames[-1]["type"], frames[-1]["answer"]) == ("answered", "You wrote slowly *. And no more.")
    psutil.wait_procs([process], timeout=10)
    assert not process.is_running()
    message = frames[0]["message"]
    found = await runs(stack, message)
    assert len([run for run in found if run["hook"] == "before_invoke"]) == 1


async def test_a_closed_filter_that_fails_fails_the_message_and_names_itself(stack: Stack, app: str) -> None:
    frames = await stack.ask(app, "break it")
    assert (frames[-1]["type"], frames[-1]["code"]) == ("failed", "plugin_failed")
    assert "The plugin mask 1.0.0 did not handle before_invoke" in frames[-1]["reason"]
    [call] = await stack.until("SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s", id=frames[0]["message"])
    assert (call["status"], call["error_code"], call["server"]) == ("failed", "plugin_failed", "")


async def test_a_filter_that_fails_again_and_again_is_suspended_until_it_is_enabled(stack: Stack, app: str) -> None:
    for _ in range(4):
        frames = await stack.ask(app, "break it")
    assert frames[-1]["code"] == "plugin_failed"
    [used] = await stack.until("SELECT * FROM headrace.plugin_uses WHERE id = 'mask' AND status = 'suspended'")
    assert "It failed 5 times in a row" in used["reason"]
    assert "ValueError: broken" in used["reason"]
    frames = await stack.ask(app, "Is it 7?")
    assert (frames[-1]["code"], "(suspended)" in frames[-1]["reason"]) == ("plugin_failed", True)
    await stack.send("plugin.enable", plugin="mask")
    async with asyncio.timeout(20):
        while (await stack.ask(app, "Is it 7?"))[-1].get("answer") != "You wrote Is it *?. And no more.":
            await asyncio.sleep(0.2)
    await stack.until("SELECT 1 FROM headrace.plugin_uses WHERE id = 'mask' AND status = 'enabled'")


async def test_another_package_takes_over_without_a_failed_message(stack: Stack, app: str) -> None:
    stop = asyncio.Event()
    answered: list[str] = []

    async def ask() -> None:
        while not stop.is_set():
            frames = await stack.ask(app, "Well 1")
            assert frames[-1]["type"] == "answered", frames[-1]
            answered.append(frames[0]["message"])

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    await asyncio.sleep(1)
    await install(stack, package(MASK, manifest(hooks=HOOKS, timeout_ms=8000, version="2.0.0")))
    await stack.until(
        "SELECT 1 FROM headrace.plugin_runs WHERE version = '2.0.0' HAVING count(*) > 10",
    )
    stop.set()
    await asyncio.gather(*asking)
    rows = await stack.until(
        """SELECT call_id, array_agg(DISTINCT version) AS versions FROM headrace.plugin_runs run
        JOIN headrace.model_calls call ON call.id = run.call_id WHERE call.cause_id = ANY(%(ids)s) GROUP BY call_id""",
        lambda rows: len(rows) == len(answered),
        ids=answered,
    )
    assert {version for row in rows for version in row["versions"]} == {"1.0.0", "2.0.0"}


async def test_what_is_disabled_or_removed_meets_no_call(stack: Stack, app: str) -> None:
    await stack.send("plugin.disable", plugin="mask")
    async with asyncio.timeout(20):
        while (await stack.ask(app, "Is it 7?"))[-1].get("answer") != "You said Is it 7?. And no more.":
            await asyncio.sleep(0.2)
    await stack.until("SELECT 1 FROM headrace.plugin_uses WHERE id = 'mask' AND status = 'disabled'")


async def test_the_rebuilt_tables_say_the_same(stack: Stack, app: str) -> None:
    tables = ("plugins", "plugin_uses", "plugin_runs")
    before = {each: await stack.sql(f"SELECT * FROM headrace.{each} ORDER BY tenant_id, id") for each in tables}
    assert all(before.values())
    await stack.stop("project")
    await rebuild(stack.settings, [])
    after = {each: await stack.sql(f"SELECT * FROM headrace.{each} ORDER BY tenant_id, id") for each in tables}
    assert after == before
