"""Texts and their audio: the table `speeches`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.chat.speech import Speech
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

speeches = ReadModel(
    "speeches",
    "Texts that were spoken for an app, mostly answers, one row each.",
    key("id", "Speech."),
    required("app_id", Id, "App, in apps unless it was deleted since."),
    optional("conversation_id", Id, "Conversation of the message; null for a text."),
    optional("message_id", Id, "Message whose answer is spoken; null for a text."),
    required("text", Text, "Text; empty when the person was erased."),
    required("provider", Text, "Provider of the model."),
    required("model", Text, "Name of the model at its provider."),
    required("voice", Text, "Voice, as the model names it."),
    required("autoplay", Boolean, "The audio is sent in live frames while it arrives."),
    required("status", Text, "requested, completed or failed."),
    optional("hash", Id, "Digest of the blob with the audio; null before the end."),
    optional("mime_type", Text, "Media type of the audio; null before the end."),
    optional("size", BigInteger, "Size in bytes; null before the end."),
    optional("model_call_ids", JSONB, "Calls that gave the audio, in model_calls: a list of ids; null before the end."),
    optional("error_code", Text, "Error code; null on success."),
    optional("error", Text, "Error message; null on success."),
    required("correlation_id", Id, "Command that asked for it, or again last: its trace, in traces."),
    person(),
    required("created_by", Text, "Actor who asked for it."),
    required("created_at", Time, "When it was asked for."),
    required("updated_at", Time, "Time of the last change."),
)
speeches.looked_up("message_id")
speeches.sorted_by("open", postgresql_where=text("status = 'requested'"))
speeches.sets(EndUser.Erased, {"text": "", "error": None}, column="person_id")


@speeches.makes(Speech.Requested, new=originator)
def requested(event: Speech.Requested, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "app_id": event.app,
        "conversation_id": event.conversation,
        "message_id": event.message,
        "text": event.text,
        "provider": event.provider,
        "model": event.model,
        "voice": event.voice,
        "autoplay": event.autoplay,
        "status": "requested",
        "correlation_id": message.metadata.correlation,
        "person_id": message.metadata.person,
        "created_by": message.metadata.actor,
    }


@speeches.changes(Speech.Completed)
def completed(row: Row, event: Speech.Completed, message: Recorded) -> Row:
    return {
        "status": "completed",
        "hash": event.digest,
        "mime_type": event.media_type,
        "size": event.size,
        "model_call_ids": event.model_calls,
    }


@speeches.changes(Speech.Failed)
def failed(row: Row, event: Speech.Failed, message: Recorded) -> Row:
    return {"status": "failed", "error_code": event.code, "error": event.reason}


@speeches.changes(Speech.Retried)
def retried(row: Row, event: Speech.Retried, message: Recorded) -> Row:
    return {"status": "requested", "error_code": None, "error": None, "correlation_id": message.metadata.correlation}
