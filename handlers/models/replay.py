"""Makes a recorded model call again, and records its result."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from domain.aggregate import Rejection
from domain.builtin import BUILTIN
from domain.chat.app import App, ModelSettings, fill_in
from domain.chat.conversation import Conversation
from domain.knowledge.retrieval import Retrieval
from domain.log import Commit, commit_id
from domain.models.model_call import ModelCall
from domain.models.piece import InPieces, pieces
from domain.models.replay import Replay
from handlers.cause import Cause
from handlers.files import Files
from handlers.models.choose import Choose
from handlers.models.model_calls import ModelCalls
from handlers.models.prompt import Record, reword
from handlers.models.recorded import as_sent, read, tools
from handlers.ports.models import ChatModel, ChatRequest, ModelError
from handlers.repository import Repository
from handlers.work.attempt import Attempt, Ended
from handlers.work.work import WORKS


@dataclass(frozen=True, slots=True)
class ReplayCall:
    repository: Repository
    calls: ModelCalls
    choose: Choose[ChatModel]
    files: Files
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
        cause = await self.calls.next_attempt(attempt.cause, "chat")
        try:
            if "chat" in cause.completed:
                call, _ = cause.completed["chat"]
            else:
                async with asyncio.timeout(self.limit_s):
                    call = await self._make(attempt, cause, await self._recorded(attempt))
            await attempt.step("complete", lambda replay, at: replay.complete(at, model_call=call))
        except ModelError as error:
            await self._fail(attempt, cause, error.code, error.reason)
        except Rejection as rejection:
            await self._fail(attempt, cause, rejection.code, rejection.message)
        except TimeoutError:
            await self._fail(attempt, cause, "timeout", f"The answer took longer than {self.limit_s:g} s.")

    async def _fail(self, attempt: Attempt[Replay], cause: Cause, code: str, reason: str) -> None:
        call = await self.calls.last(cause, "chat")
        await attempt.step("fail", lambda replay, at: replay.fail(at, code=code, reason=reason[:1000], model_call=call))

    async def _recorded(self, attempt: Attempt[Replay]) -> ModelCall.Requested:
        """The call that will be made again."""
        made = await self.repository.first(ModelCall, attempt.tenant, attempt.aggregate.call)
        assert made is not None
        recorded = made.events[0]
        assert isinstance(recorded, ModelCall.Requested)
        return recorded

    async def _make(self, attempt: Attempt[Replay], cause: Cause, recorded: ModelCall.Requested) -> str:
        """Make the call, and return its id.

        Raises: ModelError, Rejection, Ended when another worker took it over meanwhile.
        """
        replay = attempt.aggregate
        messages = recorded.request.get("messages") or []
        sent = await read(self.repository, attempt.tenant, messages)
        passages = await self._passages(attempt.tenant, recorded, sent) if replay.provider == BUILTIN else []
        if replay.app and replay.configuration:
            instructions = await self._instructions(attempt.tenant, replay, sent)
            messages = [reword(cast("InPieces", messages[0]), *instructions), *messages[1:]]
            sent = await read(self.repository, attempt.tenant, messages)
        model = ModelSettings(
            provider=replay.provider,
            name=replay.model,
            max_tokens=replay.max_tokens,
            context_window=recorded.request.get("context_window", 0),
            parameters=replay.parameters,
        )
        person = cause.metadata.person
        request = ChatRequest(
            replay.model,
            [await as_sent(self.files, attempt.tenant, person, message) for message in sent],
            replay.max_tokens,
            replay.parameters,
            passages,
            await tools(self.repository, attempt.tenant, recorded.request),
            recorded.request.get("tool_choice") or "auto",
            (recorded.request.get("response_format") or {}).get("schema"),
            model["context_window"],
        )
        chat = self.calls.chat(cause, self.choose(attempt.tenant, model, request), request, Record(messages, {}))
        async for _ in chat.texts():
            pass
        call = await self.repository.get(ModelCall, attempt.tenant, chat.id)
        if call is None or call.status != "completed":
            raise Ended
        return chat.id

    async def _instructions(
        self, tenant: str, replay: Replay, sent: Sequence[InPieces]
    ) -> tuple[str, Mapping[str, str], str, int]:
        """The instructions of the replay's configuration, and what the asker gave for them; their app and number.

        Raises: Rejection `missing_input`.
        """
        app = await self.repository.get(App, tenant, str(replay.app))
        assert app is not None
        configuration = app.configurations[str(replay.configuration)]
        inputs: dict[str, str] = {}
        for piece in pieces(sent):
            if piece.get("from") == "query" and "conversation" in piece:
                conversation = await self.repository.get(Conversation, tenant, piece["conversation"])
                known = conversation.messages.get(piece["message_id"]) if conversation else None
                inputs |= known["inputs"] if known else {}
        inputs |= {piece["name"]: piece["text"] for piece in pieces(sent) if piece.get("from") == "input"}
        values = fill_in(configuration["variables"], inputs)
        return configuration["prompt"], values, app.id, configuration["number"]

    async def _passages(self, tenant: str, recorded: ModelCall.Requested, sent: Sequence[InPieces]) -> list[str]:
        """The segments in the messages, as a model reads them that takes them apart."""
        id = commit_id(recorded.cause_id, f"retrieve:{recorded.attempt}")
        made = await self.repository.first(Retrieval, tenant, id)
        hits = cast("Retrieval.Made", made.events[0]).hits if made else []
        headings = {hit["segment"]: hit["heading"] for hit in hits}
        return [
            "\n\n".join(filter(None, (headings.get(piece["segment"]), piece["text"])))
            for piece in pieces(sent)
            if piece.get("from") == "segment"
        ]
