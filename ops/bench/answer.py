"""Time from a question to the first token of its answer, where it goes, and answers per second, with an instant model.

The limits are a NATS round trip, and acknowledged publishes as many as a question stores.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
from nats.aio.msg import Msg
from rich.progress import Progress

from adapters.jetstream.client import LAST_FRAMES, Client
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from domain.aggregate import new_id
from domain.log import EVENTS, Commit
from domain.models.model_call import ModelCall
from ops.bench.commands import BARE, add_bare_stream, at_once, publishes_per_second
from ops.bench.documents import handbook, upload
from ops.bench.measure import Aim, Measure, in_turns, percentile
from ops.bench.processes import processor_s
from ops.bench.rebuild import caught_up
from ops.bench.stack import Sizes, Stack

PAUSE_S = 0.1
"""Pause between questions, so that each meets idle workers, in seconds."""

PATIENCE_S = 60.0
WARM = 10

IN_FLIGHT = 16
"""Number of questions that are answered at a time, where answers per second are measured."""

RATIOS = {"answer": 0.45, "answer.retrieved": 0.28}
"""Aims of answers per second, as a multiple of the limit."""

STAGES = {
    "message.asked": "asked",
    "message.answering": "begun",
    "model_call.requested embedding": "embed",
    "model_call.completed embedding": "embedded",
    "retrieval.made": "retrieval",
    "model_call.requested chat": "chat",
    "model_call.completed chat": "said",
    "message.answered": "answered",
}
"""Stages of an answer by the commits that show them: the type of the event, with the kind of the call."""

ORDER = ("stored", *STAGES.values(), "first_token", "last_frame")
"""All stages, with those that the asking program sees."""

QUESTIONS = Path(__file__).resolve().parents[2] / "examples" / "questions.json"


@dataclass(slots=True)
class Question:
    """Readings of `time.time()`: when it was sent, stored, and answered by a first token and to the end."""

    app: str
    sent: float
    stored: float = 0.0
    first: float = 0.0
    last: float = 0.0

    @property
    def milliseconds(self) -> float:
        """Time to the first token of the answer."""
        return 1000 * (self.first - self.sent)


class Answers:
    """Asks questions, and hears their answers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.questions: dict[str, Question] = {}
        self._ended: dict[str, asyncio.Future[str]] = {}

    async def subscribe(self) -> None:
        await self._client.connection.subscribe(f"live.{self._client.tenant}.>", cb=self._take)

    async def _take(self, message: Msg) -> None:
        id = message.subject.rpartition(".")[2]
        question, type = self.questions[id], orjson.loads(message.data)["type"]
        if type == "token":
            question.first = question.first or time.time()
        elif type in LAST_FRAMES:
            question.last = time.time()
            self._ended[id].set_result(type)

    async def ask(self, app: str, query: str) -> Question:
        """Ask, and wait for the end of the answer. Raises: RuntimeError without one."""
        id = new_id()
        ended = self._ended[id] = asyncio.get_running_loop().create_future()
        payload = orjson.dumps({"app": app, "query": query})
        subject = f"cmd.{self._client.tenant}.anon.message.send"
        question = self.questions[id] = Question(app, time.time())
        await self._client.stream.publish(subject, payload, headers={"Headrace-Id": id})
        question.stored = time.time()
        type = await asyncio.wait_for(ended, PATIENCE_S)
        if type != "answered":
            raise RuntimeError(f"no answer: {type}")
        return question

    async def milliseconds(self, app: str, query: str) -> float:
        """Time from publishing a question to the first token of its answer."""
        return (await self.ask(app, query)).milliseconds

    def by_app(self, count: int) -> dict[str, dict[str, Question]]:
        """The last `count` questions, by app and id."""
        found: defaultdict[str, dict[str, Question]] = defaultdict(dict)
        for id, question in list(self.questions.items())[-count:]:
            found[question.app][id] = question
        return found


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    dataset = await stack.make("dataset.create", {"name": "Handbook"})
    await upload(stack, dataset, handbook())
    apps = {name: await _app(stack, datasets) for name, datasets in (("answer", []), ("answer.retrieved", [dataset]))}
    answers = Answers(stack.client)
    await answers.subscribe()
    await add_bare_stream(stack)
    queries = questions()
    for query in queries[: max(WARM, sizes.questions)]:  # the passages that prompts quote are recorded once
        for app in apps.values():
            await answers.ask(app, query)
    bar = bars.add_task("answers", total=2 * sizes.questions)
    since, trips = await _last(stack), list[float]()
    for number in range(sizes.questions):
        for app in apps.values():
            await asyncio.sleep(PAUSE_S)
            await answers.ask(app, queries[number % len(queries)])
            await asyncio.sleep(PAUSE_S)
            began = time.perf_counter()
            await stack.client.connection.request("worker.answer")
            trips.append(1000 * (time.perf_counter() - began))
            bars.advance(bar)
    asked = answers.by_app(2 * sizes.questions)
    stages = await _stages(stack, since, asked)
    found = []
    for name, app in apps.items():
        times = [question.milliseconds for question in asked[app].values()]
        for percent, aim in ((50, 15), (95, 30)):
            limit = percentile(trips, percent)
            found.append(Measure(f"{name}.p{percent}", percentile(times, percent), "ms", limit, Aim(at_most=aim)))
        found += [Measure(f"{name}.at.{stage}", at, "ms") for stage, at in stages[app].items()]
    for name, app in apps.items():
        found += await _throughput(stack, sizes, answers, name, app)
    return found


async def _throughput(stack: Stack, sizes: Sizes, answers: Answers, name: str, app: str) -> list[Measure]:
    """Answers per second, the messages that a question stores, and the processor time that it takes, by process."""
    queries = itertools.cycle(questions())
    count = 2 * sizes.questions
    stored, used = 0, defaultdict[str, float](float)

    async def answers_per_second(_: int) -> float:
        nonlocal stored
        before, processors, began = await _stored(stack), processor_s(stack), time.perf_counter()
        await at_once(lambda: answers.ask(app, next(queries)), count, IN_FLIGHT)
        took = time.perf_counter() - began
        await caught_up(stack)
        for process, times in processor_s(stack).items():
            used[process] += sum(used_s - processors[process].get(pid, 0.0) for pid, used_s in times.items())
        stored += await _stored(stack) - before
        return count / took

    async def publishes(_: int) -> float:
        return await publishes_per_second(stack, sizes.commands)

    rate, bare = await in_turns(sizes.rounds, answers_per_second, publishes)
    each = stored / (sizes.rounds * count)
    return [
        Measure(f"{name}.rate", rate, "answers/s", bare / each, Aim(ratio=RATIOS[name])),
        Measure(f"{name}.messages", each, "messages"),
        *(
            Measure(f"{name}.processor.{process}", 1000 * seconds / (sizes.rounds * count), "ms")
            for process, seconds in used.items()
        ),
    ]


async def _stages(stack: Stack, since: int, asked: Mapping[str, Mapping[str, Question]]) -> dict[str, dict[str, float]]:
    """Median milliseconds from a question to each stage of its answer, by app; commits count as they reach the log."""
    keys = JetStreamKeys(stack.client.connection, stack.settings.vault())
    log = JetStreamLog(stack.client.connection, keys, stack.client.blobs)
    reached: defaultdict[str, dict[str, datetime]] = defaultdict(dict)
    kinds: dict[str, str] = {}
    async for batch in log.read(EVENTS, since, follow=False):
        for commit in (message for message in batch if isinstance(message, Commit)):
            for event in commit.events:
                if isinstance(event, ModelCall.Requested):
                    kinds[commit.subject.id] = event.kind
                name = event.TOPIC.rpartition(".")[0]
                kind = kinds.get(commit.subject.id)
                if stage := STAGES.get(f"{name} {kind}" if kind else name):
                    reached[commit.metadata.correlation][stage] = commit.at
    found = {}
    for app, questions in asked.items():
        times: defaultdict[str, list[float]] = defaultdict(list)
        for id, question in questions.items():
            at = {stage: when.timestamp() for stage, when in reached[id].items()}
            at |= {"stored": question.stored, "first_token": question.first, "last_frame": question.last}
            for stage, when in at.items():
                times[stage].append(1000 * (when - question.sent))
        found[app] = {stage: statistics.median(times[stage]) for stage in ORDER if stage in times}
    return found


async def _last(stack: Stack) -> int:
    return await JetStreamLog(stack.client.connection).last(EVENTS)


async def _stored(stack: Stack) -> int:
    """The number of messages that were ever stored, but for bare publishes."""
    streams = await stack.client.stream.streams_info()
    return sum(stream.state.last_seq for stream in streams if stream.config.name != BARE)


def questions() -> list[str]:
    """Questions that the handbook answers."""
    return [entry["question"] for entry in json.loads(QUESTIONS.read_text("utf-8"))]


async def _app(stack: Stack, datasets: list[str]) -> str:
    app = await stack.make("app.create", {"name": "Handbook assistant"})
    await stack.make("app.configure", {"app": app, "datasets": datasets})
    return app
