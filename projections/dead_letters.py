"""Messages that no worker could handle: the table `dead_letters`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, Text

from domain.access.end_user import EndUser
from domain.log import Recorded
from domain.work.dead_letter import DeadLetter
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

dead_letters = ReadModel(
    "dead_letters",
    "Messages that no worker could handle. What they say is in the stream DEAD alone, as long as they wait.",
    key("id", "Dead letter."),
    required(
        "status", Text, "buried or returned: it waits for a decision; retried or discarded: an operator has decided."
    ),
    required("consumer", Text, "Durable consumer that could not handle it."),
    required("stream", Text, "Stream that it came from."),
    required("sequence", BigInteger, "Its sequence in that stream."),
    required("subject", Text, "Its subject."),
    required("message_id", Text, "Its id: of a command the id of its outcome, else that of the commit."),
    required("reason", Text, "Error of the last failure; empty when the person was erased whose words it may quote."),
    required("place", Text, "Line of code that failed last, as file:function:line; empty when a worker died."),
    required("stack", Text, "Digest of all the lines that led there: equal for equal failures; empty as the place is."),
    required("failures", Integer, "Failures before it was last given up."),
    required("deaths", Integer, "Deaths of workers that handled it, before it was last given up."),
    required("retries", Integer, "Retries by an operator."),
    optional("decided_by", Text, "Operator who last retried or discarded it; null where none has."),
    required("correlation_id", Id, "Command that began the chain of causes that it belongs to."),
    person(),
    required("created_at", Time, "Time of the first dead letter."),
    required("updated_at", Time, "Time of the last change."),
)
dead_letters.sets(EndUser.Erased, {"reason": ""}, column="person_id")


@dead_letters.makes(DeadLetter.Buried, new=originator)
def buried(event: DeadLetter.Buried, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "status": "buried",
        "consumer": event.consumer,
        "stream": event.stream,
        "sequence": event.sequence,
        "subject": event.subject,
        "message_id": event.message,
        "reason": event.reason,
        "place": event.where,
        "stack": event.stack,
        "failures": event.failures,
        "deaths": event.deaths,
        "retries": 0,
        "correlation_id": message.metadata.correlation,
        "person_id": message.metadata.person,
    }


@dead_letters.changes(DeadLetter.Returned)
def returned(row: Row, event: DeadLetter.Returned, message: Recorded) -> Row:
    return {
        "status": "returned",
        "reason": event.reason,
        "place": event.where,
        "stack": event.stack,
        "failures": event.failures,
        "deaths": event.deaths,
    }


@dead_letters.changes(DeadLetter.Retried)
def retried(row: Row, event: DeadLetter.Retried, message: Recorded) -> Row:
    return {"status": "retried", "retries": row["retries"] + 1, "decided_by": message.metadata.actor}


@dead_letters.changes(DeadLetter.Discarded)
def discarded(row: Row, event: DeadLetter.Discarded, message: Recorded) -> Row:
    return {"status": "discarded", "decided_by": message.metadata.actor}
