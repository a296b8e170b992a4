"""A transcription: a recording of a person, and its text by a model.

Its status goes requested → completed or failed, and by a retry from failed back to requested.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage, Rejection


class Transcription(Aggregate):
    TOPIC = "transcription"
    app: str
    digest: str
    media_type: str
    size: int
    provider: str
    model: str
    language: str
    status: str = field(default="requested", init=False)
    stalls: int = field(default=0, init=False)
    attempt: int = field(default=1, init=False)
    """1, and one more each time it was retried."""

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """The transcription of a recording was requested."""

        TOPIC = "transcription.requested.v1"
        app: Annotated[str, "App."]
        digest: Annotated[str, "Blob with the recording, sealed."]
        media_type: Annotated[str, "Media type by its content."]
        size: Annotated[int, "Size in bytes."]
        provider: Annotated[str, "Provider, by its name."]
        model: Annotated[str, "Name of the model at its provider."]
        language: Annotated[str, "ISO 639-1 code of the language; empty when unknown."]

    class Completed(Event):
        """The model transcribed the recording."""

        TOPIC = "transcription.completed.v1"
        PERSONAL = frozenset({"text"})
        text: Annotated[str, "Text."]
        spoken_language: Annotated[str | None, "Language, as the server names it; null when it does not."]
        seconds: Annotated[float | None, "Length of the recording in seconds; null when the server does not tell."]
        model_call: Annotated[str, "Model call that gave the text."]

        def apply(self, transcription: Transcription) -> None:
            transcription.status = "completed"

    class Failed(Event):
        """The transcription failed."""

        TOPIC = "transcription.failed.v1"
        PERSONAL = frozenset({"reason"})
        code: ErrorCode
        reason: ErrorMessage

        def apply(self, transcription: Transcription) -> None:
            transcription.status = "failed"
            transcription.stalls += self.code == "stalled"

    class Retried(Event):
        """The transcription is retried."""

        TOPIC = "transcription.retried.v1"

        def apply(self, transcription: Transcription) -> None:
            transcription.status = "requested"
            transcription.attempt += 1

    @property
    def ended(self) -> bool:
        """No work is left."""
        return self.status != "requested"

    def complete(
        self, at: datetime, *, text: str, spoken_language: str | None, seconds: float | None, model_call: str
    ) -> None:
        if not self.ended:
            self.record(
                self.Completed,
                at,
                text=text,
                spoken_language=spoken_language,
                seconds=seconds,
                model_call=model_call,
            )

    def fail(self, at: datetime, *, code: str, reason: str) -> None:
        if not self.ended:
            self.record(self.Failed, at, code=code, reason=reason)

    def retry(self, at: datetime) -> None:
        if self.status != "failed":
            raise Rejection("not_failed", f"Transcription {self.id} is {self.status}, not failed.", "transcription")
        self.record(self.Retried, at)
