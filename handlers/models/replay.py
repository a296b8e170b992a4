"""Makes a recorded model call again, and puts on record what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import cast

import structlog

from domain.aggregate import Rejection
from domain.chat.app import App, ModelSettings, fill_in
from domain.chat.conversation import Conversation
from domain.knowledge.retrieval import Retrieval
from domain.log import Commit, Metadata, commit_id
from domain.models.model_call import ModelCall, Source
from domain.models.provider import BUILTIN
from domain.models.replay import Replay
from handlers.models.model_calls import Cause, ModelCalls
from handlers.models.prompt import MESSAGE_TOKENS, estimate, reword
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatMessage, ChatModels, ChatRequest, ModelError
from handlers.repository import Repository
from handlers.work.steps import Ended, step

log = structlog.get_logger(__name__)


class ReplayCall:
    def __init__(
        self, repository: Repository, calls: ModelCalls, models: ChatModels, *, limit_s: float = 600.0
    ) -> None:
        self._repository = repository
        self._calls = calls
        self._models = models
        self._limit = limit_s

    async def __call__(self, commit: Commit) -> None:
        """React to a replay that was requested or is to be made again. Raises: Unavailable, to be called again."""
        if not any(isinstance(event, Replay.Requested | Replay.Retried) for event in commit.events):
            return
        tenant, id = commit.subject.tenant, commit.subject.id
        replay = await self._repository.get(Replay, tenant, id)
        if replay is None or replay.ended:
            return
        with suppress(Ended):
            await self._replay(_Work(self._repository, commit.metadata, replay))

    async def _replay(self, work: _Work) -> None:
        """One try, which ends as completed or failed."""
        call = None
        try:
            recorded = await self._recorded(work)
            if not await self._begin(work):
                call = work.call
                async with asyncio.timeout(self._limit):
                    await self._make(work, recorded)
            await work.complete()
        except (Ended, Unavailable):
            raise
        except ModelError as error:
            await work.fail(error.code, error.reason, call)
        except Rejection as rejection:
            await work.fail(rejection.code, rejection.message, call)
        except TimeoutError:
            await work.fail("timeout", f"The answer took longer than {self._limit:g} s.", call)
        except Exception as error:
            log.exception("replay failed", replay=work.replay.id)
            await work.fail("internal_error", f"{type(error).__name__}: {error}", call)

    async def _recorded(self, work: _Work) -> ModelCall.Requested:
        """The call that is to be made again. Raises: Rejection `erased`."""
        made = await self._repository.first(ModelCall, work.tenant, work.replay.call)
        assert made is not None
        recorded = made.events[0]
        assert isinstance(recorded, ModelCall.Requested)
        if not recorded.request:
            raise Rejection("erased", f"What model call {work.replay.call} sent was erased.", "call")
        return recorded

    async def _begin(self, work: _Work) -> bool:
        """Find the number of this try; whether an earlier one completed, and its worker died before it could say so."""
        while call := await self._repository.get(ModelCall, work.tenant, work.call):
            if call.status == "completed":
                return True
            work.attempt += 1
        await self._calls.lose(work.cause, "chat")
        return False

    async def _make(self, work: _Work, recorded: ModelCall.Requested) -> None:
        """Raises: ModelError, Rejection, Ended when another worker took it over meanwhile."""
        replay = work.replay
        messages = [ChatMessage(message["role"], message["content"]) for message in recorded.request["messages"]]
        sources = recorded.sources
        passages = await self._passages(work.tenant, recorded, messages) if replay.provider == BUILTIN else []
        if replay.app and replay.configuration:
            messages, sources = await self._reworded(work.tenant, replay, messages, sources)
        model = ModelSettings(
            provider=replay.provider,
            name=replay.model,
            max_tokens=replay.max_tokens,
            context_window=0,
            parameters=replay.parameters,
        )
        request = ChatRequest(replay.model, messages, replay.max_tokens, replay.parameters, passages)
        tokens = sum(estimate(message.content) + MESSAGE_TOKENS for message in messages)
        client = await self._models.get(work.tenant, model)
        chat = self._calls.chat(work.cause, replay.provider, client, request, tokens, sources)
        async for _ in chat.texts():
            pass
        call = await self._repository.get(ModelCall, work.tenant, chat.id)
        if call is None or call.status != "completed":
            raise Ended

    async def _reworded(
        self, tenant: str, replay: Replay, messages: list[ChatMessage], sources: list[Source]
    ) -> tuple[list[ChatMessage], list[Source]]:
        """The messages with the instructions of the replay's configuration, filled in with what the asker gave.

        Raises: Rejection `missing_input`.
        """
        app = await self._repository.get(App, tenant, str(replay.app))
        assert app is not None
        configuration = app.configurations[str(replay.configuration)]
        inputs: dict[str, str] = {}
        for source in sources:
            if source["from"] == "query" and "conversation" in source:
                conversation = await self._repository.get(Conversation, tenant, source["conversation"])
                known = conversation.messages.get(source["message_id"]) if conversation else None
                inputs |= known["inputs"] if known else {}
        for source in sources:
            if source["from"] == "input":
                inputs[source["name"]] = messages[source["message"]].content[source["start"] : source["end"]]
        values = fill_in(configuration["variables"], inputs)
        return reword(messages, sources, configuration["prompt"], values, app.id, configuration["number"])

    async def _passages(self, tenant: str, recorded: ModelCall.Requested, messages: list[ChatMessage]) -> list[str]:
        """The segments in the messages, as a model reads them that takes them apart."""
        id = commit_id(recorded.cause_id, f"retrieve:{recorded.attempt}")
        made = await self._repository.first(Retrieval, tenant, id)
        hits = cast("Retrieval.Made", made.events[0]).hits if made else []
        headings = {hit["segment"]: hit["heading"] for hit in hits}
        passages = []
        for source in recorded.sources:
            if source["from"] == "segment":
                cited = messages[source["message"]].content[source["start"] : source["end"]]
                _, _, content = cited.partition("\n")
                passages.append("\n\n".join(filter(None, (headings.get(source["segment"]), content))))
        return passages


class _Work:
    """A replay in hand: why, and in which try."""

    def __init__(self, repository: Repository, metadata: Metadata, replay: Replay) -> None:
        self._repository = repository
        self.metadata = metadata
        self.replay = replay
        self.tenant = metadata.tenant
        self.attempt = 1

    @property
    def cause(self) -> Cause:
        return Cause(self.metadata, "replay", self.replay.id, self.attempt)

    @property
    def call(self) -> str:
        """The model call of this try."""
        return self.cause.call("chat")

    async def complete(self) -> None:
        call = self.call
        await self._step("complete", lambda replay, at: replay.complete(at, model_call=call))

    async def fail(self, code: str, reason: str, call: str | None) -> None:
        if call and await self._repository.get(ModelCall, self.tenant, call) is None:
            call = None
        await self._step("fail", lambda replay, at: replay.fail(at, code=code, reason=reason[:1000], model_call=call))

    async def _step(self, name: str, verb: Callable[[Replay, datetime], None]) -> None:
        """Put a step on record. Raises: Ended when it has one already, Unavailable."""
        cause = commit_id(self.metadata.id, f"{self.replay.id}:{name}:{self.attempt}")
        await step(
            self._repository,
            Replay,
            self.replay.id,
            self.metadata.caused(cause),
            lambda known: known.ended,
            verb,
        )
