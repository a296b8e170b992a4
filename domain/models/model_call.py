"""A model call: on record before it is sent, and again when it ended.

Its status goes requested → completed, failed or cancelled. One that stays `requested` has an unknown outcome.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Any, NotRequired, Self, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate
from domain.chat.conversation import Usage


class TokenUsage(Usage):
    """Tokens, and what of them was cheaper or dearer; null where the server does not say.

    `prompt_tokens` holds the cached ones too, `completion_tokens` those of reasoning; `raw` is what the server sent.
    """

    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    raw: dict[str, Any]


Source = TypedDict(
    "Source",
    {
        "message": int,
        "start": int,
        "end": int,
        "from": str,
        "app": NotRequired[str],
        "configuration": NotRequired[int],
        "name": NotRequired[str],
        "segment": NotRequired[str],
        "document": NotRequired[str],
        "dataset": NotRequired[str],
        "rank": NotRequired[int],
        "score": NotRequired[float],
        "conversation": NotRequired[str],
        "message_id": NotRequired[str],
    },
)
Source.__doc__ = """Where characters `start` to `end` (code points) of message number `message` (from 0) come from.

`from` is `instructions` (of `configuration` of `app`), `input` (the value of the app's variable `name`, within the
instructions), `segment` (with `document`, `dataset`, final `rank` and `score` of the retrieval), `history` (question or
answer of the earlier message `message_id`) or `query` (the message `message_id` of `conversation`). What no source
covers is white space between the parts.
"""


class ModelCall(Aggregate):
    TOPIC = "model_call"
    kind: str
    provider: str
    model: str
    status: str = field(default="requested", init=False)

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """A model is about to be called for `cause_noun` `cause_id` (a message, document or replay), in the
        `attempt`-th try at it (0 when that is not known).

        `kind` is chat, embedding or rerank; `request` is what is sent: `messages`, `max_tokens` and `parameters` of a
        chat, `texts` and `tokens` of an embedding, the `query` and the ids of the `segments` of a rerank. `sources`
        says where the parts of the messages come from.
        """

        TOPIC = "model_call.requested.v2"
        PERSONAL = frozenset({"request"})
        class_version = 2
        kind: str
        provider: str
        model: str
        cause_noun: str
        cause_id: str
        attempt: int
        server: str
        request: dict[str, Any]
        sources: list[Source]

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state |= {"attempt": 0, "server": "", "sources": []}

    class Completed(Event):
        """The model answered; times are milliseconds since the request was sent.

        The `response` of a rerank is a JSON array: a score for each of the segments, in their order.
        """

        TOPIC = "model_call.completed.v2"
        PERSONAL = frozenset({"response"})
        class_version = 2
        response: str
        response_id: str | None
        response_model: str | None
        finish_reason: str | None
        usage: TokenUsage
        first_token_ms: float | None
        duration_ms: float

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state |= {"response_id": None, "response_model": None}
            state["usage"] |= {"cached_tokens": None, "cache_write_tokens": None, "reasoning_tokens": None, "raw": {}}

        def apply(self, call: ModelCall) -> None:
            call.status = "completed"

    class Failed(Event):
        """The model did not answer, or broke off; `response` keeps what had arrived.

        `code` `lost` means that the worker died with the call in flight: whether the model answered is unknown.
        """

        TOPIC = "model_call.failed.v1"
        PERSONAL = frozenset({"reason", "response"})
        code: str
        reason: str
        response: str
        duration_ms: float | None

        def apply(self, call: ModelCall) -> None:
            call.status = "failed"

    class Cancelled(Event):
        """The call was broken off by request; `response` keeps what had arrived."""

        TOPIC = "model_call.cancelled.v1"
        PERSONAL = frozenset({"response"})
        response: str
        duration_ms: float

        def apply(self, call: ModelCall) -> None:
            call.status = "cancelled"

    @classmethod
    def request(
        cls,
        id: str,
        at: datetime,
        *,
        kind: str,
        provider: str,
        model: str,
        cause_noun: str,
        cause_id: str,
        request: dict[str, Any],
        attempt: int = 1,
        server: str = "",
        sources: list[Source] | None = None,
    ) -> Self:
        return cls._create(
            cls.Requested,
            id=id,
            timestamp=at,
            kind=kind,
            provider=provider,
            model=model,
            cause_noun=cause_noun,
            cause_id=cause_id,
            attempt=attempt,
            server=server,
            request=request,
            sources=sources or [],
        )

    def complete(
        self,
        at: datetime,
        *,
        response: str,
        finish_reason: str | None,
        usage: TokenUsage,
        first_token_ms: float | None,
        duration_ms: float,
        response_id: str | None = None,
        response_model: str | None = None,
    ) -> None:
        if self.status == "requested":
            self.record(
                self.Completed,
                at,
                response=response,
                response_id=response_id,
                response_model=response_model,
                finish_reason=finish_reason,
                usage=usage,
                first_token_ms=first_token_ms,
                duration_ms=duration_ms,
            )

    def fail(self, at: datetime, *, code: str, reason: str, response: str, duration_ms: float | None) -> None:
        if self.status == "requested":
            self.record(self.Failed, at, code=code, reason=reason, response=response, duration_ms=duration_ms)

    def cancel(self, at: datetime, *, response: str, duration_ms: float) -> None:
        if self.status == "requested":
            self.record(self.Cancelled, at, response=response, duration_ms=duration_ms)
