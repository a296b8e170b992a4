"""A tool call: recorded before it is made, and again when it ends.

Its status goes requested → completed, failed or cancelled. One that needs a person is held first: it goes held →
released → requested, or held → refused. The outcome of one that stays `requested` is unknown: it fails with code
`lost`, unless the tool is idempotent. Then it is made again, under the same id.

A call is held too while the server of its tool asks the user something. With the last answer it is released, and made
again with the answers and the state that the server gave; where an older server waits in its session, it is requested
still, and goes on.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime, timedelta
from typing import Annotated, Any, TypedDict, Unpack

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage, Rejection
from domain.tools.plugin import PluginRun
from domain.tools.question import Action, Answer, Question, fault

MOST_ASKS = 20
"""Maximum number of times that a call asks the user."""

OPEN = ("requested", "held", "released")
"""States of a call that has not ended."""


class Result(TypedDict):
    """The result of a tool."""

    text: str
    parts: list[dict[str, Any]]
    duration_ms: float


Duration = Annotated[float | None, "Milliseconds from the request to the end; null when unknown."]


class ToolCall(Aggregate):
    TOPIC = "tool_call"
    toolset: str
    tool: str
    name: str
    arguments: str
    cause_noun: str
    cause_id: str
    conversation: str
    app: str
    idempotent: bool
    status: str = field(default="requested", init=False)
    attempt: int
    held_until: str = field(default="", init=False)
    text: str = field(default="", init=False)
    parts: list[dict[str, Any]] = field(default_factory=list, init=False)
    code: str = field(default="", init=False)
    reason: str = field(default="", init=False)
    asks: int = field(default=0, init=False)
    """Number of times that it has asked the user."""
    questions: list[Question] = field(default_factory=list, init=False)
    answers: list[Answer] = field(default_factory=list, init=False)
    state: str = field(default="", init=False)
    session: bool = field(default=False, init=False)
    original: str | None = field(default=None, init=False)
    """SHA-256 of the arguments before filters changed them; None where they did not."""

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """A tool is about to be called, unless the same commit holds the call or fails it."""

        TOPIC = "tool_call.requested.v1"
        PERSONAL = frozenset({"arguments"})
        toolset: Annotated[str, "Toolset; empty for a tool that is not offered."]
        kind: Annotated[str, "Kind of the toolset: `builtin`, or as in `toolset.registered`; empty likewise."]
        tool: Annotated[str, "Tool, by its name in the toolset; empty likewise."]
        name: Annotated[str, "Name that the model called it by."]
        digest: Annotated[str, "Blob with the list of tools that it was taken from; empty for the built-in ones."]
        arguments: Annotated[str, "Arguments, as text of a JSON object; as the model wrote them, if they are invalid."]
        cause_noun: Annotated[str, "Purpose of the call: `message` or `run`."]
        cause_id: Annotated[str, "Id of that message or run."]
        conversation: Annotated[str, "Conversation of the message; empty for a run that answers none."]
        app: Annotated[str, "App whose agent or run called it."]
        model_call: Annotated[
            str,
            "Model call that asked for it; empty for a run, and where a plugin's strategy called it by itself.",
        ]
        round: Annotated[int, "Round of the agent, from 1; 0 for a run."]
        position: Annotated[int, "Place among the calls of the round, from 0."]
        attempt: Annotated[int, "Attempt at the answer, from 1."]
        destructive: Annotated[bool, "True unless the tool is known to change nothing outside."]
        idempotent: Annotated[bool, "True if the call may be made again when its outcome is unknown."]
        server: Annotated[str, "Address of the tool, as `host:port`; empty for one within the worker."]
        within: Annotated[str | None, "Call of a tool that made it itself; null for the agent's."] = None

    class Held(Event):
        """The call waits for a person."""

        TOPIC = "tool_call.held.v1"
        why: Annotated[str, "`approval`; or `changed`: the tool is not as it was when it was allowed."]
        until: Annotated[str, "Time at which the call is refused, unless it was released before."]

        def apply(self, call: ToolCall) -> None:
            call.status, call.held_until = "held", self.until

    class Asked(Event):
        """The server of the tool asks the user, and goes on with the answer: the call waits for it."""

        TOPIC = "tool_call.asked.v1"
        PERSONAL = frozenset({"questions", "state"})
        questions: Annotated[list[Question], "Questions, which are answered in this order."]
        state: Annotated[str, "State that the server wants back with the answers; empty for none."]
        session: Annotated[bool, "True if the server waits in its session, which ends with the worker."]
        until: Annotated[str, "Time at which the call is refused, unless it was answered before."]

        def apply(self, call: ToolCall) -> None:
            call.status, call.held_until, call.asks = "held", self.until, call.asks + 1
            call.questions, call.answers = self.questions, []
            call.state, call.session = self.state, self.session

    class Answered(Event):
        """A person answered a question of the server: the first that was open."""

        TOPIC = "tool_call.answered.v1"
        PERSONAL = frozenset({"content"})
        action: Annotated[str, "`accept`, `decline`, or `cancel`: neither of the two."]
        content: Annotated[dict[str, Any], "Fields of the form; empty unless it was accepted."]
        open: Annotated[int, "Number of questions that are still open; with none, the call goes on."]
        session: Annotated[bool, "True if the server waits in its session."]

        def apply(self, call: ToolCall) -> None:
            call.answers.append(Answer(action=self.action, content=self.content))
            if not self.open:
                call.status = "requested" if self.session else "released"

    class Released(Event):
        """A person released the call: it may be made."""

        TOPIC = "tool_call.released.v1"

        def apply(self, call: ToolCall) -> None:
            call.status = "released"

    class Refused(Event):
        """A person refused the call, or did not release it in time (code `expired`)."""

        TOPIC = "tool_call.refused.v1"
        PERSONAL = frozenset({"reason"})
        code: ErrorCode
        reason: ErrorMessage

        def apply(self, call: ToolCall) -> None:
            call.status, call.code, call.reason = "refused", self.code, self.reason

    class Begun(Event):
        """The call is about to be made: after it was released, or again where its outcome is unknown."""

        TOPIC = "tool_call.begun.v1"
        attempt: Annotated[int, "Attempt at the answer, from 1."]

        def apply(self, call: ToolCall) -> None:
            call.status, call.attempt = "requested", self.attempt

    class Completed(Event):
        """The tool gave a result."""

        TOPIC = "tool_call.completed.v1"
        PERSONAL = frozenset({"parts", "text"})
        text: Annotated[str, "Result as the model is given it."]
        parts: Annotated[
            list[dict[str, Any]],
            "Other parts of the result, each with a `type`: `json` (value), `file` and `image` (digest, media_type, "
            "name, size), `link` (url, title), `citation` (a passage with its number).",
        ]
        duration_ms: Annotated[float, "Milliseconds from the request to the end."]

        def apply(self, call: ToolCall) -> None:
            call.status, call.text, call.parts = "completed", self.text, self.parts

    class Failed(Event):
        """The tool gave no result, or was not called.

        With code `lost`, the worker died during the call: whether the tool did something is unknown.
        """

        TOPIC = "tool_call.failed.v1"
        PERSONAL = frozenset({"reason"})
        code: ErrorCode
        reason: ErrorMessage
        duration_ms: Duration

        def apply(self, call: ToolCall) -> None:
            call.status, call.code, call.reason = "failed", self.code, self.reason

    class Cancelled(Event):
        """The answer was stopped: the call was broken off, or never made. One that was made may have done something."""

        TOPIC = "tool_call.cancelled.v1"
        duration_ms: Duration

        def apply(self, call: ToolCall) -> None:
            call.status = "cancelled"

    class Filtered(Event):
        """Filters of plugins handled the arguments, in the commit of the request; or the result, in the commit of the
        end.

        The call has the arguments and the result as the filters left them.
        """

        TOPIC = "tool_call.filtered.v1"
        plugins: Annotated[list[PluginRun], "Hooks of plugins, in the order in which they ran."]
        original: Annotated[str | None, "SHA-256 of the arguments or result before; null if nothing changed."]

        def apply(self, call: ToolCall) -> None:
            if not call.ended:
                call.original = self.original

    @property
    def ended(self) -> bool:
        return self.status not in OPEN

    @property
    def question(self) -> Question | None:
        """The question that waits for an answer."""
        return self.questions[len(self.answers)] if self._waits_for_answer else None

    @property
    def under_way(self) -> bool:
        """It was made, and its outcome is unknown if its worker dies now."""
        return self.status == "requested" or (self._waits_for_answer and self.session)

    @property
    def _waits_for_answer(self) -> bool:
        return self.status == "held" and len(self.answers) < len(self.questions)

    def filter(self, at: datetime, *, plugins: list[PluginRun], original: str | None) -> None:
        if plugins:
            self.record(self.Filtered, at, plugins=plugins, original=original)

    def hold(self, at: datetime, *, why: str, seconds: float) -> None:
        if self.status == "requested":
            self.record(self.Held, at, why=why, until=(at + timedelta(seconds=seconds)).isoformat())

    def ask(self, at: datetime, *, questions: list[Question], state: str, session: bool, seconds: float) -> None:
        if self.status == "requested":
            until = (at + timedelta(seconds=seconds)).isoformat()
            self.record(self.Asked, at, questions=questions, state=state, session=session, until=until)

    def answer(self, at: datetime, *, action: Action, content: dict[str, Any]) -> None:
        """Raises: Rejection for a call that asks nothing, and for an answer that is none."""
        self._must_wait()
        if (question := self.question) is None:
            field = "answer" if action == "accept" else action
            raise Rejection("invalid", "The call asks nothing: release or refuse it as it is.", field)
        if action == "accept" and (why := fault(question["form"], content)):
            raise Rejection("invalid", why, "answer")
        rest = len(self.questions) - len(self.answers) - 1
        self.record(self.Answered, at, action=action, content=content, open=rest, session=self.session)

    def release(self, at: datetime) -> None:
        self._must_wait()
        self.record(self.Released, at)

    def refuse(self, at: datetime, *, code: str, reason: str) -> None:
        self._must_wait()
        self.record(self.Refused, at, code=code, reason=reason)

    def expire(self, at: datetime) -> None:
        if self.status == "held" and at.isoformat() >= self.held_until:
            self.record(self.Refused, at, code="expired", reason="The call was not released in time.")

    def begin_again(self, at: datetime, *, attempt: int) -> None:
        """Make the call now that it is released; or again in this attempt, since an earlier one left it open."""
        if self.status == "released" or (self.under_way and self.attempt < attempt):
            self.record(self.Begun, at, attempt=attempt)

    def complete(self, at: datetime, **result: Unpack[Result]) -> None:
        if self.status == "requested":
            self.record(self.Completed, at, **result)

    def fail(self, at: datetime, *, code: str, reason: str, duration_ms: float | None) -> None:
        if not self.ended:
            self.record(self.Failed, at, code=code, reason=reason, duration_ms=duration_ms)

    def lose(self, at: datetime, reason: str) -> None:
        """End a call whose worker died; one that waits for its release was not made."""
        if self.under_way:
            self.fail(at, code="lost", reason=reason, duration_ms=None)

    def cancel(self, at: datetime, *, duration_ms: float | None) -> None:
        if not self.ended:
            self.record(self.Cancelled, at, duration_ms=duration_ms)

    def _must_wait(self) -> None:
        """Raises: Rejection `not_held`."""
        if self.status != "held":
            raise Rejection("not_held", f"Tool call {self.id} is {self.status}, not held.", "call")
