"""Recordings and their texts: the table `transcriptions`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Text, text

from domain.access.end_user import EndUser
from domain.chat.transcription import Transcription
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

transcriptions = ReadModel(
    "transcriptions",
    "Recordings that were transcribed for an app, one row each.",
    key("id", "Transcription."),
    required("app_id", Id, "App, in apps unless it was deleted since."),
    required("hash", Id, "Digest of the blob with the recording."),
    required("mime_type", Text, "Media type by its content."),
    required("size", BigInteger, "Size in bytes."),
    required("provider", Text, "Provider of the model."),
    required("model", Text, "Name of the model at its provider."),
    required("status", Text, "requested, completed or failed."),
    required("text", Text, "Text; empty before the end, and when the person was erased."),
    optional("language", Text, "Language, as asked for, then as the server names it; null when neither did."),
    optional("seconds", Double, "Length of the recording in seconds; null when the server does not tell."),
    optional("model_call_id", Id, "Call that gave the text, in model_calls; null before."),
    optional("error_code", Text, "Error code; null on success."),
    optional("error", Text, "Error message; null on success."),
    required("correlation_id", Id, "Command that asked for it, or again last: its trace, in traces."),
    person(),
    required("created_by", Text, "Actor who asked for it."),
    required("created_at", Time, "When it was asked for."),
    required("updated_at", Time, "Time of the last change."),
)
transcriptions.sorted_by("open", postgresql_where=text("status = 'requested'"))
transcriptions.sets(EndUser.Erased, {"text": "", "error": None}, column="person_id")


@transcriptions.makes(Transcription.Requested, new=originator)
def requested(event: Transcription.Requested, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "app_id": event.app,
        "hash": event.digest,
        "mime_type": event.media_type,
        "size": event.size,
        "provider": event.provider,
        "model": event.model,
        "status": "requested",
        "text": "",
        "language": event.language or None,
        "correlation_id": message.metadata.correlation,
        "person_id": message.metadata.person,
        "created_by": message.metadata.actor,
    }


@transcriptions.changes(Transcription.Completed)
def completed(row: Row, event: Transcription.Completed, message: Recorded) -> Row:
    return {
        "status": "completed",
        "text": event.text,
        "language": event.spoken_language or row["language"],
        "seconds": event.seconds,
        "model_call_id": event.model_call,
    }


@transcriptions.changes(Transcription.Failed)
def failed(row: Row, event: Transcription.Failed, message: Recorded) -> Row:
    return {"status": "failed", "error_code": event.code, "error": event.reason}


@transcriptions.changes(Transcription.Retried)
def retried(row: Row, event: Transcription.Retried, message: Recorded) -> Row:
    return {"status": "requested", "error_code": None, "error": None, "correlation_id": message.metadata.correlation}
