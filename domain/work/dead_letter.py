"""A dead letter: a message that a consumer could not handle.

Its status goes buried → retried or discarded. When a retried message fails again it is returned, which counts as
buried.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, TypedDict, Unpack
from uuid import NAMESPACE_OID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate, Rejection


def dead_letter_id(consumer: str, tenant: str, message: str) -> str:
    """The id of a message's dead letter: one for each consumer, however often the message fails."""
    return str(uuid5(NAMESPACE_OID, f"{consumer} {tenant} {message}"))


Failures = Annotated[int, "Number of failures that the handler reported."]
Deaths = Annotated[int, "Number of workers that died while handling it."]
Where = Annotated[str, "Line of code that failed last, as `file:function:line`; empty when workers died."]
Stack = Annotated[str, "Digest of the stack of the last failure, equal for equal failures; empty when workers died."]


class FailureFields(TypedDict):
    """The end of the consumer's attempts at a message, which has this `sequence` in its stream."""

    sequence: int
    reason: str
    where: str
    stack: str
    failures: int
    deaths: int


class DeadLetter(Aggregate):
    TOPIC = "dead_letter"
    consumer: str
    sequence: int
    subject: str
    message: str
    status: str = field(default="buried", init=False)

    class Event(aggregate.Event):
        pass

    class Buried(Event, aggregate.Created):
        """A consumer could not handle a message, and has given it up."""

        TOPIC = "dead_letter.buried.v1"
        PERSONAL = frozenset({"reason"})
        consumer: Annotated[str, "Durable consumer that could not handle the message."]
        stream: Annotated[str, "Stream of the message."]
        sequence: Annotated[int, "Sequence of the message in its stream."]
        subject: Annotated[str, "Subject of the message."]
        message: Annotated[str, "Id of the message: of a command that of its outcome, else that of the commit."]
        reason: Annotated[str, "Error of the last attempt."]
        where: Where
        stack: Stack
        failures: Failures
        deaths: Deaths

    class Retried(Event):
        """An operator retries the message: its consumer gets it again."""

        TOPIC = "dead_letter.retried.v1"
        consumer: Annotated[str, "Durable consumer that gets the message."]
        sequence: Annotated[int, "Sequence of the message in its stream."]

        def apply(self, letter: DeadLetter) -> None:
            letter.status = "retried"

    class Returned(Event):
        """The retried message failed again."""

        TOPIC = "dead_letter.returned.v1"
        PERSONAL = frozenset({"reason"})
        sequence: Annotated[int, "Sequence in the same stream that the message had this time."]
        reason: Annotated[str, "Error of the last attempt."]
        where: Where
        stack: Stack
        failures: Failures
        deaths: Deaths

        def apply(self, letter: DeadLetter) -> None:
            letter.status = "returned"

    class Discarded(Event):
        """An operator discarded the message: it is removed from the stream of dead letters."""

        TOPIC = "dead_letter.discarded.v1"
        consumer: Annotated[str, "Durable consumer that could not handle the message."]

        def apply(self, letter: DeadLetter) -> None:
            letter.status = "discarded"

    @property
    def waits(self) -> bool:
        """It must be retried or discarded."""
        return self.status in ("buried", "returned")

    def come_back(self, at: datetime, **failure: Unpack[FailureFields]) -> None:
        if not self.waits:
            self.record(self.Returned, at, **failure)

    def retry(self, at: datetime) -> None:
        self._must_wait()
        self.record(self.Retried, at, consumer=self.consumer, sequence=self.sequence)

    def discard(self, at: datetime) -> None:
        self._must_wait()
        self.record(self.Discarded, at, consumer=self.consumer)

    def _must_wait(self) -> None:
        if not self.waits:
            raise Rejection("not_waiting", f"Dead letter {self.id} is already {self.status}.", "dead_letter")
