"""Tags of apps and knowledge bases: the table `tags`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.chat.tags import Tags
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, required
from projections.engine.read_model import ReadModel, Row

tags = ReadModel(
    "tags",
    "Tags of apps and knowledge bases. A deleted tag has no row.",
    key("id", "Tag."),
    required("type", Id, "app or knowledge: the use of the tag."),
    required("name", Text, "Name, unique in its type."),
    required("created_by", Text, "Actor who created it."),
    required("created_at", Time, "When it was created."),
    required("updated_at", Time, "When it was created or renamed last."),
)


def tag_of(event: Tags.Created | Tags.Renamed | Tags.Deleted, message: Recorded) -> str:
    return event.tag


tags.clears(Tags.Deleted, pick=tag_of)


@tags.makes(Tags.Created, new=tag_of)
def created(event: Tags.Created, message: Recorded) -> Row:
    return {
        "id": event.tag,
        "type": event.originator_id,
        "name": event.name,
        "created_by": message.metadata.actor,
    }


@tags.changes(Tags.Renamed, pick=tag_of)
def renamed(row: Row, event: Tags.Renamed, message: Recorded) -> Row:
    return {"name": event.name}
