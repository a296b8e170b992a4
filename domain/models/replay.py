"""A replay: a recorded model call made again, to another model, with other instructions or parameters, or as it was.

Its status goes requested → completed or failed, and by a retry from failed back to requested.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Any, Self

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

STALLS = 3
"""How often a replay that nobody works at is put back to work by itself."""


class Replay(Aggregate):
    TOPIC = "replay"
    call: str
    provider: str
    model: str
    max_tokens: int
    parameters: dict[str, Any]
    app: str | None
    configuration: int | None
    status: str = field(default="requested", init=False)
    stalls: int = field(default=0, init=False)
    attempt: int = field(default=1, init=False)
    """1, and one more each time it was retried."""

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """Model call `call` is to be made again with this model and these parameters.

        With a `configuration`, its instructions (of `app`) take the place of those that were sent.
        """

        TOPIC = "replay.requested.v1"
        call: str
        provider: str
        model: str
        max_tokens: int
        parameters: dict[str, Any]
        app: str | None
        configuration: int | None

    class Completed(Event):
        """The model answered: model call `model_call` holds what was sent and what came back."""

        TOPIC = "replay.completed.v1"
        model_call: str

        def apply(self, replay: Replay) -> None:
            replay.status = "completed"

    class Failed(Event):
        """No answer came; `model_call` is the call that failed, null when none was made."""

        TOPIC = "replay.failed.v1"
        PERSONAL = frozenset({"reason"})
        code: str
        reason: str
        model_call: str | None

        def apply(self, replay: Replay) -> None:
            replay.status = "failed"
            if self.code == "stalled":
                replay.stalls += 1

    class Retried(Event):
        """It is to be made again."""

        TOPIC = "replay.retried.v1"

        def apply(self, replay: Replay) -> None:
            replay.status = "requested"
            replay.attempt += 1

    @classmethod
    def request(
        cls,
        id: str,
        at: datetime,
        *,
        call: str,
        provider: str,
        model: str,
        max_tokens: int,
        parameters: dict[str, Any],
        app: str | None,
        configuration: int | None,
    ) -> Self:
        return cls._create(
            cls.Requested,
            id=id,
            timestamp=at,
            call=call,
            provider=provider,
            model=model,
            max_tokens=max_tokens,
            parameters=parameters,
            app=app,
            configuration=configuration,
        )

    @property
    def ended(self) -> bool:
        """Nothing more is to be done for it."""
        return self.status != "requested"

    def complete(self, at: datetime, *, model_call: str) -> None:
        if not self.ended:
            self.record(self.Completed, at, model_call=model_call)

    def fail(self, at: datetime, *, code: str, reason: str, model_call: str | None = None) -> None:
        if not self.ended:
            self.record(self.Failed, at, code=code, reason=reason, model_call=model_call)

    def retry(self, at: datetime) -> None:
        if self.status != "failed":
            raise Rejection("not_failed", f"Replay {self.id} is {self.status}, not failed.", "replay")
        self.record(self.Retried, at)

    def stall(self, at: datetime, *, reason: str) -> None:
        """Nobody works at it: put it back to work, or let it fail when that did not help before."""
        if not self.ended:
            self.fail(at, code="stalled", reason=reason)
            if self.stalls <= STALLS:
                self.retry(at)
