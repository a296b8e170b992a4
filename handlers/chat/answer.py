"""Answers a message: retrieve, prompt, call the model, stream its tokens, and put the answer on record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any

import structlog

from domain.aggregate import Rejection, new_id
from domain.chat.app import App, Configuration
from domain.chat.conversation import Conversation, Message, Usage
from domain.log import Commit, Metadata, commit_id
from handlers.chat.citations import citations
from handlers.models.model_calls import Cause, Chat, ModelCalls, beginning, milliseconds, shielded
from handlers.models.prompt import Origin, Prompt, build_prompt
from handlers.ports.log import Live, Stops, TooLarge, Unavailable
from handlers.ports.models import ChatModels, ChatRequest, ModelError
from handlers.repository import Repository
from handlers.retrieval.retrieve import Retrieve, Retrieved
from handlers.work.steps import Ended, step

log = structlog.get_logger(__name__)


class Answer:
    def __init__(
        self,
        repository: Repository,
        calls: ModelCalls,
        retrieve: Retrieve,
        models: ChatModels,
        live: Live,
        stops: Stops,
        *,
        limit_s: float = 600.0,
    ) -> None:
        self._repository = repository
        self._calls = calls
        self._retrieve = retrieve
        self._models = models
        self._live = live
        self._stops = stops
        self._limit = limit_s

    async def __call__(self, commit: Commit) -> None:
        """React to a question, or to one that is to be answered again. Raises: Unavailable, to be called again."""
        for event in commit.events:
            if isinstance(event, Conversation.Asked | Conversation.Retried):
                await self._answer(_Turn(self._repository, commit.metadata, commit.subject.id, event))

    async def _answer(self, turn: _Turn) -> None:
        began = time.perf_counter()
        stop = self._stops.watch(turn.tenant, turn.id, turn.message, person=turn.metadata.person)
        try:
            with suppress(Ended):
                await asyncio.gather(
                    turn.find_app(),
                    turn.step("begin", lambda conversation, at: conversation.answering(at, message=turn.message)),
                )
                if (attempt := turn.state["attempt"]) > 1:
                    await self._send(turn, {"type": "restarted", "attempt": attempt})
                for step in ("embed", "filter", "rerank", "chat"):
                    await self._calls.lose(turn.cause, step)
                if turn.state["stop_requested"]:
                    await self._stop(turn)
                else:
                    await self._attempt(turn, stop, began)
        finally:
            self._stops.unwatch(turn.tenant, turn.id, turn.message)

    async def _attempt(self, turn: _Turn, stop: asyncio.Event, began: float) -> None:
        """One try at an answer, which ends as answered, stopped or failed."""
        try:
            async with asyncio.timeout(self._limit):
                await self._speak(turn, stop, began)
        except (Ended, Unavailable):
            raise
        except ModelError as error:
            await self._fail(turn, error.code, error.reason)
        except Rejection as rejection:
            await self._fail(turn, rejection.code, rejection.message)
        except TooLarge as error:
            advice = "Ask for a shorter answer, or set a smaller retrieval.top_k."
            await self._fail(turn, "too_large", f"The answer and its citations cannot be recorded. {error} {advice}")
        except TimeoutError:
            await self._fail(turn, "timeout", f"The answer took longer than {self._limit:g} s.")
        except Exception as error:
            log.exception("answer failed", message=turn.message)
            await self._fail(turn, "internal_error", f"{type(error).__name__}: {error}")

    async def _speak(self, turn: _Turn, stop: asyncio.Event, began: float) -> None:
        configuration = turn.configuration()
        if not turn.state["query"]:
            raise Rejection("erased", "The user was erased before there was an answer.", "message")
        retrieved = await self._retrieve(turn.cause, configuration, turn.state["query"])
        try:
            chat, prompt = await self._say(turn, stop, configuration, retrieved)
        finally:
            await shielded(retrieved.record())
        if stop.is_set() and chat.usage is None:
            await self._stop(turn)
        else:
            await self._conclude(turn, chat, prompt, retrieved, milliseconds(began))

    async def _say(
        self, turn: _Turn, stop: asyncio.Event, configuration: Configuration, retrieved: Retrieved
    ) -> tuple[Chat, Prompt]:
        """The call, and the prompt that it was made with; broken off when the stop was set."""
        await self._send(turn, {"type": "retrieved", "hits": len(retrieved.hits)})
        model = configuration["model"]
        prompt = build_prompt(
            instructions=configuration["prompt"],
            inputs=turn.state["inputs"],
            passages=retrieved.hits,
            history=turn.conversation.history(turn.message),
            query=turn.state["query"],
            origin=Origin(turn.app, configuration["number"], turn.id, turn.message),
            max_tokens=model["max_tokens"],
            context_window=model["context_window"],
            names=retrieved.names,
        )
        request = ChatRequest(
            model=model["name"],
            messages=prompt.messages,
            max_tokens=model["max_tokens"],
            parameters=model["parameters"],
            passages=[
                "\n\n".join(filter(None, (hit.entry.heading, hit.entry.content))) for hit in prompt.passages_used
            ],
        )
        client = await self._models.get(turn.tenant, model)
        chat = self._calls.chat(
            turn.cause, model["provider"], client, request, prompt.prompt_tokens, prompt.sources, retrieved.record
        )
        await _unless(stop, self._pass_on(turn, chat))
        return chat, prompt

    async def _pass_on(self, turn: _Turn, chat: Chat) -> None:
        index = 0
        async with aclosing(chat.texts()) as texts:
            async for text in texts:
                turn.said += text
                await self._send(turn, {"type": "token", "index": index, "text": text, "attempt": turn.cause.attempt})
                index += 1

    async def _conclude(
        self, turn: _Turn, chat: Chat, prompt: Prompt, retrieved: Retrieved, duration_ms: float
    ) -> None:
        assert chat.usage is not None
        cited = citations(turn.said, prompt.passages_used, retrieved.names)
        usage = Usage(
            prompt_tokens=chat.usage["prompt_tokens"],
            completion_tokens=chat.usage["completion_tokens"],
            estimated=chat.usage["estimated"],
        )
        await turn.step(
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
            ),
        )
        await self._send(turn, {"type": "answered", "answer": turn.said, "citations": cited, "usage": usage})

    async def _stop(self, turn: _Turn) -> None:
        await turn.step(
            "stop", lambda conversation, at: conversation.stopped(at, message=turn.message, answer=turn.said)
        )
        await self._send(turn, {"type": "stopped", "answer": turn.said})

    async def _fail(self, turn: _Turn, code: str, reason: str) -> None:
        answer = beginning(turn.said) if code == "too_large" else turn.said
        await turn.step(
            "fail",
            lambda conversation, at: conversation.fail(
                at, message=turn.message, code=code, reason=reason[:1000], answer=answer
            ),
        )
        await self._send(turn, {"type": "failed", "code": code, "reason": reason[:1000]})

    async def _send(self, turn: _Turn, frame: dict[str, Any]) -> None:
        await self._live.publish(turn.tenant, turn.conversation.id, turn.message, frame)


class _Turn:
    """A message in hand: why, the conversation as it stands, and what was said so far."""

    def __init__(
        self, repository: Repository, metadata: Metadata, id: str, asked: Conversation.Asked | Conversation.Retried
    ) -> None:
        self._repository = repository
        self.app = asked.app
        self._known_app: App | None = None
        self.metadata = metadata
        self.tenant = metadata.tenant
        self.id = id
        self.message = asked.message
        self.said = ""
        self.conversation: Conversation

    @property
    def state(self) -> Message:
        return self.conversation.messages[self.message]

    @property
    def cause(self) -> Cause:
        return Cause(self.metadata, "message", self.message, self.state["attempt"])

    async def find_app(self) -> None:
        self._known_app = await self._repository.get(App, self.tenant, self.app)

    def configuration(self) -> Configuration:
        """The configuration that was asked. Raises: Rejection `not_found` when the app was deleted."""
        if self._known_app is None or self._known_app.deleted:
            raise Rejection("not_found", "The app was deleted before it could answer.", "app")
        return self._known_app.configurations[str(self.state["configuration"])]

    async def step(self, name: str, verb: Callable[[Conversation, datetime], None]) -> None:
        """Put a step on record. Raises: Ended when the message takes no more, Unavailable."""
        # Whoever begins makes another attempt, so that a call which a dead worker made is known from those to come.
        attempt = new_id() if name == "begin" else self.state["attempt"]
        metadata = self.metadata.caused(commit_id(self.metadata.id, f"{self.message}:{name}:{attempt}"))
        change = await step(
            self._repository, Conversation, self.id, metadata, lambda known: known.ended(self.message), verb
        )
        self.conversation = change.aggregate


async def _unless(stop: asyncio.Event, speaking: Coroutine[Any, Any, None]) -> None:
    """Let it speak to its end, or break it off when the stop is set. Raises: what it raises."""
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
