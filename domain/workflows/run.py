"""A run of a workflow: what it began with, and how each of its steps ended.

Its status goes scheduled → running → succeeded, partial-succeeded, failed or stopped; it is paused while it waits for
a person and nothing else is left to do. The engine folds graph and steps; this noun decides who may add steps, and who
may answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict, Unpack

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

ENDED: Final = frozenset({"succeeded", "partial-succeeded", "failed", "stopped"})
FOLDED: Final = frozenset({"succeeded", "exception", "failed", "retried"})
"""States of steps whose results the engine folds."""

INTERRUPTED: Final = frozenset({"stalled", "internal_error"})
"""Codes of runs that another attempt may finish: no node failed."""


class RunLimits(TypedDict):
    """Where a run is stopped."""

    steps: Annotated[int, "Maximum number of steps."]
    seconds: Annotated[float, "Maximum time that it is under way, without pauses."]


class Source(TypedDict):
    """The run whose results another one keeps."""

    run: Annotated[str, "That run."]
    kind: Annotated[str, "`fork` or `retry`."]
    step: Annotated[str, "Node from which on nothing is kept; empty to keep all that is unchanged."]


class RecordedCall(TypedDict):
    """A recorded call that a step made."""

    noun: Annotated[str, "`model_call`, `tool_call`, `effect` or `run`."]
    id: Annotated[str, "Its id."]


class Step(TypedDict):
    """The state of a step: one execution of a node."""

    key: Annotated[str, "Path to the execution: ids of nodes, and numbers of items or rounds, from 0, between slashes."]
    node: Annotated[str, "Node."]
    type: Annotated[str, "Type of the node."]
    title: Annotated[str, "Title of the node."]
    status: Annotated[
        str,
        "`running`, `succeeded`, `failed`, `exception` (failed, and the run goes on), `retried` (failed, and another "
        "try follows), `skipped` or `stopped`.",
    ]
    began: Annotated[str, "Time at which it began."]
    duration_ms: NotRequired[Annotated[float, "Milliseconds from its begin to its end."]]
    attempt: NotRequired[Annotated[int, "Try, from 1; missing for the first."]]
    handle: NotRequired[Annotated[str, "Edges that follow; missing for all."]]
    error_type: NotRequired[Annotated[str, "Kind of the error."]]
    tokens: NotRequired[Annotated[int, "Tokens of its model calls."]]
    calls: NotRequired[Annotated[list[RecordedCall], "Calls that it made."]]
    adapter: NotRequired[Annotated[str, "Adapter that ran its code."]]
    kept: NotRequired[Annotated[bool, "True if the result is that of the source of the run."]]


class Values(TypedDict, total=False):
    """Inputs and outputs of a step."""

    inputs: Annotated[dict[str, Any], "Values that its code or template was given, by name."]
    outputs: Annotated[dict[str, Any], "Outputs by name: `type` and `data`, or the `blob` of a large one."]
    writes: Annotated[list[dict[str, Any]], "Variables that it assigned: `selector` and `value`."]
    error: Annotated[str, "Reason of its failure."]


class Form(TypedDict):
    """A form that a person fills in until then."""

    key: str
    node: str
    until: str
    content: str
    inputs: list[dict[str, Any]]
    actions: list[dict[str, Any]]


class Wait(TypedDict):
    """The state of a form that a step waits for."""

    node: str
    until: str
    inputs: list[dict[str, Any]]
    actions: list[str]
    status: str
    """`waiting`, `answered`, `timed_out`, or `over` once the engine has taken it."""
    action: str
    fields: dict[str, Any]


class Finish(TypedDict):
    """The end of a run."""

    status: str
    outputs: dict[str, Any]
    code: str
    reason: str
    steps: int
    exceptions: int
    tokens: int
    duration_ms: float


class Batch(TypedDict):
    """Steps, and what each of them worked with and put out."""

    steps: list[Step]
    values: list[Values]


Key = Annotated[str, "Step that waits."]


class Run(Aggregate):
    TOPIC = "run"
    app: str
    mode: str
    graph: str
    conversation: str | None
    message: str | None
    status: str = field(default="scheduled", init=False)
    attempt: int = field(default=0, init=False)
    """1 for the first worker, and one more each time that another took over."""
    owner: str = field(default="", init=False)
    """The commit through which its worker owns it."""
    stalls: int = field(default=0, init=False)
    code: str = field(default="", init=False)
    stop_requested: bool = field(default=False, init=False)
    waits: dict[str, Wait] = field(default_factory=dict, init=False)

    class Event(aggregate.Event):
        pass

    class Started(Event, aggregate.Created):
        """A run of a workflow began."""

        TOPIC = "run.started.v1"
        PERSONAL = frozenset({"inputs", "system", "user", "variables"})
        app: Annotated[str, "App, whose id is that of its workflow."]
        mode: Annotated[str, "`workflow` or `advanced-chat`."]
        entry: Annotated[str | None, "Node of the trigger that it begins with; null for the start node."]
        trigger: Annotated[str, "Origin: `app`, `draft`, `tool`, `webhook` or `schedule`."]
        graph: Annotated[str, "Blob with the normalised graph, as JSON."]
        version: Annotated[int | None, "Number of the version that it runs; null for a draft."]
        engine: Annotated[int, "Number of the rules by which its steps are folded."]
        user: Annotated[str, "End user, as the app's operator names them; empty for none."]
        inputs: Annotated[dict[str, Any], "Inputs by name: `type` and `data`, or the `blob` of a large one."]
        system: Annotated[dict[str, Any], "Values of `sys` by name, likewise."]
        variables: Annotated[dict[str, Any], "Values of the variables of the conversation by name, likewise."]
        conversation: Annotated[str | None, "Conversation of the message that it answers; null for none."]
        message: Annotated[str | None, "Message that it answers; null for none."]
        limits: Annotated[RunLimits, "Where it is stopped."]
        source: Annotated[Source | None, "Run whose results it keeps; null for none."]
        tool_call: Annotated[str | None, "Call of a tool that it is; null for none."]
        depth: Annotated[int, "Number of runs around it, each of which called the next as a tool."]

    class Taken(Event):
        """A worker began with it, or went on with it."""

        TOPIC = "run.taken.v1"
        attempt: Annotated[int, "Attempt, from 1; each pause and each worker that dies costs one."]
        by: Annotated[str, "Commit that the worker was given."]

        def apply(self, run: Run) -> None:
            run.status, run.attempt, run.owner = "running", self.attempt, self.by

    class Stepped(Event):
        """Steps began and ended, in this order, since the last such event."""

        TOPIC = "run.stepped.v1"
        PERSONAL = frozenset({"values"})
        attempt: Annotated[int, "Attempt."]
        steps: Annotated[list[Step], "States of steps."]
        values: Annotated[list[Values], "For each of them, what it worked with and put out."]
        paused: Annotated[bool, "True if only steps that wait for a person are left: no worker owns the run."]

        def apply(self, run: Run) -> None:
            for step in self.steps:
                if step["status"] != "running" and (wait := run.waits.get(step["key"])):
                    wait |= {"status": "over", "fields": {}, "inputs": []}
            if self.paused:
                run.status, run.owner = "paused", ""

    class Waiting(Event):
        """A step waits for a person."""

        TOPIC = "run.waiting.v1"
        PERSONAL = frozenset({"content", "inputs"})
        key: Key
        node: Annotated[str, "Node."]
        until: Annotated[str, "Time at which it goes on without an answer."]
        content: Annotated[str, "Text of the form, Markdown; `{{#$output.name#}}` where a field stands."]
        inputs: Annotated[list[dict[str, Any]], "Fields of the form: `output_variable_name`, `type`, `default` …"]
        actions: Annotated[list[dict[str, Any]], "Buttons of the form: `id`, `title`, `button_style`."]

        def apply(self, run: Run) -> None:
            run.waits[self.key] = Wait(
                node=self.node,
                until=self.until,
                inputs=self.inputs,
                actions=[str(each.get("id")) for each in self.actions],
                status="waiting",
                action="",
                fields={},
            )

    class Answered(Event):
        """A person filled in a form."""

        TOPIC = "run.answered.v1"
        PERSONAL = frozenset({"fields", "by"})
        key: Key
        action: Annotated[str, "Button."]
        fields: Annotated[dict[str, Any], "Values of the fields, by name."]
        by: Annotated[str, "End user who answered; empty for an actor of the tenant."]

        def apply(self, run: Run) -> None:
            run.waits[self.key] |= {"status": "answered", "action": self.action, "fields": self.fields}

    class TimedOut(Event):
        """No person answered in time."""

        TOPIC = "run.timed_out.v1"
        key: Key

        def apply(self, run: Run) -> None:
            run.waits[self.key]["status"] = "timed_out"

    class StopRequested(Event):
        """Its end was requested."""

        TOPIC = "run.stop_requested.v1"

        def apply(self, run: Run) -> None:
            run.stop_requested = True

    class Finished(Event):
        """The run ended."""

        TOPIC = "run.finished.v1"
        PERSONAL = frozenset({"outputs", "reason"})
        attempt: Annotated[int, "Attempt; 0 if none had begun."]
        status: Annotated[str, "`succeeded`, `partial-succeeded` (a step failed, and it went on), `failed`, `stopped`."]
        outputs: Annotated[dict[str, Any], "Outputs by name: `type` and `data`, or the `blob` of a large one."]
        code: Annotated[str, "Error code, see [codes](codes.md); empty for none, and where a node failed."]
        reason: Annotated[str, "Reason of a failure or stop; empty for none."]
        steps: Annotated[int, "Number of steps."]
        exceptions: Annotated[int, "Number of steps that failed without ending it."]
        tokens: Annotated[int, "Tokens of its model calls."]
        duration_ms: Annotated[float, "Milliseconds under way, without pauses."]

        def apply(self, run: Run) -> None:
            run.status, run.code, run.owner = self.status, self.code, ""
            run.stalls += self.code == "stalled"

    class Retried(Event):
        """A run that lost its worker is gone on with."""

        TOPIC = "run.retried.v1"

        def apply(self, run: Run) -> None:
            run.status, run.code = "scheduled", ""

    @property
    def ended(self) -> bool:
        """No work is left."""
        return self.status in ENDED

    @property
    def interrupted(self) -> bool:
        """It ended since its workers were lost: another attempt may finish it."""
        return self.status == "failed" and self.code in INTERRUPTED

    @property
    def answers(self) -> dict[str, Wait]:
        """The forms that were answered, or timed out, and whose steps have not ended yet."""
        return {key: wait for key, wait in self.waits.items() if wait["status"] in ("answered", "timed_out")}

    def may_take(self, commit: str) -> bool:
        """Return whether a worker with this commit may own the run: no other does, or the worker of the commit died."""
        return not self.ended and self.owner in ("", commit)

    def take(self, at: datetime, *, by: str) -> None:
        if self.may_take(by):
            self.record(self.Taken, at, attempt=self.attempt + 1, by=by)

    def step(self, at: datetime, *, forms: Sequence[Form] = (), paused: bool = False, **batch: Unpack[Batch]) -> None:
        """Add steps; a run of which a form was answered meanwhile is not paused."""
        read = {step["key"] for step in batch["steps"] if step["status"] != "running"}
        paused = paused and not self.answers.keys() - read
        if batch["steps"] or paused:
            self.record(self.Stepped, at, attempt=self.attempt, paused=paused, **batch)
        for form in forms:
            self.record(self.Waiting, at, **form)

    def answer(self, at: datetime, *, key: str, action: str, fields: dict[str, Any], by: str) -> None:
        """Answer a form: the first answer counts.

        Raises: Rejection `not_found`, `already_answered`, `already_ended` or `invalid`.
        """
        wait = self._must_wait(key)
        if wait["until"] <= at.isoformat():
            raise Rejection("already_answered", f"The time for an answer ended at {wait['until']}.", "step")
        if action not in wait["actions"]:
            raise Rejection("invalid", f"It is one of {', '.join(wait['actions'])}.", "action")
        self.record(self.Answered, at, key=key, action=action, fields=_filled(wait["inputs"], fields), by=by)

    def time_out(self, at: datetime, *, key: str) -> None:
        wait = self.waits.get(key)
        if not self.ended and wait and wait["status"] == "waiting" and wait["until"] <= at.isoformat():
            self.record(self.TimedOut, at, key=key)

    def stop(self, at: datetime) -> None:
        """Request its end; a worker ends it. Raises: Rejection `already_ended`."""
        if self.ended:
            raise Rejection("already_ended", f"Run {self.id} is already {self.status}.", "run")
        if not self.stop_requested:
            self.record(self.StopRequested, at)

    def finish(self, at: datetime, **end: Unpack[Finish]) -> None:
        if not self.ended:
            self.record(self.Finished, at, attempt=self.attempt, **end)

    def fail(self, at: datetime, *, code: str, reason: str) -> None:
        """End a run whose worker cannot go on."""
        none = Finish(
            status="failed", outputs={}, code=code, reason=reason, steps=0, exceptions=0, tokens=0, duration_ms=0.0
        )
        self.finish(at, **none)

    def retry(self, at: datetime) -> None:
        """Go on with a run that lost its workers. Raises: Rejection `not_failed`."""
        if not self.interrupted:
            raise Rejection("not_failed", f"Run {self.id} is {self.status}, and was not interrupted.", "run")
        self.record(self.Retried, at)

    def _must_wait(self, key: str) -> Wait:
        if self.ended:
            raise Rejection("already_ended", f"Run {self.id} is already {self.status}.", "run")
        if (wait := self.waits.get(key)) is None:
            raise Rejection("not_found", f"Run {self.id} has no form at the step {key}.", "step")
        if wait["status"] != "waiting":
            said = f" with {wait['action']}" if wait["action"] else ""
            raise Rejection("already_answered", f"The form was answered before{said}, or its time is over.", "step")
        return wait


def _filled(inputs: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all fields of a form, with defaults. Raises: Rejection `invalid`."""
    named = {str(each.get("output_variable_name")): each for each in inputs}
    if unknown := sorted(given.keys() - named.keys()):
        raise Rejection("invalid", "The form has no such field.", f"fields.{unknown[0]}")
    filled: dict[str, Any] = {}
    for name, asked in named.items():
        value = given.get(name, asked.get("default"))
        options = asked.get("option_source", {}).get("value") if asked.get("type") == "select" else None
        if options and value not in options:
            raise Rejection("invalid", f"It is one of {', '.join(map(str, options))}.", f"fields.{name}")
        if asked.get("type") == "paragraph" and not isinstance(value, str | None):
            raise Rejection("invalid", "It is a text.", f"fields.{name}")
        filled[name] = value
    return filled


def blobs(event: Run.Started | Run.Stepped | Run.Finished) -> Iterator[tuple[Literal["file", "value"], str]]:
    """The blobs that an event names: large values, and files."""
    match event:
        case Run.Started():
            yield from named([event.inputs, event.system, event.variables])
        case Run.Stepped():
            yield from named(event.values)
        case Run.Finished():
            yield from named(event.outputs)


def named(value: object) -> Iterator[tuple[Literal["file", "value"], str]]:
    """The blobs that recorded values name."""
    match value:
        case {"blob": str(digest), "bytes": int()}:
            yield "value", digest
        case {"$file": {"related_id": str(digest)}}:
            yield "file", digest
        case dict():
            yield from (found for each in value.values() for found in named(each))
        case list():
            yield from (found for each in value for found in named(each))
