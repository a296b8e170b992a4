"""The engine: a pure fold of a graph and the results of its nodes into what is ready, waits, and has ended.

A run begins with what it was given and takes results one after the other; the same results in the same order always
give the same state. So this is the engine, the resume after a kill, and the viewer at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from domain.workflows import containers, values
from domain.workflows.containers import Container, Frame, ItemFailed, plan
from domain.workflows.defaults import defaults
from domain.workflows.graph import FAILED, INNER_STARTS, SOURCE, Graph, Node
from domain.workflows.node_type import NODE_ERROR, Done, Failed, NodeType, Write
from domain.workflows.node_types import TYPES
from domain.workflows.rendering import Selector
from domain.workflows.reply import Printed, Reply
from domain.workflows.values import Value, infer, within

ENGINE: Final = 1
"""The number of these rules: a run keeps the number with which it began."""

Status = Literal["running", "paused", "succeeded", "partial-succeeded", "failed", "stopped"]


@dataclass(frozen=True)
class Given:
    """The values at the beginning of a run."""

    inputs: Mapping[str, Value] = field(default_factory=dict)
    system: Mapping[str, Value] = field(default_factory=dict)
    environment: Mapping[str, Value] = field(default_factory=dict)
    conversation: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """Where a run is stopped."""

    steps: int = 500


@dataclass(frozen=True)
class Result:
    """The end of a try of a node. Everything else follows from these."""

    key: str
    outputs: Mapping[str, Value] = field(default_factory=dict)
    handle: str | None = None
    writes: tuple[Write, ...] = ()
    error: str | None = None
    error_type: str = ""


@dataclass(frozen=True)
class Call:
    """An outside call that a node waits for."""

    key: str
    node: Node
    attempt: int
    """From 1."""
    stage: int
    """From 0: some nodes make several calls, one after the other."""
    request: Any
    delay_ms: int
    """The wait before it is made."""

    @property
    def waits(self) -> bool:
        """Test for a call that may take days."""
        return TYPES[self.node.type].waits


@dataclass(frozen=True)
class Started:
    key: str
    node: str


@dataclass(frozen=True)
class Ended:
    key: str
    node: str
    status: str
    """succeeded, failed or exception."""
    outputs: Mapping[str, Value]
    error: str | None = None
    error_type: str = ""


@dataclass(frozen=True)
class Skipped:
    key: str
    node: str


@dataclass(frozen=True)
class Retried:
    key: str
    node: str
    error: str


@dataclass(frozen=True)
class Next:
    """Another item of an iteration, or another round of a loop."""

    key: str
    node: str
    index: int


@dataclass(frozen=True)
class Stopped:
    """An execution that was given up."""

    key: str
    node: str


Happening = Started | Ended | Skipped | Retried | Next | Stopped | Printed


@dataclass
class Execution:
    """A node that was started and has not ended."""

    key: str
    node: Node
    frame: Frame
    attempt: int = 1
    delay_ms: int = 0
    stage: int = 0


class Run:
    """The state of a run. `happened` is what the last calls led to; who reads it empties it."""

    def __init__(self, graph: Graph, given: Given, limits: Limits | None = None) -> None:
        self.graph = graph
        self.limits = limits or Limits()
        self.ended: Status | None = None
        self.reason: str | None = None
        """Why it failed or was stopped."""
        self.flawed = False
        """Some node, try or item ended with an error, and the run went on."""
        self.steps = 0
        self.outputs: dict[str, Value] = {}
        self.calls: dict[str, Call] = {}
        self.happened: list[Happening] = []
        self.system = dict(given.system)
        self.environment = dict(given.environment)
        self.conversation = dict(given.conversation)
        self.inputs = dict(given.inputs)
        self._order = {id: number for number, id in enumerate(graph.nodes)}
        self._named_by: dict[str, int] = {}
        self._answers: dict[str, str] = {}
        self._open: dict[str, Execution] = {}
        self._ready: deque[Execution] = deque()
        self._agenda: deque[tuple[Frame, str]] = deque()
        self._touched: dict[int, Frame] = {}
        self._plans = {owner: plan(scope) for owner, scope in graph.scopes.items()}
        self._root = Frame(self._plans[None], "", None, None, 0)
        self._reply = Reply(graph, View(self, self._root).find)
        self._begin()

    def _begin(self) -> None:
        entry = self.graph.entry
        self._print()
        if entry is not None:
            self._start(self._root, entry)
        self._touch(self._root)
        self._settle()

    @property
    def status(self) -> Status:
        if self.ended:
            return self.ended
        waits = not self._ready and self.calls and all(call.waits for call in self.calls.values())
        return "paused" if waits else "running"

    def turn(self) -> list[Result]:
        """Compute what is ready until only outside calls are left. The results are folded already; they are for the
        record."""
        results = []
        while self._ready and not self.ended:
            execution = self._ready.popleft()
            if self._open.get(execution.key) is execution and (result := self._compute(execution)):
                results.append(result)
                self.apply(result)
        return results

    def respond(self, key: str, answer: Any) -> Result | None:
        """Fold the answer of an outside call; None where another call follows, or the node waits no longer."""
        if not (call := self.calls.get(key)):
            return None
        execution = self._open[key]
        conclude = TYPES[call.node.type].conclude
        assert conclude
        try:
            ended = conclude(call.node, call.request, answer)
        except Failed as failed:
            ended = failed
        if not isinstance(ended, Done | Failed):
            execution.stage += 1
            self._call(execution, ended)
            return None
        result = _result(key, ended)
        self.apply(result)
        return result

    def token(self, key: str, name: str, text: str) -> None:
        """Fold a part of an output that comes before its node has ended."""
        if (execution := self._open.get(key)) and execution.frame is self._root:
            self._reply.token((execution.node.id, name), text)
            self._print()

    def apply(self, result: Result) -> None:
        """Fold a result."""
        if self.ended or not (execution := self._open.get(result.key)):
            return
        self.calls.pop(result.key, None)
        if result.error is not None and self._again(execution, result):
            return
        del self._open[result.key]
        execution.frame.open -= 1
        self._touch(execution.frame)
        if result.error is None:
            self._succeeded(execution, result)
        else:
            self._broken(execution.frame, execution.node, execution.key, result.error, result.error_type)
        self._settle()

    def stop(self, reason: str) -> None:
        """End the run before its end."""
        if not self.ended:
            self._end("stopped", reason)

    def waiting(self) -> Iterator[Call]:
        """The calls to make, or under way."""
        yield from self.calls.values()

    def _compute(self, execution: Execution) -> Result | None:
        node, view = execution.node, View(self, execution.frame)
        kind = TYPES.get(node.type)
        try:
            if kind is None:
                raise Failed(f"There is no node type {node.type}.", NODE_ERROR)
            if kind.run:
                return _result(execution.key, kind.run(node, view))
            assert kind.prepare
            request = kind.prepare(node, view)
        except Failed as failed:
            return _result(execution.key, failed)
        if isinstance(request, Done):
            return _result(execution.key, request)
        self._call(execution, request)
        return None

    def _call(self, execution: Execution, request: Any) -> None:
        delay = execution.delay_ms if not execution.stage else 0
        call = Call(execution.key, execution.node, execution.attempt, execution.stage, request, delay)
        self.calls[execution.key] = call

    def _again(self, execution: Execution, result: Result) -> bool:
        retry = execution.node.retry
        if not (_type(execution.node).retries and execution.attempt <= retry.tries):
            return False
        execution.attempt += 1
        execution.delay_ms, execution.stage = retry.interval_ms, 0
        self.flawed = True
        self._reply.forget(execution.node.id)
        self.happened.append(Retried(execution.key, execution.node.id, result.error or ""))
        if self._step():
            self._ready.append(execution)
        return True

    def _succeeded(self, execution: Execution, result: Result) -> None:
        node, frame = execution.node, execution.frame
        for write in result.writes:
            View(self, frame).write(write)
        if node.type == "loop-end" and frame.container:
            frame.container.leaving = True
        if node.type in ("answer", "end"):
            self._answer(node, result.outputs)
        handle = result.handle or (SOURCE if node.strategy == FAILED else None)
        ended = Ended(execution.key, node.id, "succeeded", result.outputs)
        self._leave(frame, node.id, result.outputs, handle, ended)

    def _broken(self, frame: Frame, node: Node, key: str, error: str, type: str) -> None:
        """Fold an error after the last try."""
        spec = {"error_message": infer(error), "error_type": infer(type)}
        if node.strategy is None:
            if frame is self._root:
                self._reply.failed(node.id)
                self._print()
            self.happened.append(Ended(key, node.id, "failed", {}, error, type))
            self._fail(frame, error)
            return
        self.flawed = True
        outputs = spec if node.strategy == FAILED else {**defaults(node), **spec}
        handle = FAILED if node.strategy == FAILED else None
        self._leave(frame, node.id, outputs, handle, Ended(key, node.id, "exception", outputs, error, type))

    def _fail(self, frame: Frame, error: str) -> None:
        if frame.container is None:
            self._end("failed", error)
            return
        self._give_up(frame)
        self._item_ended(frame, ItemFailed(error))

    def _give_up(self, frame: Frame) -> None:
        """Stop what runs in a frame, and in the frames inside of it."""
        frame.closed = True
        for key, execution in list(self._open.items()):
            if execution.frame.inside(frame):
                execution.frame.closed = True
                self._drop(key, execution)

    def _drop(self, key: str, execution: Execution) -> None:
        del self._open[key]
        self.calls.pop(key, None)
        self.happened.append(Stopped(key, execution.node.id))

    def _end(self, status: Status, reason: str | None) -> None:
        self.ended, self.reason = status, reason
        for key, execution in list(self._open.items()):
            self._drop(key, execution)
        self._ready.clear()
        self._agenda.clear()
        self._touched.clear()

    def _answer(self, node: Node, outputs: Mapping[str, Value]) -> None:
        """Outputs of the run: answers one after the other, and what the end nodes name; of equal names, the last in
        the file counts."""
        if node.type == "answer":
            self._answers[node.id] = outputs["answer"].data
            self.outputs["answer"] = infer("".join(self._answers.values()))
            files = [*(self.outputs["files"].data if "files" in self.outputs else []), *outputs["files"].data]
            self.outputs["files"] = Value(values.array(values.FILE), list(dict.fromkeys(files)))
            return
        for name, value in outputs.items():
            if self._order[node.id] >= self._named_by.get(name, -1):
                self._named_by[name] = self._order[node.id]
                self.outputs[name] = value

    # --- frames

    def _start(self, frame: Frame, id: str) -> None:
        frame.decided.add(id)
        node = self.graph.nodes[id]
        if not self._step():
            return
        if node.type in INNER_STARTS:
            self._leave(frame, id, {}, None, None)
            return
        key = frame.key(id)
        frame.open += 1
        self.happened.append(Started(key, id))
        if node.type in containers.TYPES:
            self._enter(frame, node, key)
            return
        execution = Execution(key, node, frame)
        self._open[key] = execution
        self._ready.append(execution)

    def _step(self) -> bool:
        self.steps += 1
        if self.steps > self.limits.steps:
            self._end("stopped", f"The run exceeds {self.limits.steps} steps.")
        return not self.ended

    def _leave(
        self, frame: Frame, id: str, outputs: Mapping[str, Value], handle: str | None, ended: Ended | None
    ) -> None:
        """Take the edges that follow a node, and skip the others first."""
        if ended:
            frame.values[id] = dict(outputs)
        edges = frame.plan.scope.outgoing.get(id, ())
        chosen = [edge for edge in edges if handle is None or edge.handle == handle]
        for edge in edges:
            if edge not in chosen:
                self._decide(frame, edge.target, edge.id, taken=False)
        for edge in chosen:
            self._decide(frame, edge.target, edge.id, taken=True)
        if frame is self._root:
            self._reply.ended(id)
            self._print()
        if ended:
            self.happened.append(ended)

    def _decide(self, frame: Frame, target: str, edge: str, *, taken: bool) -> None:
        if target in frame.decided:
            return
        if taken:
            frame.taken.add(target)
            if frame is self._root:
                self._reply.taken(edge)
        frame.waiting[target] -= 1
        if not frame.waiting[target]:
            self._agenda.append((frame, target))

    def _settle(self) -> None:
        while not self.ended and (self._agenda or self._touched):
            if self._agenda:
                frame, id = self._agenda.popleft()
                self._reached(frame, id)
            else:
                _, frame = self._touched.popitem()
                if not frame.open and not frame.closed:
                    frame.closed = True
                    self._close(frame)

    def _reached(self, frame: Frame, id: str) -> None:
        if frame.closed or id in frame.decided:
            return
        self._touch(frame)
        if id in frame.taken:
            self._start(frame, id)
            return
        frame.decided.add(id)
        self.happened.append(Skipped(frame.key(id), id))
        for edge in frame.plan.scope.outgoing.get(id, ()):
            self._decide(frame, edge.target, edge.id, taken=False)
        if frame is self._root:
            self._reply.skipped(id)
            self._print()

    def _touch(self, frame: Frame) -> None:
        self._touched[id(frame)] = frame

    def _close(self, frame: Frame) -> None:
        """Nothing is ready or running in a frame."""
        if frame.container is None:
            self._end("partial-succeeded" if self.flawed else "succeeded", None)
        else:
            self._item_ended(frame, None)

    # --- containers

    def _enter(self, frame: Frame, node: Node, key: str) -> None:
        try:
            container = containers.enter(node, key, frame, View(self, frame))
        except Failed as failed:
            frame.open -= 1
            self._touch(frame)
            self._broken(frame, node, key, failed.message, failed.type)
            return
        self._proceed(container)

    def _proceed(self, container: Container) -> None:
        """Begin the items that may run, or end the container."""
        while not self.ended and (index := container.next()) is not None:
            inner = Frame(
                self._plans[container.node.id], f"{container.key}/{index}/", container.frame, container, index
            )
            inner.values[container.node.id] = container.seen(index)
            if container.announces(index):
                self.happened.append(Next(container.key, container.node.id, index))
            self._touch(inner)
            if (entry := inner.plan.scope.entry) is not None:
                self._start(inner, entry)
        if not self.ended and container.done:
            container.frame.open -= 1
            self._touch(container.frame)
            outputs = container.outputs()
            handle = SOURCE if container.node.strategy == FAILED else None
            ended = Ended(container.key, container.node.id, "succeeded", outputs)
            self._leave(container.frame, container.node.id, outputs, handle, ended)

    def _item_ended(self, frame: Frame, failed: ItemFailed | None) -> None:
        container = frame.container
        assert container
        if container.frame.closed or container.closed:
            return
        try:
            self.flawed |= container.ended(frame.index, View(self, frame), failed)
        except Failed as error:
            container.closed = True
            for _, execution in list(self._open.items()):
                if execution.frame.of(container):
                    execution.frame.closed = True
                    self._drop(execution.key, execution)
            container.frame.open -= 1
            self._touch(container.frame)
            self._broken(container.frame, container.node, container.key, error.message, error.type)
            return
        self._proceed(container)

    def _print(self) -> None:
        self.happened += self._reply.advance()


class View:
    """The values that a node of a frame sees."""

    def __init__(self, run: Run, frame: Frame) -> None:
        self._run, self._frame = run, frame

    @property
    def chat(self) -> bool:
        return self._run.graph.mode == "advanced-chat"

    @property
    def inputs(self) -> Mapping[str, Value]:
        return self._run.inputs

    def find(self, selector: Selector) -> Value | None:
        if len(selector) < 2:
            return None
        names = self._names(selector[0])
        value = None if names is None else names.get(selector[1])
        return None if value is None else within(value, selector[2:])

    def may_write(self, selector: Selector) -> bool:
        if selector[0] == "conversation":
            return True
        frame: Frame | None = self._frame
        while frame is not None and frame.container is not None:
            if frame.container.node.id == selector[0]:
                return frame.container.node.type == "loop"
            frame = frame.parent
        return False

    def write(self, write: Write) -> None:
        """Set a variable of the conversation or of a loop."""
        if (names := self._names(write.selector[0])) is not None:
            names[write.selector[1]] = write.value

    def _names(self, space: str) -> dict[str, Value] | None:
        frame: Frame | None = self._frame
        while frame is not None:
            if space in frame.values:
                return frame.values[space]
            frame = frame.parent
        run = self._run
        return {"sys": run.system, "env": run.environment, "conversation": run.conversation}.get(space)


def _result(key: str, ended: Done | Failed) -> Result:
    if isinstance(ended, Failed):
        return Result(key, error=ended.message, error_type=ended.type)
    outputs = {name: infer(value) for name, value in ended.outputs.items()}
    return Result(key, outputs, ended.handle, ended.writes)


def _type(node: Node) -> NodeType:
    return TYPES[node.type]
