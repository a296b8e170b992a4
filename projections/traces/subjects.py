"""The messages, documents, replays and runs that traces are about: the table `trace_subjects`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY

from domain.access.end_user import EndUser
from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Recorded
from domain.models.replay import Replay
from domain.workflows.run import Run
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator
from projections.engine.values import Values
from projections.messages import message_of
from projections.values.previews import preview, with_words

subjects = ReadModel(
    "trace_subjects",
    "Messages, documents, replays and runs, each with the trace of its newest attempt. They outlive what they stand "
    "for.",
    key("id", "Message, document, replay or run."),
    required("noun", Text, "message, document, replay or run."),
    required("trace_id", Id, "Trace of the newest attempt, in traces."),
    optional("dataset_id", Id, "Dataset of the document; null where there is none."),
    optional("end_user", Text, "Name of the user who asked; null where there is none, or when the person was erased."),
    person(),
    required("question", Text, "Beginning of the question, or name of the document, or inputs of the run, masked."),
    required("words", ARRAY(Text), "Words of it, stemmed."),
    required("created_at", Time, "Time of the first attempt's request."),
    required("updated_at", Time, "Time of the last change."),
)
subjects.sets(EndUser.Erased, {"end_user": None, "question": "", "words": []}, column="person_id")


def _row(event: Any, message: Recorded, noun: str, id: str, text: str, values: Values, **columns: Any) -> Row:
    return {
        "id": id,
        "noun": noun,
        "trace_id": message.metadata.correlation,
        "person_id": message.metadata.person,
        **_text(text, values),
        **columns,
    }


def _text(text: str, values: Values) -> Row:
    return {"question": preview(text, values.masking), "words": with_words((), [text], values.words)}


@subjects.makes(Conversation.Asked, new=message_of, values=True)
def asked(event: Conversation.Asked, message: Recorded, values: Values) -> Row:
    return _row(event, message, "message", event.message, event.query, values, end_user=event.user)


@subjects.makes(Document.Uploaded, new=originator, values=True)
def uploaded(event: Document.Uploaded, message: Recorded, values: Values) -> Row:
    return _row(event, message, "document", event.originator_id, event.name, values, dataset_id=event.dataset)


@subjects.makes(Replay.Requested, new=originator, values=True)
def requested(event: Replay.Requested, message: Recorded, values: Values) -> Row:
    return _row(event, message, "replay", event.originator_id, "", values)


@subjects.makes(Run.Started, new=originator, values=True)
def run_started(event: Run.Started, message: Recorded, values: Values) -> Row:
    return _row(event, message, "run", event.originator_id, texts_of(event.inputs), values, end_user=event.user)


def texts_of(values: Mapping[str, Any]) -> str:
    """The texts among the values of a run."""
    return " · ".join(text for value in values.values() if isinstance(text := value.get("data"), str) and text)


@subjects.changes(Document.Renamed, values=True)
def renamed(row: Row, event: Document.Renamed, message: Recorded, values: Values) -> Row:
    return _text(event.name, values)


@subjects.changes(Conversation.Retried, pick=message_of)
@subjects.changes(Document.Retried, Document.Reprocessed, Replay.Retried)
def retried(row: Row, event: Any, message: Recorded) -> Row:
    return {"trace_id": message.metadata.correlation}
