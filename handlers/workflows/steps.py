"""Steps of a run: what has happened since the last commit, as it is recorded and shown."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from domain.workflows.graph import Graph
from domain.workflows.node_type import Write
from domain.workflows.record import Ended, Happening, Next, Result, Retried, Skipped, Started, Stopped
from domain.workflows.reply import Printed
from domain.workflows.run import Batch, Step, Values
from domain.workflows.values import Value
from handlers.run_values import RunValues
from handlers.workflows.execution import Execution


@dataclass(slots=True)
class _Happened:
    """A step that began or ended, before its values are recorded."""

    step: Step
    outputs: Mapping[str, Value] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    writes: Sequence[Write] = ()
    error: str | None = None


@dataclass(slots=True)
class Steps:
    graph: Graph
    begun: dict[str, datetime]
    """Times at which steps began that have not ended."""
    tokens: int = 0
    exceptions: int = 0
    _pending: list[_Happened] = field(default_factory=list, init=False)
    _results: defaultdict[str, deque[Result]] = field(default_factory=lambda: defaultdict(deque), init=False)
    _executions: defaultdict[str, list[Execution]] = field(default_factory=lambda: defaultdict(list), init=False)
    _attempts: dict[str, int] = field(default_factory=dict, init=False)
    _kept: set[str] = field(default_factory=set, init=False)

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, results: Iterable[Result], kept: Iterable[str] = ()) -> None:
        """Note results that the engine has folded; those of the keys `kept` are of another run."""
        self._kept.update(kept)
        for result in results:
            self._results[result.key].append(result)

    def made(self, execution: Execution) -> None:
        """Note an outside call of a step."""
        self._executions[execution.call.key].append(execution)
        self._attempts[execution.call.key] = execution.call.attempt

    def take(self, happened: Iterable[Happening]) -> Iterator[dict[str, Any]]:
        """Take in what has happened, and yield live frames of it."""
        at, printed = datetime.now(UTC), list[Printed]()
        for each in happened:
            if isinstance(each, Printed) and (not printed or printed[0].selector == each.selector):
                printed.append(each)
                continue
            yield from _text(printed)
            printed = [each] if isinstance(each, Printed) else []
            if isinstance(each, Next):
                yield {"type": "next", "key": each.key, "node": each.node, "index": each.index}
            elif not isinstance(each, Printed):
                yield {"type": "step", **self._note(each, at)}
        yield from _text(printed)

    def _note(self, happening: Started | Ended | Skipped | Retried | Stopped, at: datetime) -> Step:
        key = happening.key
        found = _Happened(self._step(key, happening.node, at))
        match happening:
            case Started():
                self.begun[key] = at
                found.step["status"] = "running"
            case Skipped():
                found.step["status"] = "skipped"
            case Stopped():
                found.step["status"] = "stopped"
            case Retried():
                found.step["status"] = "retried"
            case Ended():
                found.step["status"] = happening.status
                found.outputs, found.error = happening.outputs, happening.error
                self.exceptions += happening.status == "exception"
        if isinstance(happening, Ended | Retried):
            self._end(found, happening, at)
        self._pending.append(found)
        return found.step

    def _step(self, key: str, node: str, at: datetime) -> Step:
        known = self.graph.nodes[node]
        began = self.begun.get(key, at)
        return Step(key=key, node=node, type=known.type, title=known.title, status="", began=began.isoformat())

    def _end(self, found: _Happened, happening: Ended | Retried, at: datetime) -> None:
        key, step = happening.key, found.step
        step["duration_ms"] = round((at - datetime.fromisoformat(step["began"])).total_seconds() * 1000, 3)
        if self._results[key]:
            result = self._results[key].popleft()
            found.writes, found.error = result.writes, result.error
            if result.handle is not None:
                step["handle"] = result.handle
            if result.error_type:
                step["error_type"] = result.error_type
        elif isinstance(happening, Ended) and happening.error_type:
            step["error_type"] = happening.error_type
        if (attempt := self._attempts.pop(key, 1)) > 1:
            step["attempt"] = attempt
        if key in self._kept:
            step["kept"] = True
        for execution in self._executions.pop(key, ()):
            self._count(found, execution)
        if isinstance(happening, Ended):
            self.begun.pop(key, None)

    def _count(self, found: _Happened, execution: Execution) -> None:
        step = found.step
        if execution.made:
            step["calls"] = [*step.get("calls", ()), *execution.made]
        if execution.tokens:
            step["tokens"] = step.get("tokens", 0) + execution.tokens
            self.tokens += execution.tokens
        if execution.adapter:
            step["adapter"] = execution.adapter
        found.inputs = {**found.inputs, **execution.inputs}

    async def flush(self, recorded: RunValues) -> Batch:
        """The steps since the last time, as they are recorded: one that has ended meanwhile did not only begin.

        Raises: Unrecordable; Erased; Unavailable.
        """
        pending, self._pending = self._pending, []
        last = {each.step["key"]: number for number, each in enumerate(pending)}
        kept = [
            each
            for number, each in enumerate(pending)
            if each.step["status"] != "running" or last[each.step["key"]] == number
        ]
        values: list[Values] = []
        for each in kept:
            if each.outputs or each.inputs or each.writes or each.error is not None:
                values.append(await recorded.put_step(each.outputs, each.inputs, each.writes, each.error))
            else:
                values.append(Values())
        return Batch(steps=[each.step for each in kept], values=values)


def _text(printed: Sequence[Printed]) -> Iterator[dict[str, Any]]:
    if text := "".join(each.text for each in printed):
        yield {"type": "text", "text": text, "selector": list(printed[0].selector)}
