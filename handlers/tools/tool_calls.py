"""Records every call of a tool: an event before it is made, and one after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple, Protocol

import orjson
import structlog

from domain.chat.app import AgentSettings, Configuration
from domain.log import Metadata, commit_id
from domain.tools.question import Answer, Question
from domain.tools.tool_call import MOST_ASKS, ToolCall
from handlers.cause import Cause
from handlers.files import Files
from handlers.models.arguments import arguments_of
from handlers.models.filters import NOT_FILTERED, CallFilters, digest, filters_of
from handlers.models.model_calls import milliseconds, shielded
from handlers.models.prompt import QUOTED, place
from handlers.models.structured import fault
from handlers.ports.index import Entry, Hit
from handlers.ports.log import TooLarge, Unavailable
from handlers.ports.models import ModelError, Schemas
from handlers.ports.models import ToolCall as Asked
from handlers.ports.people import Erased
from handlers.ports.plugins import Plugins
from handlers.ports.tools import Answered, CallBacks, Invocation, NeedsAnswers, Output, Result, ToolError
from handlers.repository import Repository
from handlers.tools.offer import Offered
from handlers.tools.strategies import Observed

log = structlog.get_logger(__name__)

LONGEST = 64 * 1024
"""Maximum length of a result that is given to a model, in characters."""

CUT = "\n[The result is cut here.]"

UNKNOWN = "It is unknown whether the call did something: the worker died during it, and it is not made again."

LONGEST_REASON = 2500
"""Maximum length of the reason of a failed call, in characters: that of a server has up to 2 KiB of its words."""

PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""Interval between two looks for an answer of the user, in seconds; it doubles up to the longest."""

AT_ONCE = 8
"""Maximum number of calls of a turn that are made at a time."""


@dataclass(slots=True)
class Numbers:
    """The passages that the tools of a turn found, by their numbers from 1, and the names of their documents by id."""

    hits: dict[int, Hit] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, hits: Sequence[Hit], names: Mapping[str, str]) -> list[int]:
        """Number more passages."""
        first = max(self.hits, default=0) + 1
        numbers = list(range(first, first + len(hits)))
        self.hits |= dict(zip(numbers, hits, strict=True))
        self.names |= names
        return numbers

    def recall(self, call: ToolCall) -> None:
        """Take the passages of a call that an earlier attempt made."""
        for part in call.parts:
            if part["type"] == "citation":
                entry = Entry(part["segment"], part["segment_position"], part["content"], part["page"], part["heading"])
                self.hits[part["number"]] = Hit(part["dataset"], part["document"], entry, part["score"])
                self.names[part["document"]] = part["document_name"]

    @property
    def passages(self) -> list[Hit]:
        """By number; where an earlier attempt could not record a result, an empty one."""
        empty = Hit("", "", Entry("", 0, ""), 0.0)
        return [self.hits.get(number, empty) for number in range(1, max(self.hits, default=0) + 1)]


class Task(NamedTuple):
    """The turn that calls tools, and the model call and round that asked for them; `within` is the call of a tool that
    makes them itself, None for the agent."""

    cause: Cause
    conversation: str
    configuration: Configuration
    agent: AgentSettings
    at: str
    user: str
    numbers: Numbers
    model_call: str
    round: int
    resumed: bool
    """Calls of the round may be there already."""
    show: Callable[[dict[str, Any]], Awaitable[None]]
    """Shows a live frame."""
    within: str | None = None


class Made(NamedTuple):
    """A call that has ended, or that is held."""

    id: str
    call: ToolCall
    observed: Observed
    fault: bool = False
    """The tool or its arguments were invalid."""


class Within(CallBacks, Protocol):
    """The calls that a call of a tool makes itself."""

    async def lose(self) -> None:
        """End those that an earlier attempt left open. Raises: Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class ToolCalls:
    repository: Repository
    schemas: Schemas
    files: Files
    plugins: Plugins | None = None
    within: Callable[[ToolCalls, Task, str, Mapping[str, Offered]], Within] | None = None
    """The calls that a call of a tool, by its id, makes itself; the tools are those that it may call."""

    async def __call__(self, task: Task, asked: Sequence[Asked], offered: Mapping[str, Offered]) -> list[Made]:
        """Make the calls of a round, or go on with them as an earlier attempt left them. Raises: Unavailable."""
        tenant = task.cause.metadata.tenant
        ids = [commit_id(task.model_call, f"tool:{position}") for position, _ in enumerate(asked)]
        known = await self.repository.all(ToolCall, tenant, ids) if task.resumed else {}
        for call in known.values():
            task.numbers.recall(call)
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(position: int, id: str) -> Made:
            async with turn:
                return await self.make(task, position, id, asked[position], offered, known.get(id))

        return await asyncio.gather(*(one(position, id) for position, id in enumerate(ids)))

    async def make(
        self, task: Task, position: int, id: str, asked: Asked, tools: Mapping[str, Offered], known: ToolCall | None
    ) -> Made:
        """Make one call, or go on with it as an earlier attempt left it. Raises: Unavailable."""
        offered = tools.get(asked.name)
        within = self.within(self, task, id, tools) if self.within else None
        written = asked._replace(arguments=known.arguments) if known else asked
        arguments, fault = await self._arguments(task, written, offered)
        filters = await self._filters(task, id, offered)
        attempt = task.cause.attempt
        if known is None:
            if filters and not fault:
                arguments, fault, written = await self._filtered(task, filters, arguments, asked, offered)
            known = await self._request(task, id, position, written, offered, fault, filters)
        elif known.under_way and known.attempt < attempt and not known.idempotent:
            if within:
                await within.lose()
            known = await self._change(task, id, "lost", _lose)
        elif known.status == "released" or known.under_way:
            known = await self._change(task, id, "begin", lambda call, at: call.begin_again(at, attempt=attempt))
        if known.status == "requested" and offered:
            known = await self._run(task, id, offered, arguments, filters, within, known)
        elif known.status == "requested":
            known = await self._change(task, id, "end", _gone)
        return Made(id, known, observation(known, asked), bool(fault))

    async def cancel(self, cause: Cause, ids: list[str]) -> None:
        """Cancel the calls that still wait for a person. Raises: Unavailable."""
        for id in ids:
            await self._changed(cause, id, "cancel", lambda call, at: call.cancel(at, duration_ms=None))

    async def lose(self, cause: Cause, ids: list[str]) -> None:
        """End calls whose worker died; their outcome is unknown. Raises: Unavailable."""
        for id in ids:
            await self._changed(cause, id, "lost", _lose)

    async def _arguments(
        self, task: Task, asked: Asked, offered: Offered | None
    ) -> tuple[dict[str, Any], tuple[str, str] | None]:
        """The valid arguments, or the code and the reason of their fault."""
        if offered is None:
            return {}, ("unknown_tool", f"There is no tool {asked.name!r}.")
        schema = offered.definition["parameters"]
        try:
            arguments = arguments_of(asked.arguments)
        except ValueError as error:
            if (only := _only(schema)) is None or asked.arguments.lstrip().startswith(("{", "[")):
                return {}, ("invalid_arguments", str(error))
            arguments = {only: asked.arguments}
        try:
            found = await self._fault(task.cause.metadata.tenant, offered, orjson.dumps(arguments).decode())
        except ModelError as error:
            found = error.reason
        if found:
            return {}, ("invalid_arguments", f"The arguments do not keep to the JSON Schema of the tool: {found}")
        return arguments, None

    async def _fault(self, tenant: str, offered: Offered, arguments: str) -> str | None:
        """Raises: ModelError, Unavailable."""
        schema = offered.definition["parameters"]
        return (
            fault(schema, arguments) if offered.has_own_schema else await self.schemas.fault(tenant, schema, arguments)
        )

    async def _filters(self, task: Task, id: str, offered: Offered | None) -> CallFilters | None:
        """The filters of plugins for the call; None for none. Raises: Unavailable."""
        if offered is None:
            return None
        about = {"id": id, "kind": "tool", "provider": offered.toolset or offered.kind, "app": task.cause.app}
        about |= {"model": offered.definition["name"], "toolset": about["provider"], "tool": offered.name}
        return await filters_of(self.plugins, task.cause.metadata.tenant, about)

    async def _filtered(
        self, task: Task, filters: CallFilters, arguments: dict[str, Any], asked: Asked, offered: Offered | None
    ) -> tuple[dict[str, Any], tuple[str, str] | None, Asked]:
        """The arguments as the filters leave them, or why the call is not made, and what is recorded of it."""
        try:
            changed = await filters.before_tool(arguments)
        except ModelError as error:
            return {}, (error.code, error.reason), asked
        if changed == arguments:
            return arguments, None, asked
        asked = asked._replace(arguments=orjson.dumps(changed).decode())
        return *await self._arguments(task, asked, offered), asked

    async def _request(
        self,
        task: Task,
        id: str,
        position: int,
        asked: Asked,
        offered: Offered | None,
        fault: tuple[str, str] | None,
        filters: CallFilters | None = None,
    ) -> ToolCall:
        """Record the call before it is made; held, where it needs a person; failed, where it is not made."""
        at = datetime.now(UTC)
        filtered = filters.take_record() if filters else NOT_FILTERED

        def decide(call: ToolCall | None) -> ToolCall:
            if call is not None:
                return call
            call = ToolCall.begin(
                ToolCall.Requested,
                id,
                at,
                toolset=offered.toolset if offered else "",
                kind=offered.kind if offered else "",
                tool=offered.definition["name"] if offered else "",
                name=asked.name,
                digest=offered.digest if offered else "",
                arguments=asked.arguments,
                cause_noun=task.cause.noun,
                cause_id=task.cause.id,
                conversation=task.conversation,
                app=task.cause.app or "",
                model_call=task.model_call,
                round=task.round,
                position=position,
                attempt=task.cause.attempt,
                destructive=offered.definition["destructive"] if offered else False,
                idempotent=offered.definition["idempotent"] if offered else True,
                server=offered.server if offered else "",
                within=task.within,
            )
            call.filter(at, plugins=filtered.runs, original=filtered.original)
            if fault:
                call.fail(at, code=fault[0], reason=fault[1][:1000], duration_ms=None)
            elif offered and offered.waits:
                call.hold(at, why=offered.waits, seconds=task.agent["hold_s"])
            return call

        metadata = task.cause.metadata.caused(id)  # so that all that the tool causes names the call
        change = await self.repository.change(ToolCall, id, metadata, decide, new=True)
        return change.aggregate

    async def _run(
        self,
        task: Task,
        id: str,
        offered: Offered,
        arguments: dict[str, Any],
        filters: CallFilters | None,
        within: Within | None,
        known: ToolCall,
    ) -> ToolCall:
        """Make the call that is requested, and record its end; or that it waits for answers of the user."""
        began = time.perf_counter()
        names = [question["name"] for question in known.questions]
        answered = Answered(dict(zip(names, known.answers, strict=False)), known.state) if names else None

        number = count(known.asks)

        async def ask(question: Question) -> Answer:
            return await self._asked(task, id, question, next(number))

        about = id, task.cause, offered.definition, arguments, task.configuration, task.at, task.user
        invocation = Invocation(*about, answered, ask, within)
        try:
            result = await offered.toolbox.call(invocation)
            text, parts = await self._recorded(task, result)
            if filters:
                text = await filters.after_tool(text)
        except asyncio.CancelledError:
            elapsed = milliseconds(began)
            await shielded(self._change(task, id, "end", lambda call, at: call.cancel(at, duration_ms=elapsed)))
            raise
        except NeedsAnswers as needs:
            return await self._hold(task, id, needs.questions, next(number), state=needs.state)
        except (ToolError, ModelError, Unavailable, TooLarge, Erased) as error:
            code, reason = _reason(error)
            return await self._fail(task, id, code, reason, began, filters)
        except Exception as error:
            log.exception("tool failed", tenant=invocation.tenant, toolset=offered.toolset, tool=offered.name)
            return await self._fail(task, id, "internal_error", type(error).__name__, began)
        elapsed, filtered = milliseconds(began), filters.take_record() if filters else NOT_FILTERED

        def complete(call: ToolCall, at: datetime) -> None:
            call.complete(at, text=text, parts=parts, duration_ms=elapsed)
            call.filter(at, plugins=filtered.runs, original=filtered.original)

        try:
            return await self._change(task, id, "end", complete)
        except TooLarge as error:
            return await self._fail(task, id, "too_large", f"The result cannot be recorded. {error}", began)

    async def _fail(
        self, task: Task, id: str, code: str, reason: str, began: float, filters: CallFilters | None = None
    ) -> ToolCall:
        elapsed, filtered = milliseconds(began), filters.take_record() if filters else NOT_FILTERED

        def fail(call: ToolCall, at: datetime) -> None:
            call.fail(at, code=code, reason=reason[:LONGEST_REASON], duration_ms=elapsed)
            call.filter(at, plugins=filtered.runs, original=filtered.original)

        return await self._change(task, id, "end", fail)

    async def _hold(
        self, task: Task, id: str, questions: Sequence[Question], number: int, *, state: str | None
    ) -> ToolCall:
        """Record what the server of a tool asks the user, and show it; without a state, its session waits."""

        def ask(call: ToolCall, at: datetime) -> None:
            if call.asks >= MOST_ASKS:
                reason = f"The server asked the user {MOST_ASKS} times, and goes on to ask."
                call.fail(at, code="server_error", reason=reason, duration_ms=None)
            call.ask(
                at, questions=list(questions), state=state or "", session=state is None, seconds=task.agent["hold_s"]
            )

        known = await self._change(task, id, f"ask:{number}", ask)
        for each in questions if known.status == "held" else ():
            shown = {"round": task.round, "call": id, "name": known.name}
            await task.show({"type": "question", **shown, "text": each["message"], "form": each["form"]})
        return known

    async def _asked(self, task: Task, id: str, question: Question, number: int) -> Answer:
        """The answer of the user, for which a session waits. Raises: ToolError where there is none."""
        known: ToolCall | None = await self._hold(task, id, [question], number, state=None)
        pause = PAUSE_S
        while known is not None and known.status == "held":
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            known = await self.repository.get(ToolCall, task.cause.metadata.tenant, id)
        if known is None or known.ended or not known.answers:
            raise ToolError("timeout", "The question of the server was not answered.")
        return known.answers[-1]

    async def _recorded(self, task: Task, result: Result) -> tuple[str, list[dict[str, Any]]]:
        """The text for the model, and the other parts of a result, its files stored and its passages numbered."""
        texts, parts = [result.text] if result.text else [], [dict(part) for part in result.parts]
        if result.passages:
            numbers = task.numbers.add(result.passages, result.names)
            for number, hit in zip(numbers, result.passages, strict=True):
                name = result.names.get(hit.document, hit.document)
                texts.append(place(number, hit, name) + hit.entry.content)
                parts.append({"type": "citation", "number": number, **_citation(hit, name)})
        for file in result.files:
            parts.append(part := await self.stored(task.cause, file))
            texts.append(f"[{part['type']} {file.name or file.media_type} was made, and is shown to the user.]")
        text = "\n\n".join(texts)
        return text if len(text) <= LONGEST else text[: LONGEST - len(CUT)] + CUT, parts

    async def stored(self, cause: Cause, file: Output) -> dict[str, Any]:
        """Store a file, and return the part that is recorded of it. Raises: Erased, Unavailable."""
        digest = await self.files.put(cause.metadata.tenant, cause.metadata.person, "file", file.data)
        kind = "image" if file.media_type.startswith("image/") else "file"
        named = {"media_type": file.media_type, "name": file.name, "size": len(file.data)}
        return {"type": kind, "digest": digest, **named}

    async def _change(self, task: Task, id: str, step: str, verb: Callable[[ToolCall, datetime], None]) -> ToolCall:
        return await self._changed(task.cause, id, step, verb)

    async def _changed(self, cause: Cause, id: str, step: str, verb: Callable[[ToolCall, datetime], None]) -> ToolCall:
        at = datetime.now(UTC)

        def decide(call: ToolCall | None) -> ToolCall:
            assert call is not None
            verb(call, at)
            return call

        change = await self.repository.change(ToolCall, id, _metadata(cause, id, f"{step}:{cause.attempt}"), decide)
        return change.aggregate


def _citation(hit: Hit, name: str) -> dict[str, Any]:
    return {
        "dataset": hit.dataset,
        "document": hit.document,
        "document_name": name,
        "segment": hit.id,
        "segment_position": hit.entry.position,
        "page": hit.entry.page,
        "heading": hit.entry.heading,
        "content": hit.entry.content,
        "score": hit.score,
    }


def asks(call: ToolCall, name: str, arguments: dict[str, Any]) -> bool:
    """Return whether a recorded call is of this tool, with these arguments before filters changed them."""
    if call.name != name:
        return False
    if call.original:
        return call.original == digest(arguments)
    try:
        return arguments_of(call.arguments) == arguments
    except ValueError:
        return False


def observation(call: ToolCall, asked: Asked) -> Observed:
    """The result as the model is given it: a long text is quoted, not recorded again with each prompt."""
    if call.status == "completed":
        text = call.text or "The tool gave no result."
        return Observed(asked, text, f"tool_call/{call.id}" if len(call.text) >= QUOTED else "")
    return Observed(asked, f"The call was {call.status}: {call.reason or 'no reason is known.'}")


def _only(schema: dict[str, Any]) -> str | None:
    """The only argument of a tool; None where it has several, or none."""
    names = list(schema.get("properties") or ())
    return names[0] if len(names) == 1 else None


def _gone(call: ToolCall, at: datetime) -> None:
    call.fail(at, code="unknown_tool", reason="The tool is not offered any more.", duration_ms=None)


def _lose(call: ToolCall, at: datetime) -> None:
    call.lose(at, UNKNOWN)


def _reason(error: Exception) -> tuple[str, str]:
    match error:
        case ToolError() | ModelError():
            return error.code, error.reason
        case TooLarge():
            return "too_large", f"The result cannot be stored. {error}"
        case Erased():
            return "erased", "The person was erased before the result was stored."
    return "unreachable", str(error)


def _metadata(cause: Cause, call: str, step: str) -> Metadata:
    return cause.metadata.caused(commit_id(cause.metadata.id, f"{call}:{step}"))
