"""Answers a message: retrieve, prompt, call the model, stream its tokens, record the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from domain.aggregate import Rejection
from domain.chat.app import App, Configuration
from domain.chat.conversation import Citation, Conversation, Message, Usage, question
from domain.log import Commit
from handlers.chat.citations import citations
from handlers.chat.empty_answer import empty
from handlers.models.choose import Choose
from handlers.models.model_calls import Chat, ModelCalls, beginning, milliseconds, shielded
from handlers.models.prompt import Origin, Prompt, build_prompt
from handlers.ports.index import Hit
from handlers.ports.log import Live, Stops, TooLarge, Unavailable
from handlers.ports.models import ChatRequest, Citer, ModelError
from handlers.repository import Repository
from handlers.retrieval.retrieve import Preparation, Retrieve, Retrieved
from handlers.work.attempt import Attempt, Ended
from handlers.work.cause import Cause
from handlers.work.work import WORKS

log = structlog.get_logger(__name__)

CALLS = ("embed", "filter", "rerank", "chat")
"""The steps of an answer that call a model."""


@dataclass(frozen=True, slots=True)
class Answer:
    repository: Repository
    calls: ModelCalls
    retrieve: Retrieve
    choose: Choose
    live: Live
    stops: Stops
    citer: Citer
    limit_s: float = 600.0

    async def __call__(self, commit: Commit) -> None:
        """Answer the questions that the commit asks, or asks again. Raises: Unavailable."""
        for event in commit.events:
            if isinstance(event, Conversation.Asked | Conversation.Retried):
                attempt = Attempt[Conversation](self.repository, WORKS["answer"], commit, event.message)
                with suppress(Ended):
                    await self._answer(_Turn(attempt, event.app), event)

    async def _answer(self, turn: _Turn, event: Conversation.Asked | Conversation.Retried) -> None:
        began = time.perf_counter()
        stop = self.stops.watch(turn.tenant, turn.id, turn.message, person=turn.person)
        try:
            await asyncio.gather(
                self._prepare(turn, event),
                turn.attempt.begin(lambda conversation, at: conversation.answering(at, message=turn.message)),
            )
            turn.cause = replace(turn.attempt.cause, app=turn.app_id)
            if turn.attempt.number > 1:
                await self._send(turn, {"type": "restarted", "attempt": turn.attempt.number})
                turn.cause = await self.calls.take_over(turn.cause, *CALLS)
            if turn.state["stop_requested"]:
                await self._stop(turn)
            else:
                await self._attempt(turn, stop, began)
        finally:
            self.stops.unwatch(turn.tenant, turn.id, turn.message)
            if turn.preparation:
                turn.preparation.cancel()

    async def _prepare(self, turn: _Turn, event: Conversation.Asked | Conversation.Retried) -> None:
        """Load the app, and start to prepare the retrieval, while the attempt is recorded.

        Configurations never change: that of an app in memory will do for it.
        """
        known = self.repository.known(App, turn.tenant, turn.app_id)
        self._prepare_retrieval(turn, event, known)
        turn.app = await self.repository.get(App, turn.tenant, turn.app_id)
        self._prepare_retrieval(turn, event, turn.app)

    def _prepare_retrieval(
        self, turn: _Turn, event: Conversation.Asked | Conversation.Retried, app: App | None
    ) -> None:
        if turn.preparation or not isinstance(event, Conversation.Asked) or not event.query or not app or app.deleted:
            return
        configuration = app.configurations.get(str(event.configuration))
        if configuration and configuration["datasets"]:
            turn.preparation = self.retrieve.prepare(turn.tenant, configuration, event.query)

    async def _attempt(self, turn: _Turn, stop: asyncio.Event, began: float) -> None:
        """Answer, stop or fail: rejections, errors of models and timeouts are outcomes."""
        try:
            async with asyncio.timeout(self.limit_s):
                retrieved = await self._retrieve_passages(turn)
                try:
                    chat, prompt = await self._call_model(turn, stop, retrieved)
                finally:
                    await shielded(retrieved.record())
                if stop.is_set() and chat.usage is None:
                    await self._stop(turn)
                else:
                    await self._record(turn, chat, prompt, retrieved, milliseconds(began))
        except ModelError as error:
            await self._fail(turn, error.code, error.reason)
        except Rejection as rejection:
            await self._fail(turn, rejection.code, rejection.message)
        except TooLarge as error:
            advice = "Ask for a shorter answer, or set a smaller retrieval.top_k."
            await self._fail(turn, "too_large", f"The answer and its citations cannot be recorded. {error} {advice}")
        except TimeoutError:
            await self._fail(turn, "timeout", f"The answer took longer than {self.limit_s:g} s.")

    async def _retrieve_passages(self, turn: _Turn) -> Retrieved:
        configuration = turn.configuration()
        if not (asked := question(turn.state)):
            raise Rejection("erased", "The user was erased before there was an answer.", "message")
        return await self.retrieve(turn.cause, configuration, asked, turn.preparation)

    async def _call_model(self, turn: _Turn, stop: asyncio.Event, retrieved: Retrieved) -> tuple[Chat, Prompt]:
        """Call the model and stream its answer; return the call and its prompt. A stop request ends it early."""
        configuration = turn.configuration()
        await self._send(turn, {"type": "retrieved", "hits": len(retrieved.hits)})
        model = configuration["model"]
        prompt = build_prompt(
            instructions=configuration["prompt"],
            inputs=turn.state["inputs"],
            passages=retrieved.hits,
            history=turn.conversation.history(turn.message),
            query=turn.state["query"],
            origin=Origin(turn.app_id, configuration["number"], turn.id, turn.message),
            max_tokens=model["max_tokens"],
            context_window=model["context_window"],
            names=retrieved.names,
            order=turn.conversation.messages,
        )
        request = ChatRequest(
            model=model["name"],
            messages=prompt.messages,
            max_tokens=model["max_tokens"],
            parameters=model["parameters"],
            passages=[
                "\n\n".join(filter(None, (hit.entry.heading, hit.entry.content))) for hit in prompt.passages_used
            ],
            context_window=model["context_window"],
        )
        course = self.choose(turn.tenant, model, request)
        chat = self.calls.chat(turn.cause, course, request, prompt.record, retrieved.record)
        turn.chat = chat
        await _unless(stop, self._stream(turn, chat))
        return chat, prompt

    async def _stream(self, turn: _Turn, chat: Chat) -> None:
        index = length = 0
        async with aclosing(chat.texts()) as texts:
            async for text in texts:
                if len(turn.said) != length + len(text):  # what came before was reasoning
                    await self._send(turn, {"type": "restarted", "attempt": turn.attempt.number})
                    index = 0
                length = len(turn.said)
                await self._send(turn, {"type": "token", "index": index, "text": text, "attempt": turn.attempt.number})
                index += 1

    async def _record(self, turn: _Turn, chat: Chat, prompt: Prompt, retrieved: Retrieved, duration_ms: float) -> None:
        assert chat.usage is not None
        if not turn.said.strip():
            raise empty(chat.finish_reason)
        cited = await self._cite(turn, prompt.passages_used, retrieved.names)
        usage = Usage(
            prompt_tokens=chat.usage["prompt_tokens"],
            completion_tokens=chat.usage["completion_tokens"],
            estimated=chat.usage["estimated"],
        )
        await turn.attempt.step(
            "answer",
            lambda conversation, at: conversation.answer(
                at,
                message=turn.message,
                answer=turn.said,
                citations=cited,
                usage=usage,
                cut=prompt.cut,
                model_call=chat.id,
                duration_ms=duration_ms,
                finish_reason=chat.finish_reason,
                name=turn.configuration()["features"]["name_conversations"],
            ),
        )
        frame = {"type": "answered", "answer": turn.said, "citations": cited, "usage": usage}
        await self._send(turn, {**frame, "finish_reason": chat.finish_reason})

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
        await turn.attempt.step(
            "stop", lambda conversation, at: conversation.stopped(at, message=turn.message, answer=turn.said)
        )
        await self._send(turn, {"type": "stopped", "answer": turn.said})

    async def _fail(self, turn: _Turn, code: str, reason: str) -> None:
        answer = beginning(turn.said) if code == "too_large" else turn.said
        await turn.attempt.step(
            "fail",
            lambda conversation, at: conversation.fail(
                at, message=turn.message, code=code, reason=reason[:1000], answer=answer
            ),
        )
        await self._send(turn, {"type": "failed", "code": code, "reason": reason[:1000]})

    async def _send(self, turn: _Turn, frame: dict[str, Any]) -> None:
        await self.live.publish(turn.tenant, turn.id, turn.message, frame)


@dataclass(slots=True)
class _Turn:
    """An attempt at an answer, and its call of a model as soon as it is made."""

    attempt: Attempt[Conversation]
    app_id: str
    app: App | None = None
    preparation: Preparation | None = None
    chat: Chat | None = None
    cause: Cause = field(init=False)

    @property
    def said(self) -> str:
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

    def configuration(self) -> Configuration:
        """The configuration that was asked. Raises: Rejection `not_found` when the app was deleted."""
        if self.app is None or self.app.deleted:
            raise Rejection("not_found", "The app was deleted before it could answer.", "app")
        return self.app.configurations[str(self.state["configuration"])]


async def _unless(stop: asyncio.Event, speaking: Coroutine[Any, Any, None]) -> None:
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
