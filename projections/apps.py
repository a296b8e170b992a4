"""Apps: the table `apps`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.chat.app import App
from domain.log import Recorded
from projections.app_model_configs import configuration_id
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

apps = ReadModel(
    "apps",
    "Apps: each answers questions with a model, a prompt and datasets. A deleted app has no row.",
    key("id", "App."),
    required("name", Text, "Name, as given."),
    required("description", Text, "Description, as given; empty when none was."),
    required("mode", Text, "chat or completion."),
    optional("app_model_config_id", Id, "Newest configuration, in app_model_configs; null before the first."),
    required("created_by", Text, "Actor who created it."),
    required("created_at", Time, "When it was created."),
    required("updated_at", Time, "Time of the last change."),
)
apps.clears(App.Deleted)


@apps.makes(App.Created, new=originator)
def created(event: App.Created, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "name": event.name,
        "description": event.description,
        "mode": event.mode,
        "created_by": message.metadata.actor,
    }


@apps.changes(App.Configured)
def configured(row: Row, event: App.Configured, message: Recorded) -> Row:
    return {"app_model_config_id": configuration_id(event.originator_id, event.number)}
