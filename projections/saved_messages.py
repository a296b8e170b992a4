"""Answers that their users saved: the table `saved_messages`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from projections.engine.columns import Id, Time, key, required
from projections.engine.read_model import ReadModel, Row
from projections.messages import message_of, messages

saved_messages = ReadModel(
    "saved_messages",
    "Answers that their users saved, to find them again; messages.from_end_user_id names the user. One that was "
    "unsaved has no row; the others go with their conversation or app.",
    key("id", "Saved message."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("message_id", Id, "Message with the answer, in messages."),
    required("created_by", Text, "Actor who saved it."),
    required("created_at", Time, "When it was saved."),
)
saved_messages.clears(Conversation.Unsaved, column="message_id", pick=message_of)
saved_messages.clears(Conversation.Deleted, column="conversation_id")
saved_messages.clears(App.Deleted, column="app_id")


@saved_messages.makes(Conversation.Saved, within=(messages, message_of))
def saved(event: Conversation.Saved, message: Recorded, answered: Row) -> Row:
    return {
        "id": derived_id(f"saved_message/{event.message}"),
        "app_id": event.app,
        "conversation_id": event.originator_id,
        "message_id": event.message,
        "created_by": message.metadata.actor,
    }
