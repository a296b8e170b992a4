"""An effect: a request to a server that a step of a run makes, recorded before it is sent, and again when it ends.

Its status goes requested → completed, failed or cancelled. The outcome of one whose worker died is unknown: it fails
with code `lost`, unless the request is idempotent. Then it is sent again, under the same id.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, TypedDict, Unpack

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage


class Response(TypedDict):
    """The response of a server."""

    status: int
    headers: dict[str, str]
    body: str
    digest: str | None
    size: int
    duration_ms: float


Duration = Annotated[float | None, "Milliseconds from the request to the end; null when unknown."]


class Effect(Aggregate):
    TOPIC = "effect"
    idempotent: bool
    attempt: int
    status: str = field(default="requested", init=False)
    code: str = field(default="", init=False)
    reason: str = field(default="", init=False)
    response: Response | None = field(default=None, init=False)

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """A request is about to be sent."""

        TOPIC = "effect.requested.v1"
        PERSONAL = frozenset({"request"})
        kind: Annotated[str, "`http`."]
        method: Annotated[str, "Method, like `GET`."]
        server: Annotated[str, "Address of the server, as `host:port`."]
        request: Annotated[
            dict[str, Any],
            "`url`, `params`, `headers`, and of the body: `text`, `fields`, `files` or `file`. Secrets are left out.",
        ]
        cause_noun: Annotated[str, "Purpose: `run`."]
        cause_id: Annotated[str, "Id of that run."]
        step: Annotated[str, "Call of the run: the step, the try and the number of the call in it."]
        app: Annotated[str, "App of the run."]
        attempt: Annotated[int, "Attempt at the run, from 1."]
        idempotent: Annotated[bool, "True if the request may be sent again when its outcome is unknown."]

    class Begun(Event):
        """The request is sent again, since its outcome is unknown."""

        TOPIC = "effect.begun.v1"
        attempt: Annotated[int, "Attempt at the run, from 1."]

        def apply(self, effect: Effect) -> None:
            effect.status, effect.attempt = "requested", self.attempt

    class Completed(Event):
        """The server responded."""

        TOPIC = "effect.completed.v1"
        PERSONAL = frozenset({"body", "headers"})
        status: Annotated[int, "Status of the response."]
        headers: Annotated[dict[str, str], "Headers of the response."]
        body: Annotated[str, "Body, where it is a text in UTF-8; else empty."]
        digest: Annotated[str | None, "Blob with the body, sealed, where it is none; null otherwise."]
        size: Annotated[int, "Size of the body in bytes."]
        duration_ms: Annotated[float, "Milliseconds from the request to the end."]

        def apply(self, effect: Effect) -> None:
            effect.status = "completed"
            effect.response = Response(
                status=self.status,
                headers=self.headers,
                body=self.body,
                digest=self.digest,
                size=self.size,
                duration_ms=self.duration_ms,
            )

    class Failed(Event):
        """The server did not respond, or the request was not sent.

        With code `lost`, the worker died during it: whether the server did something is unknown.
        """

        TOPIC = "effect.failed.v1"
        PERSONAL = frozenset({"reason"})
        code: ErrorCode
        reason: ErrorMessage
        duration_ms: Duration

        def apply(self, effect: Effect) -> None:
            effect.status, effect.code, effect.reason = "failed", self.code, self.reason

    class Cancelled(Event):
        """The request was broken off: the run was stopped, or its worker. The server may have done something."""

        TOPIC = "effect.cancelled.v1"
        duration_ms: Duration

        def apply(self, effect: Effect) -> None:
            effect.status = "cancelled"

    @property
    def ended(self) -> bool:
        return self.status != "requested"

    def begin_again(self, at: datetime, *, attempt: int) -> None:
        """Send it again in this attempt, since an earlier one has left its outcome unknown."""
        if self.status in ("requested", "cancelled") and self.attempt < attempt and self.idempotent:
            self.record(self.Begun, at, attempt=attempt)

    def complete(self, at: datetime, **response: Unpack[Response]) -> None:
        if not self.ended:
            self.record(self.Completed, at, **response)

    def fail(self, at: datetime, *, code: str, reason: str, duration_ms: float | None) -> None:
        if not self.ended:
            self.record(self.Failed, at, code=code, reason=reason, duration_ms=duration_ms)

    def lose(self, at: datetime, reason: str) -> None:
        """End a request whose worker died."""
        self.fail(at, code="lost", reason=reason, duration_ms=None)

    def cancel(self, at: datetime, *, duration_ms: float | None) -> None:
        if not self.ended:
            self.record(self.Cancelled, at, duration_ms=duration_ms)
