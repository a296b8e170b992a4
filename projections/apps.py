"""Apps: the table `apps`."""

from __future__ import annotations

from sqlalchemy import Boolean, Integer, Text

from domain.chat.app import App
from domain.chat.site import Icon
from domain.log import Recorded, derived_id
from domain.workflows.workflow import Workflow
from projections.app_model_configs import configuration_id
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

apps = ReadModel(
    "apps",
    "Apps: each answers questions with a model, a prompt and datasets. A deleted app has no row.",
    key("id", "App."),
    required("name", Text, "Name, as given."),
    required("description", Text, "Description, as given; empty when none was."),
    required("mode", Text, "chat, completion, agent-chat, workflow or advanced-chat."),
    optional("icon_type", Text, "emoji or image; null without an icon."),
    optional("icon", Text, "Emoji, or SHA-256 of the image's blob; null without an icon."),
    optional("icon_background", Text, "Background, like #ffead5; null for none."),
    optional("app_model_config_id", Id, "Newest configuration, in app_model_configs; null before the first."),
    optional("workflow_id", Id, "Newest published version, in workflows; null before the first."),
    optional("file", Text, "SHA-256 of the blob with the file that it was imported from; null for none."),
    optional("file_configuration", Integer, "Number of the configuration that was made of that file; 0 for none."),
    required("triggers_enabled", Boolean, "True if the triggers of its workflow begin runs."),
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
        "triggers_enabled": True,
        "created_by": message.metadata.actor,
    }


@apps.changes(App.Renamed)
def renamed(row: Row, event: App.Renamed, message: Recorded) -> Row:
    return {"name": event.name, "description": event.description}


@apps.changes(App.IconSet)
def icon_set(row: Row, event: App.IconSet, message: Recorded) -> Row:
    return icon_columns(event.icon)


def icon_columns(icon: Icon | None) -> Row:
    columns = {"icon_type": "type", "icon": "icon", "icon_background": "background"}
    return {column: icon and icon[name] for column, name in columns.items()}  # type: ignore[literal-required]


@apps.changes(App.FileKept)
def file_kept(row: Row, event: App.FileKept, message: Recorded) -> Row:
    return {"file": event.file, "file_configuration": event.configuration}


@apps.changes(App.TriggersSet)
def triggers_set(row: Row, event: App.TriggersSet, message: Recorded) -> Row:
    return {"triggers_enabled": event.enabled}


def workflow_id(app: str, number: int) -> str:
    """The id of a version in `workflows`; 0 for the draft."""
    return derived_id(f"workflow/{app}/{number}")


@apps.changes(Workflow.Published)
def published(row: Row, event: Workflow.Published, message: Recorded) -> Row:
    return {"workflow_id": workflow_id(event.originator_id, event.number)}


@apps.changes(App.Configured)
def configured(row: Row, event: App.Configured, message: Recorded) -> Row:
    return {"app_model_config_id": configuration_id(event.originator_id, event.number)}
