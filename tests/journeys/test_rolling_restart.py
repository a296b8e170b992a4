"""Every role restarted one after another under load, as a rollout does it: no message fails, no answer has a hole."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.jetstream.client import Frame
from ops.roles import ROLES
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.chat_servers import Exchange, FaultyServer, faulty_server
from tests.conftest import fresh_database
from tests.journeys.stack import Stack
from tests.journeys.test_handbook import HANDBOOK

log = logging.getLogger(__name__)

WORDS, PAUSE_S = 40, 0.05
"""An answer takes two seconds."""

LONGEST_GAP_S = 2.0


async def speaks_slowly(exchange: Exchange) -> None:
    await exchange.begin()
    for number in range(WORDS):
        await exchange.say(f"word{number} ")
        await asyncio.sleep(PAUSE_S)
    await exchange.say(finish="stop")
    await exchange.event("[DONE]")
    await exchange.end()


async def speaks_for_ever(exchange: Exchange) -> None:
    """The first request gets an answer without end, those after it a short one."""
    if exchange.number > 1:
        await exchange.finish("At last.")
        return
    await exchange.begin()
    while True:
        await exchange.say("and ")
        await asyncio.sleep(0.02)


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
async def rolled(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("rolled")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings, [f"{role}.0" for role in ROLES]) as stack:
            yield stack


async def make_app(stack: Stack, server: FaultyServer, provider: str) -> str:
    await stack.send("provider.register", name=provider, base_url=server.url)
    app = await stack.make("app.create", name=provider)
    await stack.send("app.configure", app=app, model={"provider": provider, "name": "slow"})
    return app


class Load:
    """Questions, uploads and commands one after the other, and what came of them."""

    def __init__(self, stack: Stack, app: str, dataset: str) -> None:
        self.stack = stack
        self.app = app
        self.dataset = dataset
        self.answers: list[list[tuple[float, Frame]]] = []
        self.documents: list[str] = []
        self.apps = 0
        self._over = asyncio.Event()

    async def __aenter__(self) -> Load:
        self._tasks = [
            asyncio.create_task(work) for work in (*(self._ask() for _ in range(3)), self._upload(), self._send())
        ]
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        while not self._over.is_set():
            frames: list[tuple[float, Frame]] = []
            self.answers.append(frames)
            async for frame in self.stack.client.ask(self.app, "Well?", wait=60, patience=60):
                frames.append((time.monotonic(), frame))

    async def _upload(self) -> None:
        while not self._over.is_set():
            for file in HANDBOOK:
                if not self._over.is_set():
                    self.documents += (uploaded := await self.stack.upload(self.dataset, file))
                    await self.stack.ended(uploaded)
                    await asyncio.sleep(0.2)

    async def _send(self) -> None:
        while not self._over.is_set():
            await self.stack.make("app.create", name="more")
            self.apps += 1
            await asyncio.sleep(0.05)


def longest_gap(frames: list[tuple[float, Frame]]) -> float:
    """Seconds between two tokens of one attempt."""
    longest, before = 0.0, None
    for at, frame in frames:
        if frame["type"] == "token":
            if before and before[1] == frame["attempt"]:
                longest = max(longest, at - before[0])
            before = at, frame["attempt"]
    return longest


@pytest.mark.parametrize(
    ("roles", "start_first"),
    [(ROLES, True), (("embed", "commands", "answer"), False)],
)
async def test_restarts_under_load(rolled: Stack, roles: Sequence[str], start_first: bool) -> None:
    dataset = await rolled.make("dataset.create", name="handbook")
    async with faulty_server(speaks_slowly) as server:
        app = await make_app(rolled, server, f"slow-{start_first}".lower())
        async with Load(rolled, app, dataset) as load:
            for role in roles:
                [old] = rolled.of(role)
                new = f"{old}+"
                if start_first:
                    await rolled.start(new)
                    await rolled.stop(old)
                else:
                    await rolled.stop(old)
                    await rolled.start(new)
    rows = await rolled.ended(load.documents)
    assert {row["indexing_status"] for row in rows.values()} == {"completed"}
    assert load.apps > 0
    assert len(load.answers) >= 3
    for frames in load.answers:
        assert frames[-1][1]["type"] == "answered", frames[-1][1]
        assert frames[-1][1]["answer"].split() == [f"word{number}" for number in range(WORDS)]
        assert longest_gap(frames) < LONGEST_GAP_S
    restarted = [frame for frames in load.answers for _, frame in frames if frame["type"] == "restarted"]
    attempts = {frame["attempt"] for frames in load.answers for _, frame in frames if frame["type"] == "token"}
    assert attempts == {1, *(frame["attempt"] for frame in restarted)}
    await rolled.until("SELECT * FROM headrace.model_calls WHERE status = 'requested'", lambda rows: not rows)
    gaps = max(map(longest_gap, load.answers))
    done = len(load.answers), len(load.documents), load.apps
    log.info("%d answers, %d documents, %d apps; longest gap %.2f s", *done, gaps)


async def test_an_answer_that_outlasts_the_grace_is_begun_again_elsewhere(rolled: Stack) -> None:
    async with faulty_server(speaks_for_ever) as server:
        app = await make_app(rolled, server, "endless")
        others = rolled.of("answer")
        await rolled.start("answer.hasty", HEADRACE_GRACE_S="0.5")
        await rolled.stop(*others)
        frames: list[Frame] = []
        stopping: asyncio.Task[None] | None = None
        async for frame in rolled.client.ask(app, "And?", wait=60, patience=60):
            frames.append(frame)
            if stopping is None and frame["type"] == "token":
                await rolled.start("answer.other")
                stopping = asyncio.create_task(rolled.stop("answer.hasty"))
        assert stopping is not None
        await stopping
    [again] = [frame for frame in frames if frame["type"] == "restarted"]
    assert again == {"type": "restarted", "attempt": 2}
    after = frames[frames.index(again) :]
    assert {frame["attempt"] for frame in after if frame["type"] == "token"} == {2}
    assert frames[-1]["answer"] == "At last."
    message = frames[0]["message"]
    calls = await rolled.until(
        "SELECT status FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat' ORDER BY created_at",
        lambda rows: len(rows) == 2 and rows[1]["status"] == "completed",
        id=message,
    )
    assert [row["status"] for row in calls] == ["cancelled", "completed"]
