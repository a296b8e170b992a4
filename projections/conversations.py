"""Conversations: the table `conversations`."""

from __future__ import annotations

from sqlalchemy import Integer, Text

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded
from projections.apps import apps
from projections.end_users import end_user_of
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

conversations = ReadModel(
    "conversations",
    "Conversations of end users with apps. A deleted conversation, or one with a deleted app, has no row.",
    key("id", "Conversation."),
    required("app_id", Id, "App that answers, in apps."),
    required("name", Text, "Name: as given, or made from the first question; empty when the person was erased."),
    required("from_end_user_id", Id, "End user who began it, in end_users; empty when the person was erased."),
    optional("forked_from_conversation_id", Id, "Conversation that this one goes on from; null when it is not a fork."),
    optional("forked_from_message_id", Id, "Message of that conversation after which this one goes on."),
    person(),
    required("dialogue_count", Integer, "Questions asked so far."),
    required("created_at", Time, "When it began."),
    required("updated_at", Time, "When a question was last asked, or the name changed."),
)
conversations.clears(Conversation.Deleted)
conversations.clears(App.Deleted, column="app_id")
conversations.sets(EndUser.Erased, {"name": "", "from_end_user_id": ""}, column="person_id")


@conversations.makes(Conversation.Started, within=(apps, lambda event, message: event.app), new=originator)
def started(event: Conversation.Started, message: Recorded, app: Row) -> Row:
    return {
        "id": event.originator_id,
        "app_id": event.app,
        "name": event.name,
        "from_end_user_id": end_user_of(event, message) or "",
        "dialogue_count": 0,
        "person_id": message.metadata.person,
    }


@conversations.changes(Conversation.Forked)
def forked(row: Row, event: Conversation.Forked, message: Recorded) -> Row:
    return {"forked_from_conversation_id": event.conversation, "forked_from_message_id": event.message}


@conversations.changes(Conversation.Asked)
def asked(row: Row, event: Conversation.Asked, message: Recorded) -> Row:
    return {"dialogue_count": row["dialogue_count"] + 1}


@conversations.changes(Conversation.Renamed)
def renamed(row: Row, event: Conversation.Renamed, message: Recorded) -> Row:
    return {"name": event.name}
