"""Commands and their outcomes: the table `commands`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Outcome, Recorded
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row

commands = ReadModel(
    "commands",
    "Commands and their outcomes. Here log_position counts in the stream OUTCOMES.",
    key("id", "Command."),
    required("name", Text, "Command: noun.verb."),
    required("status", Text, "accepted or rejected."),
    optional("code", Text, "Rule that it broke, for programs; null when accepted."),
    optional("message", Text, "Rule that it broke and what to do, for people; null when accepted."),
    optional("field", Text, "Field at fault; null when no single one is."),
    optional("stream", Text, "Stream of its commit; null when rejected."),
    optional("sequence", BigInteger, "Sequence of its commit in that stream; null when rejected."),
    optional("version", BigInteger, "Version of what it changed, after it; null when rejected."),
    required("ids", JSONB, "Ids of what it created or changed, by noun; rejected: of what it named as its target."),
    required("correlation_id", Id, "Command that began the chain of causes that this one belongs to."),
    required("actor", Text, "Actor who sent it."),
    optional("door", Text, "Door that it came through: bus, operator or viewer; null for older commands."),
    optional("origin", Id, "Report in door_events that names the address of its sender; null where none is known."),
    optional("excerpt", Text, "Beginning of what was sent, where it could not be understood."),
    required("created_at", Time, "When it was decided."),
)
commands.sorted_by("time", "created_at")
commands.sorted_by("accepted", postgresql_where=text("status = 'accepted'"))


@commands.makes(Outcome)
def decided(outcome: Outcome, message: Recorded) -> Row:
    stream, sequence = outcome.position or (None, None)
    return {
        "id": outcome.command,
        "name": outcome.name,
        "status": outcome.status,
        "code": outcome.code,
        "message": outcome.message,
        "field": outcome.field,
        "stream": stream,
        "sequence": sequence,
        "version": outcome.version,
        "ids": outcome.ids,
        "correlation_id": outcome.metadata.correlation,
        "actor": outcome.metadata.actor,
        "door": outcome.metadata.door,
        "origin": outcome.metadata.origin,
        "excerpt": outcome.excerpt,
    }
