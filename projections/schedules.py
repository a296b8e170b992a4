"""Schedules of workflows: the table `schedules`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from sqlalchemy import Boolean, Integer, Text, text

from domain.chat.app import App
from domain.log import Recorded
from domain.workflows.graph import loaded_from
from domain.workflows.run import Run
from domain.workflows.schedule import Schedule, of_graph
from domain.workflows.workflow import Workflow
from projections.apps import apps
from projections.engine.columns import Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator
from projections.workflows import blob_of

schedules = ReadModel(
    "schedules",
    "Times at which the newest versions of workflows run, one row for each app with a schedule.",
    key("app_id", "App, in apps."),
    required("version", Integer, "Number of the version."),
    required("node_id", Text, "Node of the trigger."),
    required("cron", Text, "Minute, hour, day, month and weekday."),
    required("timezone", Text, "Time zone of these."),
    required("enabled", Boolean, "True if it begins runs."),
    optional("next_at", Time, "Next time, as of the last run or change; in the past: no worker ran then."),
    optional("last_at", Time, "When it last began a run of this version; null before the first."),
    optional("last_run_id", Text, "That run, in workflow_runs; null likewise."),
    required("updated_at", Time, "Time of the last change."),
)
schedules.clears(App.Deleted)
schedules.clears(Workflow.Published)
schedules.sorted_by("due", "next_at", postgresql_where=text("enabled"))


@schedules.makes(Workflow.Published, within=(apps, originator), blob=blob_of)
def published(event: Workflow.Published, message: Recorded, app: Row, blob: bytes) -> Iterator[Row]:
    if app["mode"] != "workflow":
        return
    if found := of_graph(loaded_from({"graph": json.loads(blob)["workflow"]["graph"]}, app["mode"])):
        node, schedule = found
        yield {
            "app_id": event.originator_id,
            "version": event.number,
            "node_id": node,
            "cron": schedule.cron,
            "timezone": schedule.timezone,
            "enabled": app["triggers_enabled"],
            "next_at": schedule.after(event.timestamp),
        }


@schedules.changes(App.TriggersSet)
def triggers_set(row: Row, event: App.TriggersSet, message: Recorded) -> Row:
    return {"enabled": event.enabled, "next_at": _of_row(row).after(event.timestamp)}


def app_of(event: Run.Started, message: Recorded) -> str | None:
    return event.app if event.trigger == "schedule" else None


@schedules.changes(Run.Started, pick=app_of)
def ran(row: Row, event: Run.Started, message: Recorded) -> Row | None:
    if event.source or event.version != row["version"]:
        return None
    run = {"last_at": event.timestamp, "last_run_id": event.originator_id}
    return {**run, "next_at": _of_row(row).after(event.timestamp)}


def _of_row(row: Row) -> Schedule:
    return Schedule(row["cron"], row["timezone"])
