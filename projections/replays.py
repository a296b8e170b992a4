"""Calls that were made again: the table `replays`."""

from __future__ import annotations

from sqlalchemy import Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.log import Recorded
from domain.models.replay import Replay
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

replays = ReadModel(
    "replays",
    "Recorded calls of chat models that were made again: with another model, other instructions, or as they were.",
    key("id", "Replay."),
    required("model_call_id", Id, "Call that is made again, in model_calls."),
    required("provider", Text, "Provider of the model: builtin, or the id of a row in providers."),
    required("model", Text, "Name of the model at its provider."),
    required("max_tokens", Integer, "Longest answer, in tokens."),
    required("parameters", JSONB, "Parameters as sent to the model."),
    optional("app_id", Id, "App whose instructions take the place of those that were sent; null when none do."),
    optional("app_model_config_number", Integer, "Number of the configuration that they are of."),
    required("status", Text, "requested, completed or failed."),
    optional("replayed_call_id", Id, "Call that was made, in model_calls; null before its end, or when none was."),
    optional("error_code", Text, "Error code; null on success."),
    optional("error", Text, "Error message; null on success."),
    required("correlation_id", Id, "Command that asked for it, or again last: its trace, in traces."),
    person(),
    required("created_by", Text, "Actor who asked for it."),
    required("created_at", Time, "When it was asked for."),
    required("updated_at", Time, "Time of the last change."),
)
replays.looked_up("model_call_id")
replays.sorted_by("open", postgresql_where=text("status = 'requested'"))
replays.sets(EndUser.Erased, {"error": None}, column="person_id")


@replays.makes(Replay.Requested, new=originator)
def requested(event: Replay.Requested, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "model_call_id": event.call,
        "provider": event.provider,
        "model": event.model,
        "max_tokens": event.max_tokens,
        "parameters": event.parameters,
        "app_id": event.app,
        "app_model_config_number": event.configuration,
        "status": "requested",
        "correlation_id": message.metadata.correlation,
        "person_id": message.metadata.person,
        "created_by": message.metadata.actor,
    }


@replays.changes(Replay.Completed)
def completed(row: Row, event: Replay.Completed, message: Recorded) -> Row:
    return {"status": "completed", "replayed_call_id": event.model_call}


@replays.changes(Replay.Failed)
def failed(row: Row, event: Replay.Failed, message: Recorded) -> Row:
    return {
        "status": "failed",
        "replayed_call_id": event.model_call,
        "error_code": event.code,
        "error": event.reason,
    }


@replays.changes(Replay.Retried)
def retried(row: Row, event: Replay.Retried, message: Recorded) -> Row:
    return {
        "status": "requested",
        "replayed_call_id": None,
        "error_code": None,
        "error": None,
        "correlation_id": message.metadata.correlation,
    }
