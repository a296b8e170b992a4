"""End users of apps: the table `end_users`."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Text

from domain.access.actor import OPERATOR, VIEWER
from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from projections.apps import apps
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row

TYPES = {OPERATOR: "debugger", VIEWER: "debugger"}
"""Dify's types of end users by door; of all other doors, it is `service-api`."""


@lru_cache(maxsize=1024)
def end_user_id(app: str, user: str, door: str | None) -> str:
    """The id of a user of an app behind a door; without one, it is that of earlier versions."""
    return derived_id(f"end_user/{app}/{user}/{door}" if door else f"end_user/{app}/{user}")


end_users = ReadModel(
    "end_users",
    "End users of apps, one row for each app and door at which a user name asked. The person of a name is the same at "
    "all apps and doors. Rows go when the app is deleted, or the person is erased.",
    key("id", "End user."),
    required("app_id", Id, "App that was asked, in apps."),
    required("type", Text, "As in Dify: service-api, or debugger for the doors operator and viewer."),
    optional("door", Text, "Door that the user's commands came through: bus, operator or viewer; null for older ones."),
    required("session_id", Text, "User, as named by who asks for them."),
    person(),
    required("created_at", Time, "When the user first asked the app through the door."),
)
end_users.clears(App.Deleted, column="app_id")
end_users.clears(EndUser.Erased, column="person_id")


def end_user_of(event: Conversation.Started | Conversation.Asked, message: Recorded) -> str | None:
    """The end user who asks; None when the person was erased."""
    return end_user_id(event.app, event.user, message.metadata.door) if event.user else None


@end_users.makes(
    Conversation.Started,
    Conversation.Asked,
    within=(apps, lambda event, message: event.app),
    once=end_user_of,
)
def asked(event: Conversation.Started | Conversation.Asked, message: Recorded, app: Row) -> Row:
    return {
        "id": end_user_of(event, message),
        "app_id": event.app,
        "type": TYPES.get(message.metadata.door or "", "service-api"),
        "door": message.metadata.door,
        "session_id": event.user,
        "person_id": message.metadata.person,
    }
