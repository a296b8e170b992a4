"""Makes a recorded model call again, and records its result."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import cast

from domain.aggregate import Rejection
from domain.chat.app import App, ModelSettings, fill_in
from domain.chat.conversation import Conversation
from domain.knowledge.retrieval import Retrieval
from domain.log import Commit, commit_id
from domain.models.model_call import ModelCall, Source
from domain.models.provider import BUILTIN
from domain.models.replay import Replay
from handlers.models.model_calls import ModelCalls
from handlers.models.prompt import reword
from handlers.ports.models import ChatMessage, ChatModels, ChatRequest, ModelError
from handlers.repository import Repository
from handlers.work.attempt import Attempt, Ended
from handlers.work.cause import Cause
from handlers.work.work import WORKS


@dataclass(frozen=True, slots=True)
class ReplayCall:
    repository: Repository
    calls: ModelCalls
    models: ChatModels
    limit_s: float = 600.0

    async def __call__(self, commit: Commit) -> None:
        """Make a call again that was requested or retried. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        replay = await self.repository.get(Replay, tenant, id)
        if replay is None or replay.ended:
            return
        attempt = Attempt[Replay](self.repository, WORKS["replay"], commit, id).go_on(replay)
        with suppress(Ended):
            await self._replay(attempt)

    async def _replay(self, attempt: Attempt[Replay]) -> None:
        """Complete or fail: rejections, errors of models and timeouts are outcomes."""
        cause, made = await self._take_over(attempt)
        try:
            if not made:
                async with asyncio.timeout(self.limit_s):
                    await self._make(attempt, cause, await self._recorded(attempt))
            call = cause.call("chat")
            await attempt.step("complete", lambda replay, at: replay.complete(at, model_call=call))
        except ModelError as error:
            await self._fail(attempt, cause, error.code, error.reason)
        except Rejection as rejection:
            await self._fail(attempt, cause, rejection.code, rejection.message)
        except TimeoutError:
            await self._fail(attempt, cause, "timeout", f"The answer took longer than {self.limit_s:g} s.")

    async def _take_over(self, attempt: Attempt[Replay]) -> tuple[Cause, bool]:
        """The cause with the number of this try, and whether an earlier try completed before its worker died."""
        cause = replace(attempt.cause, attempt=1)
        while call := await self.repository.get(ModelCall, attempt.tenant, cause.call("chat")):
            if call.status == "completed":
                return cause, True
            cause = replace(cause, attempt=cause.attempt + 1)
        return await self.calls.take_over(cause, "chat"), False

    async def _fail(self, attempt: Attempt[Replay], cause: Cause, code: str, reason: str) -> None:
        id = cause.call("chat")
        call = id if await self.repository.get(ModelCall, attempt.tenant, id) else None
        await attempt.step("fail", lambda replay, at: replay.fail(at, code=code, reason=reason[:1000], model_call=call))

    async def _recorded(self, attempt: Attempt[Replay]) -> ModelCall.Requested:
        """The call that will be made again. Raises: Rejection `erased`."""
        made = await self.repository.first(ModelCall, attempt.tenant, attempt.aggregate.call)
        assert made is not None
        recorded = made.events[0]
        assert isinstance(recorded, ModelCall.Requested)
        if not recorded.request:
            raise Rejection("erased", f"What model call {attempt.aggregate.call} sent was erased.", "call")
        return recorded

    async def _make(self, attempt: Attempt[Replay], cause: Cause, recorded: ModelCall.Requested) -> None:
        """Raises: ModelError, Rejection, Ended when another worker took it over meanwhile."""
        replay = attempt.aggregate
        messages = [ChatMessage(message["role"], message["content"]) for message in recorded.request["messages"]]
        sources = recorded.sources
        passages = await self._passages(attempt.tenant, recorded, messages) if replay.provider == BUILTIN else []
        if replay.app and replay.configuration:
            messages, sources = await self._reworded(attempt.tenant, replay, messages, sources)
        model = ModelSettings(
            provider=replay.provider,
            name=replay.model,
            max_tokens=replay.max_tokens,
            context_window=0,
            parameters=replay.parameters,
        )
        request = ChatRequest(replay.model, messages, replay.max_tokens, replay.parameters, passages)
        client = await self.models.get(attempt.tenant, model)
        chat = self.calls.chat(cause, replay.provider, client, request, sources)
        async for _ in chat.texts():
            pass
        call = await self.repository.get(ModelCall, attempt.tenant, chat.id)
        if call is None or call.status != "completed":
            raise Ended

    async def _reworded(
        self, tenant: str, replay: Replay, messages: list[ChatMessage], sources: list[Source]
    ) -> tuple[list[ChatMessage], list[Source]]:
        """The messages with the instructions of the replay's configuration, filled in with what the asker gave.

        Raises: Rejection `missing_input`.
        """
        app = await self.repository.get(App, tenant, str(replay.app))
        assert app is not None
        configuration = app.configurations[str(replay.configuration)]
        inputs: dict[str, str] = {}
        for source in sources:
            if source["from"] == "query" and "conversation" in source:
                conversation = await self.repository.get(Conversation, tenant, source["conversation"])
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
        made = await self.repository.first(Retrieval, tenant, id)
        hits = cast("Retrieval.Made", made.events[0]).hits if made else []
        headings = {hit["segment"]: hit["heading"] for hit in hits}
        passages = []
        for source in recorded.sources:
            if source["from"] == "segment":
                cited = messages[source["message"]].content[source["start"] : source["end"]]
                _, _, content = cited.partition("\n")
                passages.append("\n\n".join(filter(None, (headings.get(source["segment"]), content))))
        return passages
