"""Graphs of apps: the table `workflows`."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.chat.app import App
from domain.log import Recorded
from domain.workflows.workflow import Workflow
from projections.apps import apps, workflow_id
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

workflows = ReadModel(
    "workflows",
    "Graphs of apps: a row for the draft of each, which changes, and one for each version, which does not.",
    key("id", "Draft or version."),
    required("app_id", Id, "App, in apps."),
    required("type", Text, "workflow; chat: its runs answer messages."),
    required("version", Text, "draft, or the number of the version."),
    required("number", Integer, "Number of the version, from 1; 0: the draft."),
    required("document", Text, "SHA-256 of the blob with the document as JSON; `replaces` of workflow.save names it."),
    required("graph_digest", Text, "SHA-256 of the blob with the normalised graph as JSON: what runs."),
    optional("file", Text, "SHA-256 of the blob with the file that it was imported from; null for none."),
    required("graph", JSONB, "nodes, edges and viewport, as they were saved."),
    required("features", JSONB, "Functions around the runs, as they were saved."),
    required("environment_variables", JSONB, "Variables of the environment, as they were saved; secrets are empty."),
    required("conversation_variables", JSONB, "Variables of conversations, as they were saved."),
    required("secrets", JSONB, "Names of the secret variables that have a value."),
    required("marked_name", Text, "Name of the version; empty for none, and for the draft."),
    required("marked_comment", Text, "Comment on the version; empty for none, and for the draft."),
    required("created_by", Text, "Actor who saved the draft last, or published the version."),
    required("created_at", Time, "When the draft was saved last, or the version published."),
)
workflows.clears(App.Deleted, column="app_id")


def blob_of(event: Workflow.DraftSaved | Workflow.Published | Workflow.Restored, message: Recorded) -> str:
    return event.document


@workflows.makes(Workflow.DraftSaved, Workflow.Restored, within=(apps, originator), blob=blob_of)
def saved(event: Workflow.DraftSaved | Workflow.Restored, message: Recorded, app: Row, blob: bytes) -> Row:
    unnamed = {"number": 0, "version": "draft", "marked_name": "", "marked_comment": ""}
    return {**_content(event, app, blob, 0), **unnamed, "created_by": message.metadata.actor}


@workflows.makes(Workflow.Published, within=(apps, originator), blob=blob_of)
def published(event: Workflow.Published, message: Recorded, app: Row, blob: bytes) -> Row:
    return {
        **_content(event, app, blob, event.number),
        "number": event.number,
        "version": str(event.number),
        "marked_name": event.name,
        "marked_comment": event.comment,
        "created_by": message.metadata.actor,
    }


def _content(
    event: Workflow.DraftSaved | Workflow.Published | Workflow.Restored, app: Row, blob: bytes, number: int
) -> Row:
    workflow: dict[str, Any] = json.loads(blob)["workflow"]
    return {
        "id": workflow_id(event.originator_id, number),
        "app_id": event.originator_id,
        "type": "chat" if app["mode"] == "advanced-chat" else "workflow",
        "document": event.document,
        "graph_digest": event.graph,
        "file": event.file,
        "graph": workflow["graph"],
        "features": workflow.get("features") or {},
        "environment_variables": workflow.get("environment_variables") or [],
        "conversation_variables": workflow.get("conversation_variables") or [],
        "secrets": sorted(event.secrets),
    }
