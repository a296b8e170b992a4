"""Commands of dead letters and of the quarantine."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from domain.aggregate import Rejection
from domain.work.quarantine import Quarantine, quarantine_id
from handlers.commands.fields import Command, DeadLetterId, Id
from handlers.commands.preparation import MakeOrChange, Preparation


class RetryDeadLetter(Command):
    """Retry the message of a dead letter; a retried command keeps its id, and gets a second outcome."""

    dead_letter: DeadLetterId


class DiscardDeadLetter(Command):
    """Discard a dead letter with its message."""

    dead_letter: DeadLetterId


class DiscardQuarantined(Command):
    """Discard a message of the log that cannot be read: it does not count, and its aggregate goes on."""

    quarantine: Annotated[Id, Field(description="Id in the table of the quarantine")]
    stream: Annotated[Literal["EVENTS", "OUTCOMES"], Field(description="Stream of the message")]
    sequence: Annotated[int, Field(ge=1, description="Sequence of the message in its stream")]


async def discard(sent: DiscardQuarantined, given: Preparation) -> MakeOrChange[Quarantine]:
    if sent.quarantine != quarantine_id(sent.stream, sent.sequence):
        message = f"Must be the id of the quarantine of {sent.stream} {sent.sequence}."
        raise Rejection("invalid", message, "quarantine")

    def decide(known: Quarantine | None, id: str, at: datetime) -> Quarantine:
        return known or Quarantine.begin(Quarantine.Discarded, id, at, stream=sent.stream, sequence=sent.sequence)

    return decide
