"""Executions of nodes in runs of workflows: the table `workflow_node_executions`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import BigInteger, Boolean, Double, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from domain.workflows.run import Run, Step
from domain.workflows.run import Values as Recording
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.links import follows
from projections.engine.read_model import ReadModel, Row, originator
from projections.engine.values import Values
from projections.workflow_runs import workflow_runs

workflow_node_executions = ReadModel(
    "workflow_node_executions",
    "Executions of nodes, one row each: a node of an iteration or a loop has one for each item or round. They go with "
    "their run.",
    key("id", "Execution."),
    required("workflow_run_id", Id, "Run, in workflow_runs."),
    required("app_id", Id, "App, in apps."),
    required("step", Text, "Path to it: ids of nodes, and numbers of items or rounds, from 0, between slashes."),
    required("index", Integer, "Place among the executions of the run, from 1, as they were recorded."),
    required("node_id", Text, "Node."),
    required("node_type", Text, "Type of the node."),
    required("title", Text, "Title of the node."),
    optional("parent_id", Id, "Execution of the iteration or loop that it is in; null for none."),
    optional("item_index", Integer, "Number of its item or round there, from 0; null likewise."),
    required(
        "status",
        Text,
        "running, waiting (for a person), retried (it failed, and another try follows), succeeded, exception (it "
        "failed, and the run goes on), failed, stopped or skipped (the run did not reach it).",
    ),
    required("tries", Integer, "Number of its last try, from 1; 0 when it was skipped."),
    required("kept", Boolean, "Its result is that of another run, which this one is a fork or a retry of."),
    optional("handle", Text, "Branch that it took; null for all edges, and before the end."),
    required(
        "inputs",
        JSONB,
        "Values that its code or template was given, by name: `type` and `data`, or the `blob` of a large one; empty "
        "for none, and with `run_keep` outcome.",
    ),
    required("outputs", JSONB, "Outputs, likewise."),
    required("writes", JSONB, "Variables that it assigned: `selector` and `value`; likewise."),
    optional("error_type", Text, "Kind of the last error; null for none."),
    optional("error", Text, "Reason of the last failure; null for none."),
    required("total_tokens", BigInteger, "Tokens of its model calls, in all tries."),
    required("calls", JSONB, "Recorded calls that it made, in all tries: `noun` and `id`."),
    optional("adapter", Text, "Adapter that ran its code; null for none."),
    required("started_at", Time, "When it began."),
    optional("elapsed_time", Double, "Seconds to its end; null before."),
    optional("finished_at", Time, "When it ended; null before."),
    optional("conversation_id", Id, "Conversation of the run; null for none."),
    person(),
    required("created_at", Time, "Time of the record of its begin or end."),
    required("updated_at", Time, "Time of the last change."),
)
workflow_node_executions.sorted_by("index", "workflow_run_id", "index")
workflow_node_executions.clears(App.Deleted, column="app_id")
workflow_node_executions.clears(Conversation.Deleted, column="conversation_id")
workflow_node_executions.sets(
    EndUser.Erased, {"inputs": {}, "outputs": {}, "writes": [], "error": None}, column="person_id"
)
OPEN = ("running", "waiting", "retried")
for status in OPEN:
    workflow_node_executions.sets(
        Run.Finished, {"status": "stopped"}, column="workflow_run_id", only={"status": status}
    )

ENDED = frozenset({"succeeded", "exception", "failed", "stopped", "skipped"})


@lru_cache(maxsize=16384)
def execution_id(run: str, step: str) -> str:
    """The id of a step of a run, which is that of its span."""
    return derived_id(f"{run}/{step}")


def container(step: str) -> tuple[str, int] | None:
    """The step of the iteration or loop that a step is in, and the number of the item or round; None at the top."""
    path = step.rsplit("/", 2)
    return (path[0], int(path[1])) if len(path) == 3 else None


def executions(event: Run.Stepped, message: Recorded) -> Iterator[str]:
    """The ids of the steps of an event."""
    return (execution_id(event.originator_id, step["key"]) for step in event.steps)


@workflow_node_executions.makes(Run.Stepped, within=(workflow_runs, originator), values=True, among=executions)
def stepped(event: Run.Stepped, message: Recorded, run: Row, values: Values, known: Mapping[str, Row]) -> Iterable[Row]:
    """An execution is one row, whatever tries and commits it takes."""
    made: dict[str, Row] = {}
    for step, recorded in zip(event.steps, event.values, strict=True):
        id = execution_id(run["id"], step["key"])
        row = (
            made.get(id) or known.get(id) or _begun(event, run, step, run["executions"] + len(made.keys() - known) + 1)
        )
        more = {"updated_at": event.timestamp, "log_position": message.position.sequence}
        made[id] = row | _changed(row, step) | _values(row, recorded, values.run_keep) | more
    return made.values()


def _begun(event: Run.Stepped, run: Row, step: Step, index: int) -> Row:
    within = container(step["key"])
    return {
        "id": execution_id(run["id"], step["key"]),
        "workflow_run_id": run["id"],
        "app_id": run["app_id"],
        "step": step["key"],
        "index": index,
        "node_id": step["node"],
        "node_type": step["type"],
        "title": step["title"],
        "parent_id": within and execution_id(run["id"], within[0]),
        "item_index": within and within[1],
        "tries": 0,
        "inputs": {},
        "outputs": {},
        "writes": [],
        "error_type": None,
        "error": None,
        "total_tokens": 0,
        "calls": [],
        "adapter": None,
        "started_at": datetime.fromisoformat(step["began"]),
        "conversation_id": run["conversation_id"],
        "person_id": run["person_id"],
        "created_at": event.timestamp,
    }


def _changed(row: Row, step: Step) -> Row:
    took = step.get("duration_ms", 0.0) if step["status"] in ENDED else None
    return {
        "status": step["status"],
        "tries": 0 if step["status"] == "skipped" else max(row["tries"], step.get("attempt", 1)),
        "kept": step.get("kept", False),
        "handle": step.get("handle"),
        "error_type": step.get("error_type", row["error_type"]),
        "total_tokens": row["total_tokens"] + step.get("tokens", 0),
        "calls": [*row["calls"], *step.get("calls", ())],
        "adapter": step.get("adapter", row["adapter"]),
        "elapsed_time": None if took is None else took / 1000,
        "finished_at": None if took is None else row["started_at"] + timedelta(milliseconds=took),
    }


def _values(row: Row, recorded: Recording, keep: str) -> Row:
    """The values of a step, as far as the installation keeps them in tables."""
    found: Row = {"error": recorded.get("error", row["error"])}
    if keep == "full":
        found |= {name: recorded.get(name, row[name]) for name in ("inputs", "outputs", "writes")}
    return found


def form_of(event: Run.Waiting | Run.Answered | Run.TimedOut, message: Recorded) -> str:
    """The execution that a form belongs to."""
    return execution_id(event.originator_id, event.key)


@workflow_node_executions.changes(Run.Waiting, pick=form_of)
def waits(row: Row, event: Run.Waiting, message: Recorded) -> Row:
    return {"status": "waiting"}


@workflow_node_executions.changes(Run.Answered, Run.TimedOut, pick=form_of)
def goes_on(row: Row, event: Run.Answered | Run.TimedOut, message: Recorded) -> Row:
    return {"status": "running"}


@follows(workflow_runs, workflow_node_executions, "workflow_run_id", pick=originator)
def counted(run: Row, before: Row | None, after: Row) -> Row | None:
    changed: Row = {"executions": run["executions"] + 1} if before is None else {}
    if tokens := after["total_tokens"] - (before["total_tokens"] if before else 0):
        changed["total_tokens"] = run["total_tokens"] + tokens
    return changed or None
