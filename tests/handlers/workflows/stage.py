"""A stage on which runs are played: a log in memory, workers that die at a commit, and a scripted world."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from domain.aggregate import Event, new_id
from domain.log import EVENTS, Commit, Metadata, Position, Subject
from domain.workflows import requests
from domain.workflows.graph import Graph, load
from domain.workflows.run import Run, RunLimits
from domain.workflows.values import Value
from handlers.graphs import Graphs
from handlers.repository import Repository
from handlers.run_values import RunValues
from handlers.workflows.execution import Execution, Executor
from handlers.workflows.run import RunWorkflow
from tests.domain.workflows import golden
from tests.domain.workflows.golden import Case, World
from tests.domain.workflows.test_run import STARTED
from tests.handlers.desk import Desk
from tests.memory import Memory, MemoryEventStore, MemoryLog, MemorySnapshots, MemoryStops

REQUESTS = [each for name, each in vars(requests).items() if name.endswith("Request") and name != "FormRequest"]
BEGINS = (Run.Started, Run.Answered, Run.TimedOut, Run.Retried, Run.StopRequested)


class Killed(BaseException):
    """The worker dies."""


class Mortal(MemoryEventStore):
    """A log that a worker reaches until it dies: before its n-th commit, or right after it."""

    def __init__(self, desk: Desk, memory: Memory, kill: int | None, *, after: bool) -> None:
        super().__init__(memory, desk.keys)  # type: ignore[arg-type]
        self.left, self.after, self.dead = kill, after, False

    def _living(self) -> None:
        if self.dead:
            raise Killed

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        self._living()
        return await super().load(subject, after=after, limit=limit)

    async def load_from_leader(self, subject: Subject, *, after: int) -> list[Commit]:
        self._living()
        return await super().load_from_leader(subject, after=after)

    async def append(self, subject: Subject, events: Sequence[Event], metadata: Metadata, expected: int) -> Position:
        self._living()
        if self.left is not None:
            self.left -= 1
            if self.left == 0 and not self.after:
                self.dead = True
                raise Killed
        position = await super().append(subject, events, metadata, expected)
        if self.left == 0:
            self.dead = True
            raise Killed
        return position


class Stage:
    def __init__(self, memory: Memory, tenant: str) -> None:
        self.memory, self.tenant = memory, tenant
        self.desk = Desk(memory, tenant)
        self.stops = MemoryStops(memory)
        self.executors: Mapping[type, Executor] = {}
        self.own: Callable[[Repository], Mapping[type, Executor]] = lambda repository: {}
        """Executors of each worker's own."""
        self.made: defaultdict[str, int] = defaultdict(int)
        """Outside calls by step."""

    def play(self, case: Case) -> World:
        """Let the scripted world of a case answer all calls."""
        world = World(case)

        async def answer(execution: Execution) -> Any:
            self.made[execution.call.key] += 1
            tokens, _, answered = world.answer(execution.call)
            await asyncio.sleep(0)
            for _, said in tokens:
                await execution.say("text", said)
            return answered

        self.executors = dict.fromkeys(REQUESTS, answer)
        return world

    async def case(self, case: Case) -> str:
        """A recorded case that has begun. Raises: Rejection, WrongType."""
        world = self.play(case)
        state = golden.begin(case, world)
        given = golden.given(case, world, state.graph)
        limits = RunLimits(steps=state.limits.steps, seconds=1200.0)
        values = {"inputs": given.inputs, "system": given.system, "variables": given.conversation}
        return await self.started(state.graph, **values, limits=limits)

    async def started(
        self,
        graph: Graph,
        *,
        inputs: Mapping[str, Value] | None = None,
        system: Mapping[str, Value] | None = None,
        variables: Mapping[str, Value] | None = None,
        user: str = "",
        **more: Any,
    ) -> str:
        """A run of a graph that has begun."""
        person = await self.desk.keys.person(self.tenant, user) if user else None
        id, at = new_id(), datetime.now(UTC)
        recorded = RunValues(self.desk.files, self.tenant, person)
        digest = await self.desk.blobs.put(self.tenant, json.dumps(graph.normalised).encode())
        fields: dict[str, Any] = {
            **STARTED,
            "app": new_id(),
            "mode": graph.mode,
            "graph": digest,
            "version": 1,
            "user": user,
            "inputs": await recorded.put(inputs or {}),
            "system": await recorded.put(system or {}),
            "variables": await recorded.put(variables or {}),
            **more,
        }
        metadata = Metadata(new_id(), self.tenant, new_id(), person=person)
        run = Run.begin(Run.Started, id, at, **fields)
        await self.desk.repository.change(Run, id, metadata, lambda known: known or run, new=True)
        return id

    def cause(self) -> Metadata:
        return Metadata(new_id(), self.tenant, new_id())

    @staticmethod
    def taken(run: Run | None, by: str) -> Run:
        assert run is not None
        run.take(datetime.now(UTC), by=by)
        return run

    def worker(self, kill: int | None = None, *, after: bool = False) -> RunWorkflow:
        """A worker of its own process, which dies at its n-th commit."""
        store = Mortal(self.desk, self.memory, kill, after=after)
        repository = Repository(store, MemorySnapshots(self.memory, self.desk.keys))  # type: ignore[arg-type]
        files, live = self.desk.files, self.desk.live
        executors = {**self.executors, **self.own(repository)}

        async def at_once(seconds: float) -> None:
            await asyncio.sleep(0)

        return RunWorkflow(
            repository, Graphs(self.desk.blobs), files, live, self.stops, self.desk.vault.open, executors, at_once
        )

    async def work(
        self, run: str, *, kill: int | None = None, after: bool = False, worker: RunWorkflow | None = None
    ) -> Run:
        """Deliver what begins work until nothing is left; a delivery whose worker died comes again."""
        done: set[int] = set()
        worker = worker or self.worker(kill, after=after)
        while todo := [
            each for each in await self.commits(run) if each.position.sequence not in done and _begins(each)
        ]:
            try:
                await worker(todo[0])
            except Killed:
                worker = self.worker()
            else:
                done.add(todo[0].position.sequence)
        found = await self.desk.repository.get(Run, self.tenant, run)
        assert found is not None
        return found

    async def commits(self, run: str) -> list[Commit]:
        log = MemoryLog(self.memory, self.desk.keys)  # type: ignore[arg-type]
        return [
            commit
            async for batch in log.read(EVENTS, 0, follow=False)
            for commit in batch
            if isinstance(commit, Commit) and commit.subject == Subject(self.tenant, Run.TOPIC, run)
        ]

    async def events(self, run: str) -> list[Event]:
        return [event for commit in await self.commits(run) for event in commit.events]

    async def stepped(self, run: str) -> list[str]:
        """The keys of recorded steps, in order."""
        return [step["key"] for each in await self.events(run) if isinstance(each, Run.Stepped) for step in each.steps]

    async def end(self, run: str) -> tuple[str, dict[str, Any], str]:
        """The status, outputs and error of a run that has ended."""
        [event] = [each for each in await self.events(run) if isinstance(each, Run.Finished)]
        commits = await self.commits(run)
        recorded = RunValues(self.desk.files, self.tenant, commits[0].metadata.person)
        outputs = await recorded.get(event.outputs)
        return event.status, {name: value.data for name, value in outputs.items()}, event.reason


def _begins(commit: Commit) -> bool:
    return any(isinstance(event, BEGINS) for event in commit.events)


def graph(
    nodes: Sequence[Mapping[str, Any]], edges: Sequence[tuple[str, ...]], mode: str = "workflow", **more: Any
) -> Graph:
    """A graph of nodes (`id`, `type` and fields), and edges (source, target, handle)."""
    written = [
        {
            "id": each["id"],
            "parentId": each.get("parent"),
            "data": {k: v for k, v in each.items() if k not in ("id", "parent")},
        }
        for each in nodes
    ]
    ways = [{"source": each[0], "target": each[1], "sourceHandle": [*each, "source"][2]} for each in edges]
    workflow = {"graph": {"nodes": written, "edges": ways}, **more}
    return load({"kind": "app", "app": {"mode": mode}, "workflow": workflow})
