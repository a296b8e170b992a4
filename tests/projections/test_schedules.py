from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

from domain.aggregate import new_id
from domain.chat.app import App
from domain.log import Commit
from domain.workflows.run import Run
from domain.workflows.workflow import Content, Workflow
from handlers.commands.runs import started
from projections.schedules import schedules
from tests.projections.history import History

HOURLY = {"type": "trigger-schedule", "mode": "cron", "cron_expression": "30 * * * *", "timezone": "Asia/Kolkata"}


def stored(history: History, data: dict[str, Any]) -> Content:
    document = {"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": [{"id": "t", "data": data}], "edges": []}}}
    blob = json.dumps(document).encode()
    digest = hashlib.sha256(blob).hexdigest()
    history.blobs[history.tenant, digest] = blob
    return Content(document=digest, graph=digest, file=None, secrets={})


def publish(history: History, workflow: Workflow, data: dict[str, Any]) -> None:
    content = stored(history, data)
    workflow.save(history.now, replaces=workflow.draft and workflow.draft["document"], **content)
    workflow.publish(history.now, graph=content["graph"], name="", comment="")
    history.record(workflow)


def run(history: History, app: App, version: int, trigger: str = "schedule") -> str:
    fields = started(app.id, "g" * 64, version, trigger=trigger, user="", inputs={}, system={}, entry="t")
    run = Run.begin(Run.Started, new_id(), history.now, **fields)
    history.record(run)
    return run.id


def test_the_schedule_of_the_newest_version_has_a_row() -> None:
    history = History()
    app = App.begin(App.Created, new_id(), history.now, name="Report", description="", mode="workflow")
    history.record(app)
    workflow = Workflow.begin(Workflow.Begun, app.id, history.now)
    publish(history, workflow, HOURLY)
    [row] = history.rows(schedules)
    commit = history.streams["EVENTS"][-1]
    assert isinstance(commit, Commit)
    known = {name: row[name] for name in ("app_id", "version", "node_id", "cron", "timezone", "enabled", "last_run_id")}
    assert known == {
        "app_id": app.id,
        "version": 1,
        "node_id": "t",
        "cron": "30 * * * *",
        "timezone": "Asia/Kolkata",
        "enabled": True,
        "last_run_id": None,
    }
    assert timedelta(0) < row["next_at"] - commit.at <= timedelta(hours=1)
    assert row["next_at"].minute == 0
    run(history, app, 1, "app")
    assert history.rows(schedules)[0]["last_run_id"] is None
    id = run(history, app, 1)
    assert history.rows(schedules)[0]["last_run_id"] == id
    app.set_triggers(history.now, enabled=False)
    history.record(app)
    assert history.rows(schedules)[0]["enabled"] is False
    publish(history, workflow, {**HOURLY, "cron_expression": "@daily"})
    run(history, app, 1)
    [row] = history.rows(schedules)
    assert (row["version"], row["cron"], row["enabled"], row["last_run_id"]) == (2, "@daily", False, None)
    publish(history, workflow, {"type": "start"})
    assert history.rows(schedules) == []
