"""A replay: a recorded model call made again as it was, or with another model, other instructions or parameters.

Its status goes requested → completed or failed, and by a retry from failed back to requested.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, Any

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage, Rejection


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
        """A replay of a model call was requested."""

        TOPIC = "replay.requested.v1"
        call: Annotated[str, "Model call to make again."]
        provider: Annotated[str, "Provider, by its name."]
        model: Annotated[str, "Name of the model at its provider."]
        max_tokens: Annotated[int, "Tokens reserved for the answer."]
        parameters: Annotated[dict[str, Any], "Parameters passed to the model."]
        app: Annotated[str | None, "App of the configuration; null without one."]
        configuration: Annotated[int | None, "Configuration whose instructions are sent; null for the recorded ones."]

    class Completed(Event):
        """The model answered; the model call has what was sent and received."""

        TOPIC = "replay.completed.v1"
        model_call: Annotated[str, "Model call of the replay."]

        def apply(self, replay: Replay) -> None:
            replay.status = "completed"

    class Failed(Event):
        """The replay failed."""

        TOPIC = "replay.failed.v1"
        PERSONAL = frozenset({"reason"})
        code: ErrorCode
        reason: ErrorMessage
        model_call: Annotated[str | None, "Model call that failed; null when none was made."]

        def apply(self, replay: Replay) -> None:
            replay.status = "failed"
            replay.stalls += self.code == "stalled"

    class Retried(Event):
        """The replay is retried."""

        TOPIC = "replay.retried.v1"

        def apply(self, replay: Replay) -> None:
            replay.status = "requested"
            replay.attempt += 1

    @property
    def ended(self) -> bool:
        """No work is left."""
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
