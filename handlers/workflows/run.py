"""Runs a workflow: one worker owns it, folds its steps, and makes the outside calls that are ready.

Another worker that takes over folds what is recorded, and goes on: calls on the log are read from it, harmless ones are
made again, and of others it is unknown whether they did something.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from domain.aggregate import new_id
from domain.chat.conversation import Conversation, question
from domain.log import Commit, commit_id
from domain.workflows import engine, fork, values
from domain.workflows.graph import Graph
from domain.workflows.node_type import NODE_ERROR, Trouble
from domain.workflows.record import Call, Given, Limits, Result
from domain.workflows.reply import Printed
from domain.workflows.requests import (
    CodeRequest,
    DocumentRequest,
    FormAnswer,
    RetrievalRequest,
    SchemaRequest,
    TemplateRequest,
)
from domain.workflows.run import Batch, Finish, Form, Run
from domain.workflows.values import Value
from domain.workflows.workflow import Workflow
from handlers.cause import Cause
from handlers.files import Files
from handlers.graphs import Graphs
from handlers.ports.log import Live, Stops, Unavailable
from handlers.ports.people import Erased
from handlers.repository import Repository, folded
from handlers.run_values import Past, RunValues, Unrecordable, of_conversation
from handlers.work.attempt import Ended
from handlers.workflows.execution import Around, Execution, Executor, trouble
from handlers.workflows.secrets import Secrets, mark
from handlers.workflows.steps import Steps

log = structlog.get_logger(__name__)

WITHIN: Final = (CodeRequest, DocumentRequest, SchemaRequest, TemplateRequest)
"""Calls that reach nothing outside of the worker."""

UNSURE: Final = (CodeRequest, RetrievalRequest)
"""Calls that may give something else when they are made again, and are not on the log themselves."""

MOST_STEPS, LONGEST_S = 500, 1.0
"""Number of steps, and time in seconds, after which steps are recorded in any case."""

STOPPED: Final = "It was stopped on request."


@dataclass(frozen=True, slots=True)
class RunWorkflow:
    repository: Repository
    graphs: Graphs
    files: Files
    live: Live
    stops: Stops
    unseal: Callable[[str, str], str]
    executors: Mapping[type, Executor]
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def __call__(self, commit: Commit) -> None:
        """Own the run, until it ends, waits, or another worker has taken it. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        nudge = self.stops.watch(tenant, id, id, person=commit.metadata.person)
        try:
            with suppress(Ended):
                known = [commit] if isinstance(commit.events[0], Run.Started) else None
                while True:
                    try:
                        return await self._own(commit, known, nudge)
                    except _Stale:
                        known = None
        finally:
            self.stops.unwatch(tenant, id, id)

    async def _own(self, commit: Commit, commits: list[Commit] | None, nudge: asyncio.Event) -> None:
        """Run it from what is recorded: from these commits, by default all that the log has."""
        subject = commit.subject
        recorded = RunValues(self.files, subject.tenant, commit.metadata.person)
        if commits is None:
            commits = list(await self.repository.commits(Run, subject.tenant, subject.id))
        run = folded(Run, commits)
        assert run is not None
        if not run.may_take(commit.metadata.id):
            raise Ended
        turn = _Turn(self, commit, commits[0], recorded, run, nudge)
        try:
            past, graph = await recorded.past(commits), await self.graphs.get(subject.tenant, run.graph)
            await turn.begin(past, graph, await self._secrets(subject.tenant, run.id, past.started, graph))
        except KeyError:
            await turn.fail("erased", "The graph, or the person whose words it holds, was erased.")
            return
        await turn.drive()

    async def _secrets(self, tenant: str, run: str, started: Run.Started, graph: Graph) -> dict[str, tuple[str, str]]:
        """The marks and values of the secrets of the environment, by name. Raises: Unavailable."""
        if not any(each.type == values.SECRET for each in graph.environment):
            return {}
        workflow = await self.repository.get(Workflow, tenant, started.app)
        content = workflow and (workflow.versions.get(str(started.version)) if started.version else workflow.draft)
        sealed = content["secrets"] if content else {}
        return {name: (mark(run, name, each), self.unseal(tenant, each)) for name, each in sealed.items()}


class _Stale(Exception):
    """The run has moved since it was loaded."""


@dataclass(slots=True)
class _Turn:
    """The time for which a worker owns a run."""

    work: RunWorkflow
    commit: Commit
    first: Commit
    recorded: RunValues
    run: Run
    nudge: asyncio.Event
    past: Past = field(init=False)
    state: engine.Run = field(init=False)
    steps: Steps = field(init=False)
    around: Around = field(init=False)
    attempt: int = field(init=False, default=0)
    """0 until it is recorded that this worker owns the run."""
    made: int = field(init=False, default=0)
    """Number of commits."""
    id: str = field(init=False, default_factory=new_id)
    sequence: int = field(init=False, default=0)
    unsure: bool = field(init=False, default=False)
    """Results wait that another attempt might not get again."""
    printed: str = field(init=False, default="")
    shown: int = field(init=False, default=0)
    """Number of live frames with parts of the answer."""
    forms: dict[str, str] = field(init=False, default_factory=dict)
    tasks: dict[asyncio.Task[Any], Execution] = field(init=False, default_factory=dict)
    began: float = field(init=False, default_factory=time.monotonic)
    written: float = field(init=False, default_factory=time.monotonic)

    @property
    def tenant(self) -> str:
        return self.commit.subject.tenant

    # --- what is known

    async def begin(self, past: Past, graph: Graph, secrets: Mapping[str, tuple[str, str]]) -> None:
        """Fold what is recorded. Raises: KeyError where the person was erased; Unavailable."""
        self.past, started = past, past.started
        self.forms = dict(past.forms)
        self.steps = Steps(graph, past.begun, past.tokens, past.exceptions)
        marks = Secrets(dict(secrets.values()))
        self.around = Around(self.run.id, started, self.work.files, marks, self._history)
        inputs, system, variables = await asyncio.gather(
            *(self.recorded.get(each) for each in (started.inputs, started.system, started.variables))
        )
        given = Given(started.entry, inputs, system, _environment(graph, secrets), variables)
        self.state = engine.Run(graph, given, Limits(started.limits["steps"]))
        for step, result in self.past.results:
            self.state.apply(result)
            self.steps.begun.pop(step["key"], None)
        if not self.past.results:
            for result in await self._kept(started, graph):
                if self.state.apply(result):
                    self.steps.add([result], [result.key])
        else:
            shown, self.state.happened = self.state.happened, []
            await self._show("".join(each.text for each in shown if isinstance(each, Printed)))
        for key, written in self.past.writes:
            await self._remember(key, written)

    async def _kept(self, started: Run.Started, graph: Graph) -> list[Result]:
        """The results that are taken from the source of the run. Raises: KeyError; Unavailable."""
        if started.source is None:
            return []
        commits = await self.work.repository.commits(Run, self.tenant, started.source["run"])
        past = await self.recorded.past(commits)
        before = await self.work.graphs.get(self.tenant, past.started.graph)
        again = fork.changed(before, graph) | {started.source["step"]}
        if started.inputs != past.started.inputs and graph.entry:
            again.add(graph.entry)
        ended = [result for step, result in past.results if step["status"] in ("succeeded", "exception")]
        return fork.kept(graph, ended, again)

    async def _history(self) -> list[tuple[str, str]]:
        """The earlier questions and answers of the conversation, the oldest first. Raises: Unavailable."""
        started = self.past.started
        if not (started.conversation and started.message):
            return []
        conversation = await self.work.repository.get(Conversation, self.tenant, started.conversation)
        turns = conversation.history(started.message) if conversation else {}
        return [(question(each), each["answer"]) for each in reversed(turns.values())]

    # --- the loop

    async def drive(self) -> None:
        try:
            await self._drive()
        except Unrecordable as error:
            await self._give_up()
            await self.fail("invalid", f"A value of the run cannot be recorded: {error}")
        except Erased:
            await self._give_up()
            await self.fail("erased", "The person whose words it holds was erased.")
        finally:
            await self._give_up()

    async def _drive(self) -> None:
        while True:
            if self.run.stop_requested:
                self.state.stop(STOPPED)
            await self._compute()
            if self.state.ended:
                await self._give_up()
                await self._finish()
                return
            await self._drop()
            calls = [call for call in self.state.calls.values() if not call.waits and not self._is_made(call)]
            forms = [self._form(c) for c in self.state.calls.values() if c.waits and c.key not in self.forms]
            if forms or self._must_record(calls):
                await self._record(forms)
            for call in calls:
                self._start(call)
            if self.tasks:
                await self._next()
            elif not self.run.answers:
                await self._record([], paused=True)
                if self.run.status == "paused":
                    await self._send({"type": "paused", "status": "paused"})
                    return

    async def _compute(self) -> None:
        """Compute what is ready, also from forms that were answered."""
        while True:
            self.steps.add(self.state.turn())
            await self._tell()
            answered = [call for call in self.state.calls.values() if call.waits and call.key in self.run.answers]
            for call in answered:
                wait = self.run.answers[call.key]
                answer = FormAnswer(wait["action"], wait["fields"], wait["status"] == "timed_out")
                self._respond(call, answer)
            if not answered:
                return

    def _respond(self, call: Call, answer: Any) -> None:
        if result := self.state.respond(call.name, answer):
            self.steps.add([result])

    async def _tell(self) -> None:
        happened, self.state.happened = self.state.happened, []
        for frame in self.steps.take(happened):
            await self._send(frame)
            if frame["type"] == "text":
                await self._show(frame["text"])

    async def _show(self, text: str) -> None:
        """Show more of the answer to the message."""
        started = self.past.started
        self.printed += text
        if started.message and started.conversation and text:
            attempt = self.attempt or self.run.attempt + 1
            frame = {"type": "token", "index": self.shown, "text": text, "attempt": attempt}
            self.shown += 1
            await self.work.live.publish(self.tenant, started.conversation, started.message, frame)

    def _must_record(self, calls: list[Call]) -> bool:
        """Return whether steps must be recorded before these calls are made."""
        if len(self.steps) >= MOST_STEPS or time.monotonic() - self.written > LONGEST_S:
            return bool(len(self.steps))
        outside = [call for call in calls if not isinstance(call.request, WITHIN)]
        if not outside:
            return False
        if not self.attempt or self.unsure:
            return True
        return bool(len(self.steps)) and any("/" not in call.key for call in outside)

    async def _next(self) -> None:
        """Wait until a call has ended, or something else has happened to the run."""
        nudged = asyncio.ensure_future(self.nudge.wait())
        left = self.past.started.limits["seconds"] - self.past.elapsed_s - (time.monotonic() - self.began)
        soon = LONGEST_S if len(self.steps) else left
        done, _ = await asyncio.wait(
            (*self.tasks, nudged), timeout=max(0.0, min(left, soon)), return_when=asyncio.FIRST_COMPLETED
        )
        nudged.cancel()
        if left <= 0:
            self.state.stop(f"It took longer than {self.past.started.limits['seconds']:g} s.")
        for task in [each for each in self.tasks if each in done]:
            execution = self.tasks.pop(task)
            self.steps.made(execution)
            self.unsure |= isinstance(execution.request, UNSURE)
            self._respond(execution.call, task.result())
        if self.nudge.is_set():
            self.nudge.clear()
            run = await self.work.repository.get(Run, self.tenant, self.run.id)
            assert run is not None
            self.run = run

    # --- outside calls

    def _is_made(self, call: Call) -> bool:
        return any(each.call is call for each in self.tasks.values())

    def _start(self, call: Call) -> None:
        metadata = self.first.metadata
        attempt, prefix = max(self.attempt, 1), f"{call.name}/"
        cause = Cause(metadata, Run.TOPIC, self.run.id, attempt, app=self.run.app, prefix=prefix)

        async def say(name: str, text: str) -> None:
            self.state.token(call.name, name, text)
            await self._tell()

        execution = Execution(cause, call, self.around, say)
        self.tasks[asyncio.ensure_future(self._execute(execution))] = execution

    async def _execute(self, execution: Execution) -> Any:
        """The answer of a call; its errors are answers too. Raises: Unavailable."""
        call = execution.call
        if call.delay_ms:
            await self.work.sleep(call.delay_ms / 1000)
        executor = self.work.executors.get(type(call.request))
        if executor is None:
            return Trouble(f"Nodes of the type {call.node.type} cannot run here.", NODE_ERROR)
        try:
            return await executor(execution)
        except Unavailable:
            raise
        except Exception as error:
            if known := trouble(error):
                return known
            log.exception("step failed", tenant=self.tenant, run=self.run.id, step=call.key)
            return Trouble(f"An internal error: {type(error).__name__}.", NODE_ERROR)

    async def _drop(self) -> None:
        """Break off the calls that no step waits for any more."""
        gone = [task for task, each in self.tasks.items() if self.state.calls.get(each.call.name) is not each.call]
        await self._cancel(gone)

    async def _give_up(self) -> None:
        await self._cancel(list(self.tasks))

    async def _cancel(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
            self.tasks.pop(task)
        if tasks:
            await asyncio.wait(tasks)

    def _form(self, call: Call) -> Form:
        until = (datetime.now(UTC) + timedelta(seconds=call.request.timeout_s)).isoformat()
        self.forms[call.key] = until
        return Form(
            key=call.key,
            node=call.node.id,
            until=until,
            content=call.request.content,
            inputs=[dict(each) for each in call.request.inputs],
            actions=[dict(each) for each in call.request.actions],
        )

    # --- the log

    async def _record(self, forms: list[Form], *, paused: bool = False) -> None:
        batch = await self.steps.flush(self.recorded)
        await self._change(batch, lambda run, at: run.step(at, forms=forms, paused=paused, **batch))
        for form in forms:
            await self._send({"type": "waiting", **form})

    async def _finish(self) -> None:
        assert self.state.ended
        batch, elapsed = await self.steps.flush(self.recorded), time.monotonic() - self.began + self.past.elapsed_s
        outputs = dict(self.state.outputs)
        if self.past.started.message:
            outputs["answer"] = values.infer(self.printed)
        end = Finish(
            status=self.state.ended,
            outputs=await self.recorded.put(outputs),
            code="",
            reason=self.state.reason or "",
            steps=self.state.steps,
            exceptions=self.steps.exceptions,
            tokens=self.steps.tokens,
            duration_ms=round(elapsed * 1000, 3),
        )

        if any(map(of_conversation, batch["values"])):  # which the next message reads, once this run has ended
            await self._change(batch, lambda run, at: run.step(at, **batch))
            batch = Batch(steps=[], values=[])

        def finish(run: Run, at: datetime) -> None:
            run.step(at, **batch)
            run.finish(at, **end)

        await self._change(batch, finish)
        await self._send({"type": "finished", **end})

    async def fail(self, code: str, reason: str) -> None:
        await self._change(Batch(steps=[], values=[]), lambda run, at: run.fail(at, code=code, reason=reason))
        await self._send({"type": "finished", "status": "failed", "code": code, "reason": reason})

    async def _change(self, batch: Batch, verb: Callable[[Run, datetime], None]) -> None:
        """Commit a change as the owner of the run. Raises: Ended, _Stale; TooLarge, Unavailable."""
        at, by = datetime.now(UTC), self.commit.metadata.id
        known = self.run.attempt

        def decide(run: Run | None) -> Run:
            assert run is not None
            if self.attempt:
                if run.attempt != self.attempt or run.ended:
                    raise Ended
            elif not run.may_take(by):
                raise Ended
            elif run.attempt != known:
                raise _Stale
            else:
                run.take(at, by=by)
            verb(run, at)
            return run

        self.made += 1
        metadata = self.commit.metadata.caused(commit_id(by, f"{self.id}:{self.made}"))
        change = await self.work.repository.change(Run, self.run.id, metadata, decide)
        self.run, self.sequence, self.written = change.aggregate, change.position.sequence, time.monotonic()
        self.attempt, self.unsure = self.attempt or self.run.attempt, False
        for step, each in zip(batch["steps"], batch["values"], strict=True):
            await self._remember(step["key"], of_conversation(each))

    async def _remember(self, step: str, written: dict[str, Any]) -> None:
        """Set variables of the conversation, once for each step."""
        if not written or not (id := self.past.started.conversation):
            return
        at, run = datetime.now(UTC), self.run.id

        def decide(conversation: Conversation | None) -> Conversation:
            assert conversation is not None
            conversation.set_variables(at, run=run, step=step, values=written)
            return conversation

        metadata = self.first.metadata.caused(commit_id(run, f"variables/{step}"))
        await self.work.repository.change(Conversation, id, metadata, decide)

    async def _send(self, frame: dict[str, Any]) -> None:
        await self.work.live.publish(self.tenant, Run.TOPIC, self.run.id, {**frame, "sequence": self.sequence})


def _environment(graph: Graph, secrets: Mapping[str, tuple[str, str]]) -> dict[str, Value]:
    """The variables of the environment, with marks in the place of secrets."""
    found = {}
    for each in graph.environment:
        value = secrets.get(each.name, ("", ""))[0] if each.type == values.SECRET else each.value
        found[each.name] = values.declared(each.type, value)
    return found
