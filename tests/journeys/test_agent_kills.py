"""kill -9 of the worker at every step of an agent's turn: the turn goes on, and no effect happens twice.

What a turn leaves is compared with what an uninterrupted one leaves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.jetstream.client import Frame
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.adapters.plugins import dify_agents
from tests.chat_servers import faulty_server
from tests.conftest import fresh_database
from tests.dify_packages import has_python, unpacked
from tests.journeys.stack import PATIENCE_S, Stack, install
from tests.journeys.test_kill import assert_no_event_is_twice, assert_tables_equal_a_rebuild
from tests.scripted_agent import Call, Scripts, scripted

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SCRIPTS: Scripts = {
    "errand": [
        [Call("look", {"to": "Ada"}), Call("pay", {"to": "Ada"})],
        [Call("look", {"to": "Bo"})],
        "All is done.",
    ]
}

ROUNDS = len(SCRIPTS["errand"])

STEPS = [*(f"round {number}" for number in range(ROUNDS)), "before pay", "after pay", "before look", "after look"]
"""The moments of a kill: while the model is asked for a round, or a tool is at work, before or after its effect."""


class Killer:
    """Has the worker wait at one moment of a turn, until it is killed."""

    def __init__(self, home: Path) -> None:
        self.paid = home / "paid.txt"
        self.round: int | None = None
        self.reached = asyncio.Event()

    def arm(self, step: str) -> None:
        where, _, what = step.partition(" ")
        if where == "round":
            self.round = int(what)
        else:
            self.paid.with_suffix(f".{where}").write_text(what)

    def disarm(self) -> None:
        self.round = None
        for suffix in (".before", ".after", ".waits"):
            self.paid.with_suffix(suffix).unlink(missing_ok=True)

    async def asked(self, word: str, round: int) -> None:
        """The pause of the model's server before it answers."""
        if round == self.round:
            self.reached.set()
            while self.round == round:
                await asyncio.sleep(0.02)

    async def waits(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not (self.reached.is_set() or self.paid.with_suffix(".waits").exists()):
                await asyncio.sleep(0.02)
        self.reached.clear()

    def effects(self) -> Counter[tuple[str, str]]:
        """The number of effects of each tool and call."""
        lines = self.paid.read_text().splitlines() if self.paid.exists() else []
        return Counter((name, call) for name, _, call in (line.partition(" ") for line in lines))


@asynccontextmanager
async def doomed(postgres: EmbeddedPostgres, home: Path, killer: Killer) -> AsyncIterator[Stack]:
    """A Headrace of its own, whose answering worker has tools with effects."""
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        roles = ("commands", "project", "embed")
        async with Stack.running(settings, roles) as stack:
            stack.programs["answer"] = "tests.paying_worker"
            await stack.start("answer", PAID=str(killer.paid))
            yield stack


async def left(stack: Stack, message: str) -> tuple[str, list[tuple[Any, ...]]]:
    """The answer of a turn, and each call of a tool."""
    [row] = await stack.until(
        "SELECT * FROM headrace.messages WHERE id = %(id)s AND status NOT IN ('asked', 'answering')", id=message
    )
    calls = await stack.until(
        "SELECT * FROM headrace.tool_calls WHERE cause_id = %(id)s ORDER BY round, position",
        lambda rows: all(row["finished_at"] for row in rows),
        id=message,
    )
    return row["answer"], [(row["round"], row["tool"], row["arguments"], row["error_code"]) for row in calls]


async def asked(stack: Stack, app: str, then: Callable[[], Any]) -> Frame:
    """Ask, and do something while the answer is made; gives the first frame."""
    frames = stack.client.ask(app, "Run an errand.", wait=PATIENCE_S, patience=PATIENCE_S)
    accepted = await anext(frames)
    await then()
    await frames.aclose()
    return accepted


PLUGIN = pytest.mark.skipif(not has_python(), reason="there is no Python 3.12 on this machine")


@pytest.mark.parametrize("strategy", ["tools", pytest.param("plugin", marks=PLUGIN)])
async def test_a_kill_at_any_step_of_a_turn_repeats_no_effect(
    postgres: EmbeddedPostgres, tmp_path: Path, strategy: str
) -> None:
    killer = Killer(tmp_path)
    async with (
        faulty_server(scripted(SCRIPTS, killer.asked)) as server,
        doomed(postgres, tmp_path, killer) as stack,
    ):
        await stack.send("provider.register", name="scripted", base_url=server.url)
        await stack.send("toolset.register", name="errands", kind="openapi", openapi={"text": "{}"})
        await stack.until("SELECT * FROM headrace.toolsets WHERE refresh_status = 'ok'")
        app = await stack.make("app.create", name="Errands", mode="agent-chat")
        agent: dict[str, Any] = {"tools": [{"toolset": "errands"}], "approve": "never", "strategy": strategy}
        if strategy == "plugin":
            await install(stack, "team", unpacked(dify_agents.MANIFEST, dify_agents.FILES))
            await stack.send("plugin.enable", plugin="team")
            agent["plugin"] = {"name": "team", "strategy": "calling"}
        model = {"provider": "scripted", "name": "scripted"}
        await stack.send("app.configure", app=app, model=model, features={"agent": agent})

        accepted = await asked(stack, app, lambda: asyncio.sleep(0))
        answer, calls = await left(stack, accepted["message"])
        assert answer == "All is done."
        assert [code for *_, code in calls] == [None] * 3
        assert set(killer.effects().values()) == {1}

        for step in STEPS:
            before = killer.effects()
            killer.arm(step)

            async def kill() -> None:
                await killer.waits()
                await stack.kill("answer")
                killer.disarm()
                await stack.start("answer", PAID=str(killer.paid))

            accepted = await asked(stack, app, kill)
            found, made = await left(stack, accepted["message"])
            assert found == answer, step
            assert [call[:3] for call in made] == [call[:3] for call in calls], step
            lost = [call[1] for call in made if call[3]]
            assert lost == (["pay"] if "pay" in step else []), (step, made)
            effects = killer.effects() - before
            paid = [times for (name, _), times in effects.items() if name == "pay"]
            assert paid == ([] if step == "before pay" else [1]), (step, effects)
            looked = {call: times for (name, call), times in effects.items() if name == "look"}
            assert len(looked) == 2, (step, effects)
            assert sorted(looked.values()) == ([1, 2] if step == "after look" else [1, 1]), (step, effects)

        await stack.until("SELECT id FROM headrace.model_calls WHERE status = 'requested'", lambda rows: not rows)
        [open_calls] = await stack.sql("SELECT sum(open_calls) AS count FROM headrace.traces")
        assert open_calls["count"] == 0
        await assert_no_event_is_twice(stack, others=int(strategy == "plugin"))  # the package is the house's
        await assert_tables_equal_a_rebuild(stack)
