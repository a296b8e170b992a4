"""Time that the loop of an agent takes between two calls of its model, without the model and the tool.

The model is a server in this process, which calls the calculator in every round but the last. The limits are
acknowledged publishes, one after the other, as many as a round or a record has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import orjson
from rich.progress import Progress

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from domain.log import EVENTS, Commit
from domain.models.model_call import ModelCall
from domain.tools.tool_call import ToolCall
from ops.bench.answer import PAUSE_S, WARM, Answers
from ops.bench.commands import add_bare_stream, publish
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack

ROUNDS = 8
"""Rounds with a call of a tool, before the round with the answer."""

COMMITS = 4
"""Commits of a round, one after the other: the end of the model's call, both of the tool's, the next of the model."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = {"choices": [], "usage": {"prompt_tokens": 400, "completion_tokens": 20, "total_tokens": 420}}


@dataclass(slots=True)
class Model:
    """A server of a model that takes no time, with readings of `time.time()`: when requests came, and answers left."""

    url: str = ""
    came: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    connections: set[asyncio.Task[None] | None] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = orjson.loads(await reader.readexactly(length))
                self.came.append(time.time())
                writer.write(_answer(sum(message["role"] == "assistant" for message in body["messages"])))
                await writer.drain()
                self.left.append(time.time())
        writer.close()


def _answer(number: int) -> bytes:
    """The answer of a round, from 0."""
    function = {"name": "calculate", "arguments": f'{{"expression": "{number} * 7"}}'}
    call = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
    last = number == ROUNDS
    delta = {"content": "It is done."} if last else {"tool_calls": [call]}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if last else "tool_calls"}
    events = b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in ({"choices": [choice]}, USAGE))
    events += b"data: [DONE]\n\n"
    return HEAD + f"{len(events):x}\r\n".encode() + events + b"\r\n0\r\n\r\n"


@asynccontextmanager
async def _model() -> AsyncIterator[Model]:
    model = Model()
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield model
    finally:
        server.close()
        for connection in model.connections:
            if connection:
                connection.cancel()
        await server.wait_closed()


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    questions = max(1, sizes.questions // 4)
    bar = bars.add_task("agent", total=questions)
    answers = Answers(stack.client)
    await answers.subscribe()
    await add_bare_stream(stack)
    keys = JetStreamKeys(stack.client.connection, stack.settings.vault())
    log = JetStreamLog(stack.client.connection, keys, stack.client.blobs)
    async with _model() as model:
        app = await _agent(stack, model.url)
        for _ in range(WARM):
            await answers.ask(app, "Calculate.")
        model.came.clear()
        model.left.clear()
        since, publishes = await log.last(EVENTS), list[float]()
        for _ in range(questions):
            await asyncio.sleep(PAUSE_S)
            await answers.ask(app, "Calculate.")
            publishes += [await _publish(stack) for _ in range(COMMITS)]
            bars.advance(bar)
    commits = [commit async for batch in log.read(EVENTS, since, follow=False) for commit in batch]
    calls = [commit for commit in commits if commit.subject.noun in (ModelCall.TOPIC, ToolCall.TOPIC)]
    tools = [event.duration_ms for commit in calls for event in commit.events if isinstance(event, ToolCall.Completed)]
    stages = _stages(model, [commit for commit in calls if isinstance(commit, Commit)])
    own = [max(0.0, took - tool) for took, tool in zip(stages["request"], tools, strict=True)]
    records = [
        max(0.0, ended - begun - tool)
        for begun, ended, tool in zip(stages["tool"], stages["result"], tools, strict=True)
    ]
    found = []
    for percent, aim in ((50, Aim(at_most=5)), (95, None)):
        bare = percentile(publishes, percent)
        found.append(Measure(f"agent.round.p{percent}", percentile(own, percent), "ms", COMMITS * bare, aim))
        found.append(Measure(f"agent.record.p{percent}", percentile(records, percent), "ms", bare))
    found += [Measure(f"agent.at.{stage}", percentile(times, 50), "ms") for stage, times in stages.items()]
    return [*found, Measure("agent.messages", len(calls) / len(own), "messages")]


async def _publish(stack: Stack) -> float:
    """Milliseconds of an acknowledged publish."""
    began = time.perf_counter()
    await publish(stack)
    return 1000 * (time.perf_counter() - began)


STAGES = {
    ModelCall.Completed: "said",
    ToolCall.Requested: "tool",
    ToolCall.Completed: "result",
    ModelCall.Requested: "next",
}
"""Stages of a round by the events whose commits show them, after the model's answer."""


def _stages(model: Model, commits: Sequence[Commit]) -> dict[str, list[float]]:
    """Milliseconds from each answer with a call of a tool to each stage of its round; the last is the next request."""
    found: dict[str, list[float]] = {stage: [] for stage in (*STAGES.values(), "request")}
    times = iter([(STAGES[type(event)], commit.at.timestamp()) for commit in commits for event in commit.events])
    for at, left in enumerate(model.left):
        if at % (ROUNDS + 1) == 0:
            next(times)  # the request of the first round
        if at % (ROUNDS + 1) == ROUNDS:
            next(times)  # the end of the answer
            continue
        for _ in STAGES:
            stage, reached = next(times)
            found[stage].append(1000 * (reached - left))
        found["request"].append(1000 * (model.came[at + 1] - left))
    return found


async def _agent(stack: Stack, url: str) -> str:
    await stack.make("provider.register", {"name": "instant", "base_url": url, "check": False})
    app = await stack.make("app.create", {"name": "Agent", "mode": "agent-chat"})
    agent = {"tools": [{"toolset": "builtin", "tools": ["calculate"]}], "rounds": ROUNDS + 2}
    model = {"provider": "instant", "name": "instant"}
    await stack.make("app.configure", {"app": app, "model": model, "features": {"agent": agent}})
    return app
