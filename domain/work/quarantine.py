"""The end of a quarantine: a message of the log that could not be read is discarded, and its aggregate goes on.

A message in quarantine is no event: no aggregate, table or work takes it. What is in quarantine is in the table
`headrace_projection.quarantine`; only the decision to discard is an event.
"""

from __future__ import annotations

from typing import Annotated
from uuid import NAMESPACE_OID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate


def quarantine_id(stream: str, sequence: int) -> str:
    """The id of the quarantine of a message."""
    return str(uuid5(NAMESPACE_OID, f"quarantine {stream} {sequence}"))


class Quarantine(Aggregate):
    TOPIC = "quarantine"
    stream: str
    sequence: int

    class Event(aggregate.Event):
        pass

    class Discarded(Event, aggregate.Created):
        """An operator discarded a message that could not be read: it does not count, and its aggregate goes on."""

        TOPIC = "quarantine.discarded.v1"
        stream: Annotated[str, "Stream of the message."]
        sequence: Annotated[int, "Sequence of the message in its stream."]
