"""Apps and knowledge bases with their tags: the table `tag_bindings`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text

from domain.chat.app import App
from domain.chat.tags import Tags
from domain.knowledge.dataset import Dataset
from domain.log import Recorded, derived_id
from projections.engine.columns import Id, Time, key, required
from projections.engine.read_model import ReadModel, Row
from projections.tags import tag_of

tag_bindings = ReadModel(
    "tag_bindings",
    "Apps and knowledge bases with their tags. A tag that was taken away or deleted has no row, and a deleted app or "
    "knowledge base has none.",
    key("id", "Binding."),
    required("tag_id", Id, "Tag, in tags."),
    required("target_id", Id, "App, in apps, or knowledge base, in datasets, by the type of the tag."),
    required("created_by", Text, "Actor who gave the tag."),
    required("created_at", Time, "When the tag was given."),
)


def binding_of(event: Any, message: Recorded) -> str:
    return derived_id(f"tag_binding/{event.tag}/{event.target}")


tag_bindings.clears(Tags.Unbound, pick=binding_of)
tag_bindings.clears(Tags.Deleted, column="tag_id", pick=tag_of)
tag_bindings.clears(App.Deleted, column="target_id")
tag_bindings.clears(Dataset.Deleted, column="target_id")


@tag_bindings.makes(Tags.Bound)
def bound(event: Tags.Bound, message: Recorded) -> Row:
    return {
        "id": binding_of(event, message),
        "tag_id": event.tag,
        "target_id": event.target,
        "created_by": message.metadata.actor,
    }
