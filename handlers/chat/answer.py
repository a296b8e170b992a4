"""Answers a message: retrieve, prompt, call the model, stream its tokens, record the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from domain.aggregate import Rejection
from domain.chat.app import App, Configuration
from domain.chat.conversation import (
    Citation,
    Conversation,
    Message,
    StrategyChange,
    Truncation,
    Usage,
    asked,
    question,
)
from domain.log import Commit
from domain.models.model_call import TokenUsage
from handlers.cause import Cause
from handlers.chat.annotations import STEP as ANNOTATION
from handlers.chat.annotations import Match, MatchAnnotation
from handlers.chat.citations import citations
from handlers.chat.empty_answer import empty
from handlers.chat.files import MessageFiles
from handlers.chat.moderate import STEP, Moderate, Moderation, Preset, applied
from handlers.models import structured
from handlers.models.arguments import bare
from handlers.models.choose import Choose
from handlers.models.model_calls import Chat, ModelCalls, beginning, milliseconds, shielded
from handlers.models.prompt import Draft, Origin, Prompt, Record, build_prompt
from handlers.ports.index import Hit
from handlers.ports.log import Live, Stops, TooLarge, Unavailable
from handlers.ports.models import ChatModel, ChatRequest, Citer, ModelError, Schemas
from handlers.repository import Repository
from handlers.retrieval.retrieve import CALLS as SEARCHES
from handlers.retrieval.retrieve import Preparation, Retrieve, Retrieved
from handlers.tools.agent import Agent
from handlers.tools.tool_calls import Numbers
from handlers.tools.turn import Held, Said
from handlers.tools.turn import Turn as Task
from handlers.work.attempt import Attempt, Ended, Verb
from handlers.work.work import WORKS
from handlers.workflows.chatflow import Chatflow

log = structlog.get_logger(__name__)

Begins = Conversation.Asked | Conversation.Retried | Conversation.Resumed
"""The events that have a message answered."""

CALLS = (ANNOTATION, *SEARCHES, "chat", structured.STEP)
"""The steps of an answer that call a model."""


@dataclass(frozen=True, slots=True)
class Answer:
    repository: Repository
    calls: ModelCalls
    retrieve: Retrieve
    choose: Choose[ChatModel]
    live: Live
    stops: Stops
    citer: Citer
    moderate: Moderate
    annotated: MatchAnnotation
    schemas: Schemas
    files: MessageFiles
    agent: Agent
    limit_s: float = 600.0
    chatflow: Chatflow | None = None

    async def __call__(self, commit: Commit) -> None:
        """Answer the questions that the commit asks, or asks again. Raises: Unavailable."""
        for event in commit.events:
            if isinstance(event, Conversation.Asked | Conversation.Retried | Conversation.Resumed):
                if self.chatflow and await self.chatflow.begins(commit, event.app, event.message):
                    continue
                attempt = Attempt[Conversation](self.repository, WORKS["answer"], commit, event.message)
                with suppress(Ended):
                    await self._answer(_Turn(attempt, event.app), event)

    async def _answer(self, turn: _Turn, event: Begins) -> None:
        began = time.perf_counter()
        stop = self.stops.watch(turn.tenant, turn.id, turn.message, person=turn.person)
        try:
            await asyncio.gather(self._prepare(turn, event), self._begin(turn))
            if turn.attempt.number > 1:
                await self._send(turn, {"type": "restarted", "attempt": turn.attempt.number})
                turn.cause = await self._take_over(turn)
            if turn.state["stop_requested"]:
                await self._stop(turn)
            else:
                await self._attempt(turn, stop, began)
        finally:
            self.stops.unwatch(turn.tenant, turn.id, turn.message)
            if turn.preparation:
                turn.preparation.cancel()

    async def _begin(self, turn: _Turn) -> None:
        await turn.attempt.begin(lambda conversation, at: conversation.answering(at, message=turn.message))
        turn.cause = replace(turn.attempt.cause, app=turn.app_id)

    async def _prepare(self, turn: _Turn, event: Begins) -> None:
        """Load the app, and start to prepare the retrieval, while the attempt is recorded.

        Configurations never change: that of an app in memory will do for it. A question that filters check first is
        not used before.
        """
        known = self.repository.known(App, turn.tenant, turn.app_id)
        self._prepare_retrieval(turn, event, known)
        turn.app = await self.repository.get(App, turn.tenant, turn.app_id)
        self._prepare_retrieval(turn, event, turn.app)

    def _prepare_retrieval(self, turn: _Turn, event: Begins, app: App | None) -> None:
        if turn.preparation or not isinstance(event, Conversation.Asked) or not event.query or not app or app.deleted:
            return
        if app.is_agent:  # which searches by itself
            return
        configuration = app.configurations.get(str(event.configuration))
        if configuration and configuration["datasets"] and not applied(configuration, "input"):
            turn.preparation = self.retrieve.prepare(turn.tenant, configuration, event.query)

    async def _attempt(self, turn: _Turn, stop: asyncio.Event, began: float) -> None:
        """Answer, stop or fail: rejections, errors of models and timeouts are outcomes."""
        limit_s = self.limit_s
        try:
            agent = turn.configuration()["features"]["agent"]
            limit_s = agent["seconds"] if agent else self.limit_s
            async with asyncio.timeout(limit_s):
                await self._filter_question(turn)
                if match := await self.annotated(turn.cause, turn.configured(), turn.asked):
                    await self._give(turn, match.answer, milliseconds(began), match)
                    return
                answer = await (self._by_agent(turn, stop) if agent else self._by_model(turn, stop))
                if answer is None:
                    await self._stop(turn)
                else:
                    await self._record(turn, answer, milliseconds(began))
        except Held as held:
            await self._hold(turn, stop, held, began)
        except Preset as preset:
            await self._give(turn, preset.answer, milliseconds(began))
        except ModelError as error:
            await self._fail(turn, error.code, error.reason)
        except Rejection as rejection:
            await self._fail(turn, rejection.code, rejection.message)
        except TooLarge as error:
            advice = "Ask for a shorter answer, or set a smaller retrieval.top_k."
            await self._fail(turn, "too_large", f"The answer and its citations cannot be recorded. {error} {advice}")
        except TimeoutError:
            await self._fail(turn, "timeout", f"The answer took longer than {limit_s:g} s.")

    async def _hold(self, turn: _Turn, stop: asyncio.Event, held: Held, began: float) -> None:
        """Wait for a person; where one of the calls was decided meanwhile, go on in another attempt."""
        await turn.attempt.step(
            f"hold:{held.calls[0]}",
            lambda conversation, at: conversation.hold(at, message=turn.message, calls=held.calls),
        )
        if turn.state["status"] == "held":
            await self._send(turn, {"type": "held", "calls": list(held.calls)})
        else:
            await self._begin(turn)
            turn.cause = await self._take_over(turn)
            await self._attempt(turn, stop, began)

    async def _take_over(self, turn: _Turn) -> Cause:
        configuration = turn.app and turn.app.configurations.get(str(turn.state["configuration"]))
        moderation = configuration["features"]["moderation"] if configuration else ()
        filters = [f"{STEP}:{number}" for number, _ in enumerate(moderation)]
        return await self.calls.take_over(turn.cause, *CALLS, *filters, series=filters)

    async def _filter_question(self, turn: _Turn) -> None:
        if not question(turn.state):
            raise Rejection("erased", "The user was erased before there was an answer.", "message")
        turn.moderation = self.moderate.begin(turn.cause, turn.app_id, turn.configuration())
        turn.query, turn.inputs = await turn.moderation.question(turn.state["query"], turn.state["inputs"])

    async def _by_model(self, turn: _Turn, stop: asyncio.Event) -> _Answer | None:
        """Retrieve, call the model and stream its answer; None when a stop request ended it early."""
        retrieved = await self.retrieve(turn.cause, turn.configuration(), turn.asked, turn.preparation)
        try:
            chat, prompt = await self._call_model(turn, stop, retrieved)
        finally:
            await shielded(retrieved.record())
        if stop.is_set() and not turn.whole:
            return None
        assert chat.usage is not None
        passages, usage = prompt.passages_used, _usage(chat.usage)
        return _Answer(chat, prompt.cut, passages, retrieved.names, usage, chat.finish_reason)

    async def _by_agent(self, turn: _Turn, stop: asyncio.Event) -> _Answer | None:
        """Have the agent of the app answer; None when a stop request ended it early. Raises: Held."""
        configuration = turn.configuration()
        steps = await self.agent.recall(turn.tenant, configuration, turn.conversation.history(turn.message))
        of_files, numbers = Retrieved([], {}), Numbers()
        prompt = await self._prompt(turn, of_files, steps)
        numbers.add(prompt.passages_used, of_files.names)
        task = asyncio.ensure_future(self.agent(self._task(turn, prompt, numbers)))
        await _unless(stop, task)
        if task.cancelled():
            return None
        said = task.result()
        turn.chat = said.chat
        if not said.spoken:
            turn.bare = None if turn.filter else said.answer
            await self._show(turn, await turn.filter.take(said.answer) if turn.filter else said.answer)
            if turn.filter:
                await self._show(turn, await turn.filter.rest())
        turn.whole = True
        reason = said.reason or (said.chat.finish_reason if said.chat else None)
        return _Answer(said.chat, prompt.cut, numbers.passages, numbers.names, said.usage, reason, _parts(said))

    def _task(self, turn: _Turn, prompt: Prompt, numbers: Numbers) -> Task:
        async def speak(chat: Chat) -> None:
            turn.chat = chat
            await self._stream(turn, chat)

        async def show(frame: dict[str, Any]) -> None:
            await self._send(turn, {**frame, "attempt": turn.attempt.number})

        async def change(change: StrategyChange) -> None:
            await turn.attempt.step(
                f"strategy:{change['strategy']}",
                lambda conversation, at: conversation.change_strategy(at, message=turn.message, **change),
            )

        at = turn.attempt.commit.events[0].timestamp.isoformat()
        user = turn.conversation.user
        return Task(turn.cause, turn.id, turn.configuration(), prompt, numbers, at, user, speak, show, change)

    async def _prompt(
        self, turn: _Turn, retrieved: Retrieved, steps: Mapping[str, Sequence[Draft]] | None = None
    ) -> Prompt:
        """The prompt of a question, with its files: their passages join the retrieved ones."""
        configuration = turn.configuration()
        files = await self.files(turn.attempt, configuration)
        retrieved.join(files.passages, files.names)
        await self._send(turn, {"type": "retrieved", "hits": len(retrieved.hits)})
        model = configuration["model"]
        prompt = build_prompt(
            instructions=configuration["prompt"],
            inputs=turn.inputs,
            passages=retrieved.hits,
            history=turn.conversation.history(turn.message),
            query=turn.query,
            origin=Origin(turn.app_id, configuration["number"], turn.id, turn.message),
            max_tokens=model["max_tokens"],
            context_window=model["context_window"],
            names=retrieved.names,
            order=turn.conversation.messages,
            filtered=turn.query != turn.state["query"],
            files=files.attachments,
            steps=steps,
        )
        if files.left_out:
            prompt.cut["files"] = files.left_out
        return prompt

    async def _call_model(self, turn: _Turn, stop: asyncio.Event, retrieved: Retrieved) -> tuple[Chat, Prompt]:
        """Call the model and stream its answer; return the call and its prompt. A stop request ends it early."""
        prompt = await self._prompt(turn, retrieved)
        configuration = turn.configuration()
        model = configuration["model"]
        request = ChatRequest(
            model=model["name"],
            messages=prompt.messages,
            max_tokens=model["max_tokens"],
            parameters=model["parameters"],
            passages=[
                "\n\n".join(filter(None, (hit.entry.heading, hit.entry.content))) for hit in prompt.passages_used
            ],
            schema=configuration["features"]["response_schema"],
            context_window=model["context_window"],
        )
        course = self.choose(turn.tenant, model, request)
        chat = self.calls.chat(turn.cause, course, request, prompt.record, retrieved.record)
        turn.chat = chat
        await _unless(stop, self._stream(turn, chat))
        if request.schema and turn.whole:
            chat = await self._keep_to_schema(turn, stop, request, prompt.record)
        return chat, prompt

    async def _keep_to_schema(self, turn: _Turn, stop: asyncio.Event, request: ChatRequest, record: Record) -> Chat:
        """Return the call whose answer is valid; ask once more for one. Raises: ModelError `invalid_answer`."""
        assert turn.chat is not None
        assert request.schema is not None
        fault = await self.schemas.fault(turn.tenant, request.schema, turn.said)
        if fault:
            again, record = structured.ask_again(request, record, turn.said, fault)
            await self._restart(turn)
            turn.whole = False
            course = self.choose(turn.tenant, turn.configuration()["model"], again)
            turn.chat = self.calls.chat(turn.cause, course, again, record, step=structured.STEP)
            await _unless(stop, self._stream(turn, turn.chat))
            if not turn.whole:
                return turn.chat
            if fault := await self.schemas.fault(turn.tenant, request.schema, turn.said):
                raise ModelError("invalid_answer", f"The answer does not keep to the response_schema: {fault}")
        turn.bare = bare(turn.said)
        return turn.chat

    async def _stream(self, turn: _Turn, chat: Chat) -> None:
        length = 0
        async with aclosing(chat.texts()) as texts:
            async for text in texts:
                if len(chat.said) != length + len(text):  # what came before was reasoning
                    await self._restart(turn)
                length = len(chat.said)
                await self._show(turn, await turn.filter.take(text) if turn.filter else text)
        if turn.filter:
            await self._show(turn, await turn.filter.rest())
        turn.whole = True

    async def _show(self, turn: _Turn, text: str) -> None:
        """Show more of the answer, soon: what comes at once goes in one frame."""
        turn.unsent += text
        if turn.unsent and turn.sending is None:
            turn.sending = asyncio.ensure_future(self._send_unsent(turn))

    async def _send_unsent(self, turn: _Turn) -> None:
        frame = {"type": "token", "index": turn.shown, "text": turn.unsent, "attempt": turn.attempt.number}
        turn.unsent, turn.sending = "", None
        turn.shown += 1
        await self.live.publish(turn.tenant, turn.id, turn.message, frame)

    async def _all_shown(self, turn: _Turn) -> None:
        """Wait until the part of the answer that is to show is sent."""
        if turn.sending:
            await turn.sending

    async def _restart(self, turn: _Turn) -> None:
        await self._send(turn, {"type": "restarted", "attempt": turn.attempt.number})
        turn.shown = 0
        if turn.filter:
            turn.filter.restart()

    async def _record(self, turn: _Turn, answer: _Answer, duration_ms: float) -> None:
        if not turn.said.strip():
            raise empty(answer.finish_reason)
        cited = await self._cite(turn, answer.passages, answer.names)
        await self._end(
            turn,
            "answer",
            lambda conversation, at: conversation.answer(
                at,
                message=turn.message,
                answer=turn.said,
                citations=cited,
                usage=answer.usage,
                cut=answer.cut,
                model_call=answer.chat.id if answer.chat else "",
                duration_ms=duration_ms,
                finish_reason=answer.finish_reason,
                name=turn.configuration()["features"]["name_conversations"],
                parts=answer.parts,
            ),
        )
        frame = {"type": "answered", "answer": turn.said, "citations": cited, "usage": answer.usage}
        await self._send(turn, {**frame, "finish_reason": answer.finish_reason})

    async def _give(self, turn: _Turn, answer: str, duration_ms: float, match: Match | None = None) -> None:
        """Record an answer that no model gave; what was shown of another one is withdrawn."""
        usage = (
            _usage(turn.chat.counted()) if turn.chat else Usage(prompt_tokens=0, completion_tokens=0, estimated=False)
        )
        await self._all_shown(turn)
        if turn.shown:
            await self._send(turn, {"type": "replaced", "answer": answer})
        else:
            await self._show(turn, answer)

        def give(conversation: Conversation, at: datetime) -> None:
            if match:
                score, model = match.score, match.embedding_model
                conversation.match(
                    at, message=turn.message, annotation=match.annotation, score=score, embedding_model=model
                )
            conversation.answer(
                at,
                message=turn.message,
                answer=answer,
                citations=[],
                usage=usage,
                cut=Truncation(segments=0, messages=0),
                model_call=turn.chat.id if turn.chat else "",
                duration_ms=duration_ms,
                finish_reason=None,
                name=turn.configuration()["features"]["name_conversations"],
            )

        await self._end(turn, "answer", give)
        frame = {"type": "answered", "answer": answer, "citations": list[Citation](), "usage": usage}
        await self._send(turn, {**frame, "finish_reason": None})

    async def _cite(self, turn: _Turn, passages: Sequence[Hit], names: Mapping[str, str]) -> list[Citation]:
        """The citations of the answer. It is paid for: where they cannot be found, it is recorded without."""
        if not passages:
            return []
        try:
            evidence = await self.citer.evidence(turn.tenant, turn.said, [hit.entry.content for hit in passages])
        except (ModelError, Unavailable) as error:
            log.warning("answer.not_cited", tenant=turn.tenant, message=turn.message, reason=str(error))
            return []
        return citations(evidence, passages, names)

    async def _stop(self, turn: _Turn) -> None:
        if held := turn.state.get("held"):
            await self.agent.tools.cancel(turn.cause, held)
        await self._end(
            turn, "stop", lambda conversation, at: conversation.stopped(at, message=turn.message, answer=turn.said)
        )
        await self._send(turn, {"type": "stopped", "answer": turn.said})

    async def _fail(self, turn: _Turn, code: str, reason: str) -> None:
        answer = beginning(turn.said) if code == "too_large" else turn.said
        await self._all_shown(turn)
        if turn.shown and not answer:
            await self._send(turn, {"type": "replaced", "answer": ""})
        await self._end(
            turn,
            "fail",
            lambda conversation, at: conversation.fail(
                at, message=turn.message, code=code, reason=reason[:1000], answer=answer
            ),
        )
        await self._send(turn, {"type": "failed", "code": code, "reason": reason[:1000]})

    async def _end(self, turn: _Turn, step: str, verb: Verb[Conversation]) -> None:
        """Record how the attempt ends, together with the verdicts of its filters."""
        moderation = turn.moderation.record() if turn.moderation else None

        def end(conversation: Conversation, at: datetime) -> None:
            if moderation:
                conversation.moderate(at, message=turn.message, **moderation)
            verb(conversation, at)

        await turn.attempt.step(step, end)

    async def _send(self, turn: _Turn, frame: dict[str, Any]) -> None:
        await self._all_shown(turn)
        await self.live.publish(turn.tenant, turn.id, turn.message, frame)


class _Answer(NamedTuple):
    """A complete answer: the call that gave it (None for none), what its prompt left out, the passages that it may cite
    with the names of their documents, its tokens, and its parts that are no text."""

    chat: Chat | None
    cut: Truncation
    passages: Sequence[Hit]
    names: Mapping[str, str]
    usage: Usage
    finish_reason: str | None
    parts: list[dict[str, Any]] | None = None


@dataclass(slots=True)
class _Turn:
    """An attempt at an answer, and its call of a model as soon as it is made.

    `query` and `inputs` are as the filters of the app left them. `shown` is the number of frames with tokens, `unsent`
    the text of the next one, which `sending` sends; `whole`
    says that all of the answer has arrived and passed, `bare` is a structured answer that is valid.
    """

    attempt: Attempt[Conversation]
    app_id: str
    app: App | None = None
    preparation: Preparation | None = None
    chat: Chat | None = None
    moderation: Moderation | None = None
    query: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    shown: int = 0
    unsent: str = ""
    sending: asyncio.Future[None] | None = None
    whole: bool = False
    bare: str | None = None
    cause: Cause = field(init=False)

    @property
    def filter(self) -> Moderation | None:
        """The filters that the answer must pass before it is shown; None without any."""
        return self.moderation if self.moderation and self.moderation.watches_output else None

    @property
    def asked(self) -> str:
        """The question, as the filters left it."""
        return asked(self.query, self.inputs)

    @property
    def said(self) -> str:
        """The answer so far, as it may be shown."""
        if self.bare is not None:
            return self.bare
        if self.filter:
            return self.filter.shown
        return self.chat.said if self.chat else ""

    @property
    def tenant(self) -> str:
        return self.attempt.tenant

    @property
    def person(self) -> str | None:
        return self.attempt.metadata.person

    @property
    def id(self) -> str:
        """The id of the conversation."""
        return self.attempt.commit.subject.id

    @property
    def message(self) -> str:
        return self.attempt.item

    @property
    def conversation(self) -> Conversation:
        return self.attempt.aggregate

    @property
    def state(self) -> Message:
        return self.conversation.messages[self.message]

    def configured(self) -> App:
        """Raises: Rejection `not_found` when the app was deleted."""
        if self.app is None or self.app.deleted:
            raise Rejection("not_found", "The app was deleted before it could answer.", "app")
        return self.app

    def configuration(self) -> Configuration:
        """The configuration that was asked. Raises: Rejection `not_found` when the app was deleted."""
        return self.configured().configurations[str(self.state["configuration"])]


def _parts(said: Said) -> list[dict[str, Any]] | None:
    """The calls that an agent made, and the files that they and the agent gave."""
    calls: list[dict[str, Any]] = [{"type": "tool_call", "id": each.id, "name": each.call.name} for each in said.made]
    files = [part for each in said.made for part in each.call.parts if part["type"] in ("file", "image")]
    return [*calls, *files, *said.files] or None


def _usage(counted: TokenUsage) -> Usage:
    return Usage(
        prompt_tokens=counted["prompt_tokens"],
        completion_tokens=counted["completion_tokens"],
        estimated=counted["estimated"],
    )


async def _unless(stop: asyncio.Event, speaking: Coroutine[Any, Any, object] | asyncio.Future[Any]) -> None:
    """Await `speaking`, or cancel it when the stop is set. Raises: what it raises."""
    task, stopping = asyncio.ensure_future(speaking), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
