"""Runs of workflows, and the forms that they wait for: the tables `workflow_runs` and `human_input_forms`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Double, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.log import Recorded, derived_id
from domain.workflows.run import Run
from projections.apps import workflow_id
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

workflow_runs = ReadModel(
    "workflow_runs",
    "Runs of workflows, one row each.",
    key("id", "Run."),
    required("app_id", Id, "App, in apps unless it was deleted since."),
    required("workflow_id", Id, "Version or draft that it runs, in workflows."),
    required("type", Text, "workflow; chat: it answers a message."),
    required("triggered_from", Text, "app, draft, tool, webhook or schedule."),
    required("version", Text, "draft, or the number of the version."),
    required("graph_digest", Text, "SHA-256 of the blob with the graph."),
    optional("conversation_id", Id, "Conversation of the message that it answers; null for none."),
    optional("message_id", Id, "Message that it answers; null for none."),
    optional("source_id", Id, "Run whose results it keeps; null for none."),
    optional("source_kind", Text, "fork or retry; null likewise."),
    required("inputs", JSONB, "Inputs by name: `type` and `data`, or the `blob` of a large one."),
    required("outputs", JSONB, "Outputs, likewise; empty before the end."),
    required("status", Text, "scheduled, running, paused, succeeded, partial-succeeded, failed or stopped."),
    required("attempt", Integer, "Number of workers that have begun or gone on with it."),
    optional("error_code", Text, "Error code; null for none, and where a node failed."),
    optional("error", Text, "Reason of a failure or stop; null for none."),
    optional("elapsed_time", Double, "Seconds under way, without pauses; null before the end."),
    required("total_tokens", BigInteger, "Tokens of its model calls; 0 before the end."),
    required("total_steps", Integer, "Number of steps; 0 before the end."),
    required("exceptions_count", Integer, "Number of steps that failed without ending it; 0 before the end."),
    optional("stop_requested_at", Time, "Time of the request to stop; null where there is none."),
    required("correlation_id", Id, "Command that started it: its trace, in traces."),
    person(),
    required("created_by", Text, "Actor who started it."),
    required("created_at", Time, "When it was started."),
    optional("finished_at", Time, "When it ended; null before."),
    required("updated_at", Time, "Time of the last change."),
)
workflow_runs.looked_up("app_id")
workflow_runs.looked_up("message_id")
workflow_runs.sorted_by("open", postgresql_where=text("status IN ('scheduled', 'running')"))
workflow_runs.sets(EndUser.Erased, {"inputs": {}, "outputs": {}, "error": None}, column="person_id")

human_input_forms = ReadModel(
    "human_input_forms",
    "Forms that runs of workflows wait for, one row each.",
    key("id", "Form."),
    required("app_id", Id, "App of the run."),
    required("workflow_run_id", Id, "Run, in workflow_runs."),
    required("step", Text, "Step that waits: what run.answer names."),
    required("node_id", Text, "Node of the graph."),
    required("status", Text, "waiting, submitted, timeout, or expired: the run ended before."),
    required("expiration_time", Time, "When the run goes on without an answer."),
    required("rendered_content", Text, "Text, Markdown; `{{#$output.name#}}` where a field stands."),
    required("inputs", JSONB, "Fields: output_variable_name, type, default and others."),
    required("user_actions", JSONB, "Buttons: id, title, button_style."),
    optional("selected_action_id", Text, "Button of the answer; null for none."),
    required("submitted_data", JSONB, "Values of the fields by name; empty for no answer."),
    required("correlation_id", Id, "Command that started the run: its trace, in traces."),
    person(),
    optional("submitted_by", Text, "Actor who answered; null for none."),
    required("created_at", Time, "When the run reached it."),
    optional("submitted_at", Time, "When it was answered; null for none."),
    required("updated_at", Time, "Time of the last change."),
)
human_input_forms.looked_up("workflow_run_id")
human_input_forms.sorted_by("waiting", "expiration_time", postgresql_where=text("status = 'waiting'"))
human_input_forms.sets(EndUser.Erased, {"rendered_content": "", "inputs": [], "submitted_data": {}}, column="person_id")
human_input_forms.sets(Run.Finished, {"status": "expired"}, column="workflow_run_id", only={"status": "waiting"})


@workflow_runs.makes(Run.Started, new=originator)
def started(event: Run.Started, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "app_id": event.app,
        "workflow_id": workflow_id(event.app, event.version or 0),
        "type": "chat" if event.mode == "advanced-chat" else "workflow",
        "triggered_from": event.trigger,
        "version": str(event.version or "draft"),
        "graph_digest": event.graph,
        "conversation_id": event.conversation,
        "message_id": event.message,
        "source_id": event.source and event.source["run"],
        "source_kind": event.source and event.source["kind"],
        "inputs": event.inputs,
        "outputs": {},
        "status": "scheduled",
        "attempt": 0,
        "total_tokens": 0,
        "total_steps": 0,
        "exceptions_count": 0,
        "correlation_id": message.metadata.correlation,
        "person_id": message.metadata.person,
        "created_by": message.metadata.actor,
    }


@workflow_runs.changes(Run.Taken)
def taken(row: Row, event: Run.Taken, message: Recorded) -> Row:
    return {"status": "running", "attempt": event.attempt}


@workflow_runs.changes(Run.Stepped)
def stepped(row: Row, event: Run.Stepped, message: Recorded) -> Row:
    return {"status": "paused" if event.paused else row["status"]}


@workflow_runs.changes(Run.StopRequested)
def stop_requested(row: Row, event: Run.StopRequested, message: Recorded) -> Row:
    return {"stop_requested_at": event.timestamp}


@workflow_runs.changes(Run.Finished)
def finished(row: Row, event: Run.Finished, message: Recorded) -> Row:
    return {
        "status": event.status,
        "outputs": event.outputs,
        "error_code": event.code or None,
        "error": event.reason or None,
        "elapsed_time": event.duration_ms / 1000,
        "total_tokens": event.tokens,
        "total_steps": event.steps,
        "exceptions_count": event.exceptions,
        "finished_at": event.timestamp,
    }


@workflow_runs.changes(Run.Retried)
def retried(row: Row, event: Run.Retried, message: Recorded) -> Row:
    return {"status": "scheduled", "error_code": None, "error": None, "finished_at": None}


def form_id(event: Run.Waiting | Run.Answered | Run.TimedOut, message: Recorded) -> str:
    return derived_id(f"form/{event.originator_id}/{event.key}")


@human_input_forms.makes(Run.Waiting, within=(workflow_runs, originator))
def waiting(event: Run.Waiting, message: Recorded, run: Row) -> Row:
    return {
        "id": form_id(event, message),
        "app_id": run["app_id"],
        "workflow_run_id": event.originator_id,
        "step": event.key,
        "node_id": event.node,
        "status": "waiting",
        "expiration_time": datetime.fromisoformat(event.until),
        "rendered_content": event.content,
        "inputs": event.inputs,
        "user_actions": event.actions,
        "submitted_data": {},
        "correlation_id": message.metadata.correlation,
        "person_id": message.metadata.person,
    }


@human_input_forms.changes(Run.Answered, pick=form_id)
def answered(row: Row, event: Run.Answered, message: Recorded) -> Row:
    return {
        "status": "submitted",
        "selected_action_id": event.action,
        "submitted_data": event.fields,
        "submitted_by": message.metadata.actor,
        "submitted_at": event.timestamp,
    }


@human_input_forms.changes(Run.TimedOut, pick=form_id)
def timed_out(row: Row, event: Run.TimedOut, message: Recorded) -> Row:
    return {"status": "timeout"}
