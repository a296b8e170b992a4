"""A speech: a text, mostly an answer, and the audio that a model makes of it.

Its status goes requested → completed or failed, and by a retry from failed back to requested.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage, Rejection

LONGEST = 20_000
"""Maximum characters of a text that is spoken."""


class Speech(Aggregate):
    TOPIC = "speech"
    app: str
    conversation: str | None
    message: str | None
    text: str
    provider: str
    model: str
    voice: str
    autoplay: bool
    status: str = field(default="requested", init=False)
    stalls: int = field(default=0, init=False)
    attempt: int = field(default=1, init=False)
    """1, and one more each time it was retried."""

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """The speech of a text was requested."""

        TOPIC = "speech.requested.v1"
        PERSONAL = frozenset({"text"})
        app: Annotated[str, "App."]
        conversation: Annotated[str | None, "Conversation of the message; null for a text."]
        message: Annotated[str | None, "Message whose answer is spoken; null for a text."]
        text: Annotated[str, "Text."]
        provider: Annotated[str, "Provider, by its name."]
        model: Annotated[str, "Name of the model at its provider."]
        voice: Annotated[str, "Voice, as the model names it."]
        autoplay: Annotated[bool, "True if the audio is sent in live frames while it arrives."]

    class Completed(Event):
        """The model spoke the text."""

        TOPIC = "speech.completed.v1"
        digest: Annotated[str, "Blob with the audio, sealed."]
        media_type: Annotated[str, "Media type of the audio."]
        size: Annotated[int, "Size in bytes."]
        model_calls: Annotated[list[str], "Model calls that gave the audio: one for each part of the text."]

        def apply(self, speech: Speech) -> None:
            speech.status = "completed"

    class Failed(Event):
        """The speech failed."""

        TOPIC = "speech.failed.v1"
        PERSONAL = frozenset({"reason"})
        code: ErrorCode
        reason: ErrorMessage

        def apply(self, speech: Speech) -> None:
            speech.status = "failed"
            speech.stalls += self.code == "stalled"

    class Retried(Event):
        """The speech is retried."""

        TOPIC = "speech.retried.v1"

        def apply(self, speech: Speech) -> None:
            speech.status = "requested"
            speech.attempt += 1

    @property
    def ended(self) -> bool:
        """No work is left."""
        return self.status != "requested"

    def complete(self, at: datetime, *, digest: str, media_type: str, size: int, model_calls: list[str]) -> None:
        if not self.ended:
            self.record(self.Completed, at, digest=digest, media_type=media_type, size=size, model_calls=model_calls)

    def fail(self, at: datetime, *, code: str, reason: str) -> None:
        if not self.ended:
            self.record(self.Failed, at, code=code, reason=reason)

    def retry(self, at: datetime) -> None:
        if self.status != "failed":
            raise Rejection("not_failed", f"Speech {self.id} is {self.status}, not failed.", "speech")
        self.record(self.Retried, at)
