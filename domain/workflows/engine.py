"""The engine: a pure fold of a graph and the results of its nodes into what is ready, waits, and has ended.

A run begins with its given values and takes results one after the other; the same results in the same order always
give the same state. So this is the engine, the resume after a kill, and the viewer at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.workflows import containers
from domain.workflows.defaults import defaults
from domain.workflows.frame import Container, Frame, ItemFailed, plan
from domain.workflows.graph import FAILED, INNER_STARTS, SOURCE, Graph, Node
from domain.workflows.node_type import NODE_ERROR, Done, Failed
from domain.workflows.node_types import TYPES
from domain.workflows.outputs import Outputs
from domain.workflows.record import (
    Call,
    Ended,
    Given,
    Happening,
    Limits,
    Next,
    Result,
    Retried,
    Skipped,
    Started,
    Status,
    Stopped,
)
from domain.workflows.reply import RESPONSES, Reply
from domain.workflows.values import Value, infer
from domain.workflows.view import Variables, View

ENGINE: Final = 1
"""The number of these rules: a run keeps the number with which it began."""


@dataclass
class Execution:
    """A node that was started and has not ended."""

    key: str
    node: Node
    frame: Frame
    attempt: int = 1
    delay_ms: int = 0
    stage: int = 0
    call: str | None = None
    """Name of the call that it waits for."""


class Run:
    """The state of a run. `happened` lists the effects of the last calls; its reader empties it."""

    def __init__(self, graph: Graph, given: Given, limits: Limits | None = None) -> None:
        self.graph = graph
        self.limits = limits or Limits()
        self.ended: Status | None = None
        self.reason: str | None = None
        """Reason of a failure or a stop."""
        self.flawed = False
        """Some node, try or item ended with an error, and the run went on."""
        self.steps = 0
        self.calls: dict[str, Call] = {}
        """The calls to make or under way, by name."""
        self.happened: list[Happening] = []
        self.variables = Variables(
            graph.mode, given.inputs, given.system, given.environment, given.conversation, graph.entry
        )
        self._outputs = Outputs(graph)
        self._open: dict[str, Execution] = {}
        self._running: dict[str, Container] = {}
        """The containers that have not ended."""
        self._ready: deque[Execution] = deque()
        self._agenda: deque[tuple[Frame, str]] = deque()
        self._touched: dict[int, Frame] = {}
        entry = given.entry or graph.entry
        self._plans = {id: plan(scope, scope.entry if id else entry) for id, scope in graph.scopes.items()}
        self._root = Frame(self._plans[None], "", None, None, 0)
        self._reply = Reply(graph, entry, View(self.variables, self._root).find)
        self._begin(entry)

    def _begin(self, entry: str | None) -> None:
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

    @property
    def outputs(self) -> Mapping[str, Value]:
        return self._outputs.values

    @property
    def conversation(self) -> Mapping[str, Value]:
        """The variables of the conversation."""
        return self.variables.conversation

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

    def respond(self, name: str, answer: Any) -> Result | None:
        """Fold the answer of an outside call; None where another call follows, or the node waits no longer."""
        if not (call := self.calls.get(name)):
            return None
        execution = self._open[call.key]
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
        result = _result(call.key, ended)
        self.apply(result)
        return result

    def token(self, name: str, output: str, text: str) -> None:
        """Fold a part of an output that comes before its node has ended."""
        call = self.calls.get(name)
        if call and (execution := self._open[call.key]).frame is self._root:
            self._reply.token((execution.node.id, output), text)
            self._print()

    def apply(self, result: Result) -> bool:
        """Fold a result. False where its node does not run."""
        if self.ended or not (execution := self._open.get(result.key)):
            return False
        if self._ready and self._ready[0] is execution:
            self._ready.popleft()
        self._forget(execution)
        if result.error is not None and self._again(execution, result.error):
            return True
        del self._open[result.key]
        execution.frame.open -= 1
        self._touch(execution.frame)
        if result.error is None:
            self._succeeded(execution, result)
        else:
            self._broken(execution.frame, execution.node, execution.key, result.error, result.error_type)
        self._settle()
        return True

    def stop(self, reason: str) -> None:
        """End the run before its end."""
        if not self.ended:
            self._end("stopped", reason)

    def _compute(self, execution: Execution) -> Result | None:
        node, view = execution.node, View(self.variables, execution.frame)
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
        self._forget(execution)
        delay = 0 if execution.stage else execution.delay_ms
        call = Call(execution.key, execution.node, execution.attempt, execution.stage, request, delay)
        execution.call = call.name
        self.calls[call.name] = call

    def _forget(self, execution: Execution) -> None:
        if execution.call:
            del self.calls[execution.call]
            execution.call = None

    def _again(self, execution: Execution, error: str) -> bool:
        """Try a node once more, if a try is left."""
        node = execution.node
        kind = TYPES.get(node.type)
        if kind is None or not kind.retries or execution.attempt > node.retry.tries:
            return False
        execution.attempt += 1
        execution.delay_ms, execution.stage = node.retry.interval_ms, 0
        self.flawed = True
        self._reply.forget(node.id)
        self.happened.append(Retried(execution.key, node.id, error))
        if self._step():
            self._ready.append(execution)
        return True

    def _succeeded(self, execution: Execution, result: Result) -> None:
        node, frame = execution.node, execution.frame
        view = View(self.variables, frame)
        for write in result.writes:
            view.write(write)
        if node.type == "loop-end" and frame.container:
            frame.container.leaving = True
        if node.type in RESPONSES:
            self._outputs.take(node, result.outputs)
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
        frame.closed = True
        self._give_up()
        self._item_ended(frame, frame.container, ItemFailed(error))

    def _give_up(self) -> None:
        """Stop everything that runs in frames that are gone."""
        for execution in [each for each in self._open.values() if each.frame.gone]:
            self._drop(execution)
        for container in [each for each in self._running.values() if each.frame.gone]:
            self._drop_container(container)

    def _drop(self, execution: Execution) -> None:
        self._forget(execution)
        del self._open[execution.key]
        self.happened.append(Stopped(execution.key, execution.node.id))

    def _drop_container(self, container: Container) -> None:
        del self._running[container.key]
        self.happened.append(Stopped(container.key, container.node.id))

    def _end(self, status: Status, reason: str | None) -> None:
        self.ended, self.reason = status, reason
        for execution in list(self._open.values()):
            self._drop(execution)
        for container in list(self._running.values()):
            self._drop_container(container)
        self._ready.clear()
        self._agenda.clear()
        self._touched.clear()

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
        """Follow the edges after a node; `ended` is None where it is not shown."""
        if ended:
            frame.values[id] = dict(outputs)
        taken = frame.leave(id, handle)
        self._agenda += [(frame, target) for target in frame.follow(id, taken)]
        if frame is self._root:
            self._reply.ended(id, taken)
            self._print()
        if ended:
            self.happened.append(ended)

    def _settle(self) -> None:
        while not self.ended and (self._agenda or self._touched):
            if self._agenda:
                frame, id = self._agenda.popleft()
                self._reached(frame, id)
            else:
                _, frame = self._touched.popitem()
                if not frame.open and not frame.gone:
                    frame.closed = True
                    self._close(frame)

    def _reached(self, frame: Frame, id: str) -> None:
        if id in frame.decided or frame.gone:
            return
        self._touch(frame)
        if id in frame.taken:
            self._start(frame, id)
            return
        frame.decided.add(id)
        self.happened.append(Skipped(frame.key(id), id))
        self._agenda += [(frame, target) for target in frame.follow(id, [])]
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
            self._item_ended(frame, frame.container, None)

    # --- containers

    def _enter(self, frame: Frame, node: Node, key: str) -> None:
        try:
            container = containers.enter(node, key, frame, View(self.variables, frame))
        except Failed as failed:
            frame.open -= 1
            self._touch(frame)
            self._broken(frame, node, key, failed.message, failed.type)
            return
        self._running[key] = container
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
            if (entry := inner.plan.entry) is not None:
                self._start(inner, entry)
        if not self.ended and container.done:
            self._leave_container(container)
            outputs = container.outputs()
            handle = SOURCE if container.node.strategy == FAILED else None
            ended = Ended(container.key, container.node.id, "succeeded", outputs)
            self._leave(container.frame, container.node.id, outputs, handle, ended)

    def _item_ended(self, frame: Frame, container: Container, failed: ItemFailed | None) -> None:
        try:
            self.flawed |= container.ended(frame.index, View(self.variables, frame), failed)
        except Failed as error:
            container.closed = True
            self._give_up()
            self._leave_container(container)
            self._broken(container.frame, container.node, container.key, error.message, error.type)
            return
        self._proceed(container)

    def _leave_container(self, container: Container) -> None:
        del self._running[container.key]
        container.frame.open -= 1
        self._touch(container.frame)

    def _print(self) -> None:
        self.happened += self._reply.advance()


def _result(key: str, ended: Done | Failed) -> Result:
    if isinstance(ended, Failed):
        return Result(key, error=ended.message, error_type=ended.type)
    outputs = {name: infer(value) for name, value in ended.outputs.items()}
    return Result(key, outputs, ended.handle, ended.writes)
