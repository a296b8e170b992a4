"""A tenant whose provider never answers does not delay others, and its further messages fail at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator

import orjson
import pytest
from nats.aio.msg import Msg

from adapters.jetstream.client import Client
from tests.chat_servers import Exchange, faulty_server, works
from tests.journeys.stack import PATIENCE_S, Stack

BUSY = "busy"
MESSAGES = 80
"""More than the slots that a tenant may have."""

SHARE = 64
SILENCE_S = 8


@pytest.fixture
async def impatient(headrace: Stack) -> AsyncIterator[Stack]:
    """The same Headrace with an answering worker that waits some seconds for a silent model."""
    await headrace.kill("answer")
    await headrace.start("answer", HEADRACE_MODEL_TIMEOUT_S=str(SILENCE_S))
    yield headrace
    await headrace.kill("answer")
    await headrace.start("answer")


async def asked(headrace: Stack, app: str, times: int) -> list[float]:
    """Seconds from each question to its answer."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        frames = await headrace.ask(app, "Well?")
        took.append(time.perf_counter() - began)
        assert frames[-1]["type"] == "answered"
    return took


async def test_a_tenant_is_answered_while_the_provider_of_another_is_silent(impatient: Stack) -> None:
    answers, ends = asyncio.Event(), dict[str, list[str]]()

    async def behaviour(exchange: Exchange) -> None:
        await (works(exchange) if answers.is_set() else asyncio.sleep(1000))

    async def hear(message: Msg) -> None:
        frame, id = orjson.loads(message.data), message.subject.rpartition(".")[2]
        if frame["type"] in ("answered", "failed"):
            ends.setdefault(id, []).append(frame.get("code") or "answered")

    victim = await impatient.make("app.create", name="victim")
    await impatient.send("app.configure", app=victim)
    alone = statistics.median(await asked(impatient, victim, 10))
    async with faulty_server(behaviour) as server, await Client.connect(impatient.nats_url, BUSY) as busy:

        async def send(name: str, /, **payload: object) -> str:
            outcome = await busy.send(name, payload, wait=PATIENCE_S)
            assert outcome["status"] == "accepted", outcome
            return str(outcome["command"])

        await busy.connection.subscribe(f"live.{BUSY}.>", cb=hear)
        await send("provider.register", name="silent", base_url=server.url, key="", check=False)
        app = await send("app.create", name="busy")
        await send("app.configure", app=app, model={"provider": "silent", "name": "any"})
        messages = await asyncio.gather(*(send("message.send", app=app, query="Well?") for _ in range(MESSAGES)))
        async with asyncio.timeout(PATIENCE_S):
            while len(server.requests) < SHARE:
                await asyncio.sleep(0.05)
        together = statistics.median(await asked(impatient, victim, 10))
        assert len(server.requests) == SHARE
        assert together < 5 * alone + 0.2, "loosely: other tests run on this machine"

        rows = await impatient.until(
            "SELECT * FROM headrace.messages WHERE tenant_id = %(tenant)s AND status = 'failed'",
            lambda found: len(found) == MESSAGES,
            tenant=BUSY,
        )
        codes = Counter(row["error_code"] for row in rows)
        # The first slots are free before the last of those calls has ended the provider for all.
        assert set(codes) == {"timeout", "provider_unavailable"}
        assert SHARE <= codes["timeout"] < MESSAGES - 4
        assert len(server.requests) == codes["timeout"], "the others were not sent"

        answers.set()
        retried = messages[-1]
        async with asyncio.timeout(PATIENCE_S):
            while ends[retried][-1] != "answered":
                count = len(ends[retried])
                await send("message.retry", conversation=retried, message=retried)
                while len(ends[retried]) == count:
                    await asyncio.sleep(0.1)
                await asyncio.sleep(0.5)
        assert set(ends[retried][1:-1]) <= {"provider_unavailable"}
