"""Runs of workflows: an empty one next to one command, steps of each kind, and an iteration of many items."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any

import orjson
from nats.aio.msg import Msg
from rich.progress import Progress

from domain.aggregate import new_id
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack

AT_ONCE = 64
ITEMS = 1000
PURE, SLOW = 50, 20
"""Steps of a chain of nodes without calls, and with a call of code."""

PATIENCE_S = 300.0

START = {"id": "start", "data": {"type": "start", "variables": []}}
END = {"id": "end", "data": {"type": "end", "outputs": []}}
CODE: dict[str, Any] = {
    "type": "code",
    "code_language": "python3",
    "code": "def main():\n    return {'a': 1}",
    "variables": [],
    "outputs": {"a": {"type": "number"}},
}
FIRST: dict[str, Any] = {"type": "variable-aggregator", "variables": [["each", "item"]], "output_type": "number"}
TEMPLATE: dict[str, Any] = {
    "type": "template-transform",
    "template": "No. {{ i }}",
    "variables": [{"variable": "i", "value_selector": ["each", "item"]}],
}
"""Nodes for an item of an iteration."""
JOIN: dict[str, Any] = {"type": "variable-aggregator", "variables": [["start", "x"]], "output_type": "string"}
MANY = "def main():\n    return {'list': list(range(%d))}"


class Runs:
    """Starts runs, and resolves their futures when they end."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def ready(self) -> None:
        await self._stack.client.connection.subscribe(f"live.{self._stack.settings.tenant}.run.*", cb=self._hear)

    async def _hear(self, message: Msg) -> None:
        frame = orjson.loads(message.data)
        id = message.subject.rpartition(".")[2]
        if frame["type"] == "finished" and (future := self._waiting.pop(id, None)):
            future.set_result(frame)

    async def run(self, app: str) -> dict[str, Any]:
        """Start a run, and wait for its end."""
        id = new_id()
        future = self._waiting[id] = asyncio.get_running_loop().create_future()
        await self._stack.client.send("run.start", {"app": app}, id, wait=60)
        async with asyncio.timeout(PATIENCE_S):
            frame = await future
        if frame["status"] != "succeeded":
            raise RuntimeError(f"The run {frame['status']}: {frame.get('reason')}")
        return {**frame, "id": id}

    async def timed(self, app: str, times: int) -> list[float]:
        """Milliseconds of runs, one after the other."""
        took = []
        for _ in range(times):
            began = time.perf_counter()
            await self.run(app)
            took.append(1000 * (time.perf_counter() - began))
        return took


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    times = max(5, sizes.singles // 3)
    bar = bars.add_task("workflow", total=5)
    runs = Runs(stack)
    await runs.ready()
    empty = await _app(stack, [START, END])
    pure, slow = await _app(stack, _chain(JOIN, PURE)), await _app(stack, _chain(CODE, SLOW))
    items = max(50, ITEMS * sizes.singles // Sizes().singles)
    each, written = [await _app(stack, *_iteration(items, data)) for data in (FIRST, TEMPLATE)]
    await runs.timed(empty, 20)
    command = percentile(await _commands(stack, empty, times), 50)
    took = percentile(await runs.timed(empty, times), 50)
    bars.advance(bar)
    second = await _per_second(runs, empty, max(10, sizes.commands // 3))
    commands = await _commands_per_second(stack, sizes.commands)
    bars.advance(bar)
    of_pure = (percentile(await runs.timed(pure, max(5, times // 5)), 50) - took) / PURE
    bars.advance(bar)
    of_slow = (percentile(await runs.timed(slow, max(3, times // 10)), 50) - took) / SLOW
    bars.advance(bar)
    item = percentile(await runs.timed(each, 3), 50) / items
    began = time.perf_counter()
    done = await runs.run(written)
    template = 1000 * (time.perf_counter() - began) / items
    commits = (await stack.client.stream.stream_info("EVENTS", subjects_filter=f"evt.*.run.{done['id']}")).state
    bars.advance(bar)
    return [
        Measure("workflow.empty.p50", took, "ms", command, Aim(ratio_at_most=4)),
        Measure("workflow.runs", second, "runs/s", commands, Aim(ratio=0.18)),
        Measure("workflow.pure", max(of_pure, 0.001), "ms/node", aim=Aim(at_most=1)),
        Measure("workflow.code", max(of_slow, 0.001), "ms/node", aim=Aim(at_most=9)),
        Measure("workflow.item", item, "ms/item", aim=Aim(at_most=2)),
        Measure("workflow.item.template", template, "ms/item"),
        Measure("workflow.item.commits", sum((commits.subjects or {}).values()), "commits", aim=Aim(at_most=40)),
    ]


async def _app(stack: Stack, nodes: Sequence[Any], edges: Sequence[tuple[str, str]] = ()) -> str:
    ids = [each["id"] for each in nodes]
    ways = edges or list(pairwise(ids))
    drawn = {"nodes": nodes, "edges": [{"source": a, "target": b, "sourceHandle": "source"} for a, b in ways]}
    app = await stack.make("app.create", {"name": "Bench", "mode": "workflow"})
    document = {"app": {"mode": "workflow"}, "workflow": {"graph": drawn}}
    await stack.make("workflow.save", {"app": app, "document": document})
    await stack.make("workflow.publish", {"workflow": app})
    return app


def _chain(data: dict[str, Any], length: int) -> list[dict[str, Any]]:
    return [START, *({"id": f"n{number}", "data": data} for number in range(length)), END]


def _iteration(items: int, data: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """A list, and a node for each of its items."""
    make = {**CODE, "code": MANY % items, "outputs": {"list": {"type": "array[number]"}}}
    over = {"type": "iteration", "iterator_selector": ["make", "list"], "output_selector": ["do", "output"]}
    nodes = [
        START,
        {"id": "make", "data": make},
        {"id": "each", "data": {**over, "start_node_id": "first", "is_parallel": True, "parallel_nums": 10}},
        {"id": "first", "data": {"type": "iteration-start"}, "parentId": "each"},
        {"id": "do", "data": data, "parentId": "each"},
        END,
    ]
    return nodes, [("start", "make"), ("make", "each"), ("first", "do"), ("each", "end")]


async def _commands(stack: Stack, app: str, times: int) -> list[float]:
    """Milliseconds of commands to their outcomes, one after the other."""
    took = []
    for number in range(times):
        began = time.perf_counter()
        await stack.client.send("app.rename", {"app": app, "name": f"Bench {number}"}, wait=60)
        took.append(1000 * (time.perf_counter() - began))
    return took


async def _per_second(runs: Runs, app: str, times: int) -> float:
    return await _rate(lambda: runs.run(app), times)


async def _commands_per_second(stack: Stack, times: int) -> float:
    return await _rate(lambda: stack.client.send("app.create", {"name": "Bench"}, wait=60), times)


async def _rate(one: Callable[[], Coroutine[Any, Any, object]], times: int) -> float:
    """The number of these in a second, some at once."""
    left = iter(range(times))

    async def some() -> None:
        for _ in left:
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return times / (time.perf_counter() - began)
