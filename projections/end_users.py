"""End users of apps: the table `end_users`."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Text

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded
from projections.apps import apps
from projections.engine.columns import Id, Time, derived_id, key, person, required
from projections.engine.read_model import ReadModel, Row


@lru_cache(maxsize=1024)
def end_user_id(app: str, user: str) -> str:
    return derived_id(f"end_user/{app}/{user}")


end_users = ReadModel(
    "end_users",
    "End users of apps, one row for each user name that asked an app. They go when the app is deleted, or the person "
    "is erased.",
    key("id", "End user."),
    required("app_id", Id, "App that was asked, in apps."),
    required("session_id", Text, "User, as named by who asks for them."),
    person(),
    required("created_at", Time, "When the user first asked the app."),
)
end_users.clears(App.Deleted, column="app_id")
end_users.clears(EndUser.Erased, column="person_id")


@end_users.makes(
    Conversation.Started,
    within=(apps, lambda event, message: event.app),
    once=lambda event, message: end_user_id(event.app, event.user),
)
def started(event: Conversation.Started, message: Recorded, app: Row) -> Row:
    return {
        "id": end_user_id(event.app, event.user),
        "app_id": event.app,
        "session_id": event.user,
        "person_id": message.metadata.person,
    }
