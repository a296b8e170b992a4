"""Conversations that their users pinned: the table `pinned_conversations`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from projections.conversations import conversations
from projections.engine.columns import Id, Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

pinned_conversations = ReadModel(
    "pinned_conversations",
    "Conversations that their users pinned, to find them first; conversations.from_end_user_id names the user. One "
    "that was unpinned or deleted, or whose app was deleted, has no row.",
    key("id", "Pin."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("created_by", Text, "Actor who pinned it."),
    required("created_at", Time, "When it was pinned."),
)
pinned_conversations.clears(Conversation.Unpinned, column="conversation_id")
pinned_conversations.clears(Conversation.Deleted, column="conversation_id")
pinned_conversations.clears(App.Deleted, column="app_id")


@pinned_conversations.makes(Conversation.Pinned, within=(conversations, originator))
def pinned(event: Conversation.Pinned, message: Recorded, conversation: Row) -> Row:
    return {
        "id": derived_id(f"pinned_conversation/{event.originator_id}"),
        "app_id": event.app,
        "conversation_id": event.originator_id,
        "created_by": message.metadata.actor,
    }
