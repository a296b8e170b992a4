"""Ratings of answers: the table `message_feedbacks`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from projections.engine.columns import Id, Time, key, person, required
from projections.engine.read_model import ReadModel, Row
from projections.messages import message_of, messages

message_feedbacks = ReadModel(
    "message_feedbacks",
    "Ratings of answers, at most one a message: the newest. A rating that was taken back has no row; "
    "the others go with their conversation or app.",
    key("id", "Feedback."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("message_id", Id, "Message that was rated, in messages."),
    required("rating", Text, "like or dislike."),
    required("content", Text, "Words that came with it; empty when none did, or when the person was erased."),
    required("created_by", Text, "Actor who rated."),
    person(),
    required("created_at", Time, "When the message was rated."),
)
message_feedbacks.clears(Conversation.Rated, column="message_id", pick=message_of)
message_feedbacks.clears(Conversation.Deleted, column="conversation_id")
message_feedbacks.clears(App.Deleted, column="app_id")
message_feedbacks.sets(EndUser.Erased, {"content": ""}, column="person_id")


@message_feedbacks.makes(Conversation.Rated, within=(messages, message_of))
def rated(event: Conversation.Rated, message: Recorded, rated: Row) -> list[Row]:
    if event.rating is None:
        return []
    return [
        {
            "id": derived_id(f"message_feedback/{event.message}"),
            "app_id": event.app,
            "conversation_id": event.originator_id,
            "message_id": event.message,
            "rating": event.rating,
            "content": event.content,
            "created_by": message.metadata.actor,
            "person_id": rated["person_id"],
        }
    ]
