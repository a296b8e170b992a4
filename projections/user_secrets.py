"""End users with secrets of their own for toolsets: the table `user_secrets`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.access.end_user import EndUser
from domain.log import Recorded
from domain.tools.user_secrets import UserSecrets
from projections.engine.columns import Id, Time, key, person, required
from projections.engine.read_model import ReadModel, Row

user_secrets = ReadModel(
    "user_secrets",
    "Secrets of end users for toolsets: which there are. The secrets are in no table. A removed one has no row.",
    key("id", "Person, in end_users, and toolset: <person>/<toolset>."),
    required("toolset", Id, "Toolset, in toolsets."),
    person(),
    required("set_by", Text, "Actor who set it last."),
    required("created_at", Time, "When it was first set."),
    required("updated_at", Time, "When it was set last."),
)
user_secrets.clears(EndUser.Erased, column="person_id")


def _id(event: UserSecrets.Set | UserSecrets.Removed, message: Recorded) -> str:
    return f"{event.originator_id}/{event.toolset}"


user_secrets.clears(UserSecrets.Removed, pick=_id)


@user_secrets.makes(UserSecrets.Set, once=_id)
def created(event: UserSecrets.Set, message: Recorded) -> Row:
    return {
        "id": _id(event, message),
        "toolset": event.toolset,
        "person_id": event.originator_id,
        "set_by": message.metadata.actor,
    }


@user_secrets.changes(UserSecrets.Set, pick=_id)
def changed(row: Row, event: UserSecrets.Set, message: Recorded) -> Row:
    return {"set_by": message.metadata.actor}
