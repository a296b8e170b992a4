from __future__ import annotations

import hashlib
import json
from typing import Any

from domain.aggregate import new_id
from domain.chat.app import App
from domain.workflows.workflow import Content, Workflow
from projections.apps import apps, workflow_id
from projections.workflows import workflows
from tests.projections.history import History

GRAPH: dict[str, Any] = {"nodes": [{"id": "s", "data": {"type": "start"}}], "edges": []}


def stored(history: History, **workflow: Any) -> Content:
    """The content of a draft with these parts."""
    blob = json.dumps({"workflow": {"graph": GRAPH, **workflow}}).encode()
    digest = hashlib.sha256(blob).hexdigest()
    history.blobs[history.tenant, digest] = blob
    return Content(document=digest, graph="g" * 64, file=None, secrets={"KEY": "sealed"})


def chart(history: History, mode: str = "workflow") -> App:
    app = App.begin(App.Created, new_id(), history.now, name="Chart", description="", mode=mode)
    history.record(app)
    return app


def test_given_a_draft_and_its_version_when_the_draft_changes_then_the_version_stays() -> None:
    history = History()
    app = chart(history, "advanced-chat")
    workflow = Workflow.begin(Workflow.Begun, app.id, history.now)
    first = stored(history, features={"opening_statement": "Hi"}, environment_variables=[{"name": "KEY"}])
    workflow.save(history.now, replaces=None, **first)
    workflow.publish(history.now, graph="g" * 64, name="One", comment="First")
    workflow.save(history.now, replaces=first["document"], **stored(history))
    history.record(workflow)
    draft, version = sorted(history.rows(workflows), key=lambda row: int(row["number"]))
    assert version | {"created_at": None, "log_position": None} == {
        "tenant_id": "default",
        "id": workflow_id(app.id, 1),
        "app_id": app.id,
        "type": "chat",
        "version": "1",
        "number": 1,
        "document": first["document"],
        "graph_digest": "g" * 64,
        "file": None,
        "graph": GRAPH,
        "features": {"opening_statement": "Hi"},
        "environment_variables": [{"name": "KEY"}],
        "conversation_variables": [],
        "secrets": ["KEY"],
        "marked_name": "One",
        "marked_comment": "First",
        "created_by": "ada",
        "created_at": None,
        "log_position": None,
    }
    assert (draft["id"], draft["version"], draft["marked_name"]) == (workflow_id(app.id, 0), "draft", "")
    assert (draft["features"], draft["environment_variables"]) == ({}, [])
    (row,) = history.rows(apps)
    assert row["workflow_id"] == version["id"]
    workflow.restore(history.now, number=1)
    history.record(workflow)
    assert {row["document"] for row in history.rows(workflows)} == {first["document"]}


def test_given_a_workflow_when_its_app_is_deleted_then_its_rows_go_and_none_comes_back() -> None:
    history = History()
    app = chart(history)
    workflow = Workflow.begin(Workflow.Begun, app.id, history.now)
    first = stored(history)
    workflow.save(history.now, replaces=None, **first)
    history.record(workflow)
    app.delete(history.now)
    history.record(app)
    workflow.save(history.now, replaces=first["document"], **stored(history, features={"late": True}))
    history.record(workflow)
    assert history.rows(workflows) == []


def test_given_an_app_when_its_file_is_kept_then_its_row_names_it() -> None:
    history = History()
    app = history.app()
    history.configure(app, "Answer.")
    app.keep_file(history.now, file="f" * 64)
    history.record(app)
    (row,) = history.rows(apps)
    assert (row["file"], row["file_configuration"]) == ("f" * 64, 1)
