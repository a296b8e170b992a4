"""Every request that a run of a workflow made to a server: the table `effects`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Double, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.log import Recorded
from domain.workflows.effect import Effect
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

effects = ReadModel(
    "effects",
    "Requests of runs to servers, each recorded before it is sent. Secrets are not in them.",
    key("id", "Request."),
    required("kind", Text, "http."),
    required("method", Text, "Method, like GET."),
    required("server", Text, "Address of the server, as host:port."),
    required("request", JSONB, "url, params, headers and body; empty when the person was erased."),
    required("status", Text, "requested, completed, failed or cancelled; the outcome of the first is unknown."),
    required("cause_noun", Text, "Noun that it was made for: run."),
    required("cause_id", Id, "Run that it was made for, in workflow_runs."),
    required("step", Text, "Call of the run: the step, the try and the number of the call in it."),
    required("app_id", Id, "App of the run."),
    required("attempt", Integer, "Attempt at the run that sent it last, from 1."),
    required("idempotent", Boolean, "It may be sent again when its outcome is unknown."),
    optional("status_code", Integer, "Status of the response; null without one."),
    required("headers", JSONB, "Headers of the response; empty without one."),
    required("body", Text, "Body of the response, where it is a text; else empty."),
    optional("body_digest", Text, "Blob with the body, sealed, where it is no text; null otherwise."),
    optional("body_size", BigInteger, "Size of the body in bytes; null without a response."),
    optional("error_code", Text, "Error code; null on success. `lost`: it is unknown whether it did something."),
    optional("error", Text, "Error message; null on success."),
    optional("duration_ms", Double, "Milliseconds to the end; null when it is not known."),
    required("correlation_id", Id, "Command that started the run: its trace, in traces."),
    person(),
    required("created_at", Time, "Time of the record, just before it was sent."),
    optional("finished_at", Time, "When it ended; null while it has not."),
    required("updated_at", Time, "Time of the last change."),
)
effects.looked_up("cause_id")
effects.sorted_by("open", postgresql_where=text("status = 'requested'"))
effects.sets(EndUser.Erased, {"request": {}, "headers": {}, "body": "", "error": None}, column="person_id")


@effects.makes(Effect.Requested, new=originator)
def requested(event: Effect.Requested, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "kind": event.kind,
        "method": event.method,
        "server": event.server,
        "request": event.request,
        "status": "requested",
        "cause_noun": event.cause_noun,
        "cause_id": event.cause_id,
        "step": event.step,
        "app_id": event.app,
        "attempt": event.attempt,
        "idempotent": event.idempotent,
        "headers": {},
        "body": "",
        "correlation_id": message.metadata.correlation,
        "person_id": message.metadata.person,
    }


@effects.changes(Effect.Begun)
def begun(row: Row, event: Effect.Begun, message: Recorded) -> Row:
    return {"status": "requested", "attempt": event.attempt, "finished_at": None, "duration_ms": None}


@effects.changes(Effect.Completed)
def completed(row: Row, event: Effect.Completed, message: Recorded) -> Row:
    return {
        "status": "completed",
        "status_code": event.status,
        "headers": event.headers,
        "body": event.body,
        "body_digest": event.digest,
        "body_size": event.size,
        "duration_ms": event.duration_ms,
        "finished_at": event.timestamp,
    }


@effects.changes(Effect.Failed)
def failed(row: Row, event: Effect.Failed, message: Recorded) -> Row:
    return {
        "status": "failed",
        "error_code": event.code,
        "error": event.reason or None,
        "duration_ms": event.duration_ms,
        "finished_at": event.timestamp,
    }


@effects.changes(Effect.Cancelled)
def cancelled(row: Row, event: Effect.Cancelled, message: Recorded) -> Row:
    return {"status": "cancelled", "duration_ms": event.duration_ms, "finished_at": event.timestamp}
