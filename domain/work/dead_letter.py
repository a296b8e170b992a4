"""A dead letter: a message that no worker could handle.

Its status goes buried → retried or discarded; a message that dies again makes it returned, which waits as buried does.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Self
from uuid import NAMESPACE_OID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate, Rejection


def dead_letter_id(consumer: str, tenant: str, message: str) -> str:
    """The id of the letter that a consumer's message has, however often it dies."""
    return str(uuid5(NAMESPACE_OID, f"{consumer} {tenant} {message}"))


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
        """Message `message` of `stream`, at `sequence` on `subject`, could not be handled by a consumer.

        It failed `failures` times by itself, and its worker died `deaths` times with it in hand. `where` is the last
        line of code of the last failure, `stack` a digest of all of them; both are empty after a death.
        """

        TOPIC = "dead_letter.buried.v1"
        PERSONAL = frozenset({"reason"})
        consumer: str
        stream: str
        sequence: int
        subject: str
        message: str
        reason: str
        where: str
        stack: str
        failures: int
        deaths: int

    class Retried(Event):
        """Someone asked to try again: the consumer gets the message of `sequence` once more."""

        TOPIC = "dead_letter.retried.v1"
        consumer: str
        sequence: int

        def apply(self, letter: DeadLetter) -> None:
            letter.status = "retried"

    class Returned(Event):
        """The message was tried again, at `sequence` of the same stream, and died again."""

        TOPIC = "dead_letter.returned.v1"
        PERSONAL = frozenset({"reason"})
        sequence: int
        reason: str
        where: str
        stack: str
        failures: int
        deaths: int

        def apply(self, letter: DeadLetter) -> None:
            letter.status = "returned"

    class Discarded(Event):
        """Someone gave it up: the message is taken out of the stream of dead letters."""

        TOPIC = "dead_letter.discarded.v1"
        consumer: str

        def apply(self, letter: DeadLetter) -> None:
            letter.status = "discarded"

    @classmethod
    def bury(
        cls,
        id: str,
        at: datetime,
        *,
        consumer: str,
        stream: str,
        sequence: int,
        subject: str,
        message: str,
        reason: str,
        where: str,
        stack: str,
        failures: int,
        deaths: int,
    ) -> Self:
        return cls._create(
            cls.Buried,
            id=id,
            timestamp=at,
            consumer=consumer,
            stream=stream,
            sequence=sequence,
            subject=subject,
            message=message,
            reason=reason,
            where=where,
            stack=stack,
            failures=failures,
            deaths=deaths,
        )

    @property
    def waits(self) -> bool:
        """Somebody has to decide what becomes of it."""
        return self.status in ("buried", "returned")

    def come_back(
        self, at: datetime, *, sequence: int, reason: str, where: str, stack: str, failures: int, deaths: int
    ) -> None:
        if not self.waits:
            self.record(
                self.Returned,
                at,
                sequence=sequence,
                reason=reason,
                where=where,
                stack=stack,
                failures=failures,
                deaths=deaths,
            )

    def retry(self, at: datetime) -> None:
        self._must_wait()
        self.record(self.Retried, at, consumer=self.consumer, sequence=self.sequence)

    def discard(self, at: datetime) -> None:
        self._must_wait()
        self.record(self.Discarded, at, consumer=self.consumer)

    def _must_wait(self) -> None:
        if not self.waits:
            raise Rejection("not_waiting", f"Dead letter {self.id} is {self.status} already.", "dead_letter")
