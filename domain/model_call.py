"""A model call: on record before it is sent, and again when it ended.

Its status goes requested → completed, failed or cancelled. One that stays `requested` has an unknown outcome.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Any, Self

from domain import aggregate
from domain.aggregate import Aggregate
from domain.conversation import Usage


class ModelCall(Aggregate):
    TOPIC = "model_call"
    status: str = field(default="requested", init=False)

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """A model is about to be called for `cause_noun` `cause_id` (a message or a document).

        `kind` is chat or embedding; `request` is what is sent: `messages` and `parameters` of a chat,
        `segments` and `tokens` of an embedding.
        """

        TOPIC = "model_call.requested.v1"
        kind: str
        provider: str
        model: str
        cause_noun: str
        cause_id: str
        request: dict[str, Any]

    class Completed(Event):
        """The model answered; times are milliseconds since the request was sent."""

        TOPIC = "model_call.completed.v1"
        response: str
        finish_reason: str | None
        usage: Usage
        first_token_ms: float | None
        duration_ms: float

        def apply(self, call: ModelCall) -> None:
            call.status = "completed"

    class Failed(Event):
        """The model did not answer, or broke off; `response` keeps what had arrived.

        `code` `lost` means that the worker died with the call in flight: whether the model answered is unknown.
        """

        TOPIC = "model_call.failed.v1"
        code: str
        reason: str
        response: str
        duration_ms: float | None

        def apply(self, call: ModelCall) -> None:
            call.status = "failed"

    class Cancelled(Event):
        """The call was broken off by request; `response` keeps what had arrived."""

        TOPIC = "model_call.cancelled.v1"
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
            request=request,
        )

    def complete(
        self,
        at: datetime,
        *,
        response: str,
        finish_reason: str | None,
        usage: Usage,
        first_token_ms: float | None,
        duration_ms: float,
    ) -> None:
        if self.status == "requested":
            self.record(
                self.Completed,
                at,
                response=response,
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
