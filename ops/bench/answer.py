"""Time from a question to the first token of its answer, with an instant model, compared with a NATS round trip."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import orjson
from nats.aio.msg import Msg
from rich.progress import Progress

from adapters.jetstream.client import Client
from domain.aggregate import new_id
from ops.bench.documents import handbook, upload
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack

PAUSE_S = 0.1
"""Pause between questions, so that each meets idle workers, in seconds."""

PATIENCE_S = 60.0
WARM = 10

QUESTIONS = Path(__file__).resolve().parents[2] / "examples" / "questions.json"


class Answers:
    """Records the arrival of first tokens, and waits for final frames."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._first: dict[str, float] = {}
        self._last: dict[str, asyncio.Future[dict[str, object]]] = {}

    async def subscribe(self) -> None:
        await self._client.connection.subscribe(f"live.{self._client.tenant}.>", cb=self._take)

    async def _take(self, message: Msg) -> None:
        now = time.perf_counter()
        frame, id = orjson.loads(message.data), message.subject.rpartition(".")[2]
        if frame["type"] == "token":
            self._first.setdefault(id, now)
        elif frame["type"] != "retrieved":
            self._last[id].set_result(frame)

    async def milliseconds(self, app: str, query: str) -> float:
        """Time from publishing a question to the first token of its answer."""
        id = new_id()
        last = self._last[id] = asyncio.get_running_loop().create_future()
        payload = orjson.dumps({"app": app, "query": query})
        subject = f"cmd.{self._client.tenant}.anon.message.send"
        began = time.perf_counter()
        await self._client.stream.publish(subject, payload, headers={"Headrace-Id": id})
        frame = await asyncio.wait_for(last, PATIENCE_S)
        if frame["type"] != "answered":
            raise RuntimeError(f"no answer: {frame}")
        return 1000 * (self._first[id] - began)


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    bar = bars.add_task("answers", total=2 * sizes.questions)
    dataset = await stack.make("dataset.create", {"name": "Handbook"})
    await upload(stack, dataset, handbook())
    plain, cited = [await _app(stack, datasets) for datasets in ([], [dataset])]
    answers = Answers(stack.client)
    await answers.subscribe()
    queries = questions()
    for number in range(min(WARM, sizes.questions)):
        for app in (plain, cited):
            await answers.milliseconds(app, queries[number % len(queries)])
    times: dict[str, list[float]] = {plain: [], cited: []}
    trips: list[float] = []
    for number in range(sizes.questions):
        for app in (plain, cited):
            await asyncio.sleep(PAUSE_S)
            times[app].append(await answers.milliseconds(app, queries[number % len(queries)]))
            await asyncio.sleep(PAUSE_S)
            began = time.perf_counter()
            await stack.client.connection.request("worker.answer")
            trips.append(1000 * (time.perf_counter() - began))
            bars.advance(bar)
    aims = {50: Aim(at_most=15), 95: None}
    return [
        Measure(f"{name}.p{percent}", percentile(times[app], percent), "ms", percentile(trips, percent), aim)
        for name, app in (("answer", plain), ("answer.retrieved", cited))
        for percent, aim in aims.items()
    ]


def questions() -> list[str]:
    """Questions that the handbook answers."""
    return [entry["question"] for entry in json.loads(QUESTIONS.read_text("utf-8"))]


async def _app(stack: Stack, datasets: list[str]) -> str:
    app = await stack.make("app.create", {"name": "Handbook assistant"})
    await stack.make("app.configure", {"app": app, "datasets": datasets})
    return app
