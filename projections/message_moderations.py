"""Verdicts of filters on messages: the table `message_moderations`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Double, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row
from projections.messages import message_of, messages

message_moderations = ReadModel(
    "message_moderations",
    "Verdicts of filters on questions and answers, one row an attempt, side and filter. They go with their "
    "conversation or app.",
    key("id", "Verdict."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("message_id", Id, "Message, in messages."),
    required("attempt", Integer, "Attempt at the answer, from 1."),
    required("side", Text, "input: question and inputs; output: sentences of the answer."),
    required("position", Integer, "Place of the filter in the app's configuration, from 0."),
    required("kind", Text, "Kind of the filter: words, model, http or plugin."),
    required("verdict", Text, "passed, flagged, or failed when a check could not be made."),
    required("action", Text, "Action that was taken: none, answer, replace or refuse."),
    required("checked", Integer, "Number of texts that were checked."),
    required("flagged", JSONB, "Flagged texts: query, inputs.<name>, or numbers of sentences, from 0."),
    optional("error_code", Text, "Error code of a check that failed; null if none did."),
    required("duration", Double, "Seconds that the checks took."),
    required("started_at", Time, "Time of the first check."),
    required("created_at", Time, "Time of the record."),
)
message_moderations.looked_up("message_id")
message_moderations.clears(Conversation.Deleted, column="conversation_id")
message_moderations.clears(App.Deleted, column="app_id")


@message_moderations.makes(Conversation.Moderated, within=(messages, message_of))
def moderated(event: Conversation.Moderated, message: Recorded, of: Row) -> list[Row]:
    return [
        {
            "id": derived_id(f"{event.message}/{message.metadata.correlation}/{event.attempt}/{number}"),
            "app_id": of["app_id"],
            "conversation_id": event.originator_id,
            "message_id": event.message,
            "attempt": event.attempt,
            "side": verdict["where"],
            "position": verdict["position"],
            "kind": verdict["kind"],
            "verdict": verdict["verdict"],
            "action": verdict["action"],
            "checked": verdict["checked"],
            "flagged": verdict["flagged"],
            "error_code": verdict["code"],
            "duration": verdict["duration_ms"] / 1000,
            "started_at": datetime.fromisoformat(verdict["started_at"]),
        }
        for number, verdict in enumerate(event.verdicts)
    ]
