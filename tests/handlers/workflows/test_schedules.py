"""Runs of schedules on a log in memory: one for each time, by any number of workers and clocks that jump months."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.workflows.run import Run
from domain.workflows.schedule import Schedule
from handlers.workflows.schedules import Tick, Waiting, run_id
from tests.handlers.desk import Desk
from tests.memory import Memory

DAILY = {"type": "trigger-schedule", "mode": "cron", "cron_expression": "0 6 * * *", "timezone": "Europe/Berlin"}
FIRST = datetime(2026, 1, 2, 5, tzinfo=UTC)


def document(data: dict[str, Any]) -> dict[str, Any]:
    nodes = [{"id": "t", "data": data}, {"id": "e", "data": {"type": "end"}}]
    return {"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": nodes, "edges": []}}}


class Scene:
    """An app with a schedule, its row, and a clock."""

    def __init__(self, memory: Memory, tenant: str) -> None:
        self.desk = Desk(memory, tenant)
        self.now = FIRST
        self.row = Waiting(tenant, "", 1, "t", "0 6 * * *", "Europe/Berlin", FIRST)
        self.tick = self.worker()

    def worker(self) -> Tick:
        return Tick(self.desk.repository, self.desk.files, self.due, lambda: self.now)

    async def due(self, now: datetime) -> Sequence[Waiting]:
        return [self.row] if self.row.next_at <= now else []

    async def publish(self, data: dict[str, Any] = DAILY) -> str:
        app = await self.desk.done("app.create", name="Report", mode="workflow")
        await self.desk.done("workflow.save", app=app, document=document(data))
        await self.desk.done("workflow.publish", workflow=app)
        self.row = self.row._replace(app=app)
        return app

    async def run(self, time: datetime) -> Run.Started | None:
        """The beginning of the run of a time."""
        commits = await self.desk.commits("run", run_id(self.row, time))
        if not commits:
            return None
        [[began]] = [commit.events for commit in commits]
        assert isinstance(began, Run.Started)
        return began


@pytest.fixture
async def scene(memory: Memory, tenant: str) -> Scene:
    scene = Scene(memory, tenant)
    await scene.publish()
    return scene


async def test_a_time_that_has_come_begins_one_run_with_many_workers(scene: Scene) -> None:
    scene.now = FIRST - timedelta(seconds=1)
    await scene.tick()
    assert await scene.run(FIRST) is None
    scene.now = FIRST + timedelta(seconds=5)
    await asyncio.gather(scene.tick(), scene.worker()())
    scene.now += timedelta(seconds=20)
    await scene.worker()()
    began = await scene.run(FIRST)
    assert began
    assert (began.trigger, began.entry, began.version, began.user, began.inputs) == ("schedule", "t", 1, "", {})
    assert began.system["timestamp"]["data"] == int(FIRST.timestamp())


async def test_months_without_a_worker_are_not_made_up_and_the_next_time_runs(scene: Scene) -> None:
    scene.now = datetime(2026, 7, 14, 3, tzinfo=UTC)
    await scene.tick()
    assert await scene.run(FIRST) is None
    summer = datetime(2026, 7, 14, 4, tzinfo=UTC)
    scene.now = summer + timedelta(seconds=30)
    await scene.tick()
    assert await scene.run(summer)
    scene.row = scene.row._replace(next_at=Schedule(scene.row.cron, scene.row.timezone).after(scene.now))
    winter = datetime(2026, 12, 1, 5, tzinfo=UTC)
    scene.now = winter
    await scene.tick()
    assert await scene.run(winter)


async def test_no_run_begins_where_the_table_is_behind(scene: Scene) -> None:
    app = scene.row.app
    await scene.desk.done("app.set_triggers", app=app, enabled=False)
    await scene.tick()
    assert await scene.run(FIRST) is None, "the triggers are off"
    await scene.desk.done("app.set_triggers", app=app, enabled=True)
    workflow = json.loads(json.dumps(document(DAILY))) | {"version": "0.6.0"}
    draft = await scene.desk.fold("workflow", app)
    await scene.desk.done("workflow.save", app=app, document=workflow, replaces=draft.draft["document"])  # type: ignore[attr-defined]
    await scene.desk.done("workflow.publish", workflow=app)
    await scene.tick()
    assert await scene.run(FIRST) is None, "a newer version was published"
    scene.row = scene.row._replace(version=2)
    await scene.desk.done("app.delete", app=app)
    await scene.tick()
    assert await scene.run(FIRST) is None, "the app was deleted"
    scene.row = scene.row._replace(app=new_id())
    await scene.tick()
    assert await scene.run(FIRST) is None, "there is no app"


async def test_only_workflows_have_triggers_and_what_is_no_schedule_is_not_published(scene: Scene) -> None:
    talk = await scene.desk.done("app.create", name="Talk")
    assert await scene.desk.fails("app.set_triggers", app=talk, enabled=True) == ("wrong_mode", "app")
    app = await scene.desk.done("app.create", name="Never", mode="workflow")
    await scene.desk.done("workflow.save", app=app, document=document({**DAILY, "cron_expression": "0 0 30 2 *"}))
    assert await scene.desk.fails("workflow.publish", workflow=app) == ("cannot_run", "t.cron_expression")
