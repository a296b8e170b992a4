"""Runs of workflows: the table `workflow_runs`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded
from domain.workflows.run import Run
from projections.apps import workflow_id
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

workflow_runs = ReadModel(
    "workflow_runs",
    "Runs of workflows. They go with their app, and with the conversation whose message they answer.",
    key("id", "Run."),
    required("app_id", Id, "App, in apps."),
    required("workflow_id", Id, "Version or draft that it began with, in workflows; the draft may have changed since."),
    required("version", Text, "draft, or the number of the version."),
    required("type", Text, "workflow; chat: it answers a message."),
    required("triggered_from", Text, "app, draft (a test), tool, webhook or schedule."),
    optional("entry_node_id", Text, "Node of the trigger that it began with; null for the start node."),
    required("graph_digest", Text, "SHA-256 of the blob with the normalised graph as JSON that it runs."),
    required("engine", Integer, "Number of the rules by which its steps are folded."),
    required(
        "status",
        Text,
        "scheduled, running, paused (only forms are left), succeeded, partial-succeeded (a node failed, and it went "
        "on), failed or stopped.",
    ),
    required("attempt", Integer, "Number of times that a worker took it; 0 before the first."),
    required("inputs", JSONB, "Inputs by name: `type` and `data`, or the `blob` of a large one."),
    required("system_variables", JSONB, "Values of `sys` by name, likewise."),
    required("conversation_variables", JSONB, "Variables of the conversation by name at its begin, likewise."),
    required("outputs", JSONB, "Outputs by name, likewise; empty before the end."),
    optional("error_code", Text, "Error code; null on success, and where a node failed."),
    optional("error", Text, "Reason of a failure or stop; null for none."),
    required("executions", Integer, "Executions of nodes, in workflow_node_executions."),
    required("total_steps", Integer, "Steps, without the nodes that it did not reach; 0 before the end."),
    required("exceptions_count", Integer, "Nodes that failed without ending it; 0 before the end."),
    required("total_tokens", BigInteger, "Tokens of its model calls."),
    optional("elapsed_time", Double, "Seconds under way, without pauses; null before the end."),
    required("max_steps", Integer, "Number of steps at which it is stopped."),
    required("max_seconds", Double, "Seconds under way after which it is stopped."),
    optional("conversation_id", Id, "Conversation of the message that it answers; null for none."),
    optional("message_id", Id, "Message that it answers, in messages; null for none."),
    optional("source_id", Id, "Run whose results it keeps; null for none."),
    optional("source_kind", Text, "fork or retry; null likewise."),
    optional("source_step", Text, "Node from which on nothing is kept, empty: all that is unchanged; null likewise."),
    optional("tool_call_id", Id, "Call of a tool that it is, in tool_calls; null for none."),
    required("depth", Integer, "Number of runs around it, each of which called the next as a tool."),
    optional("stop_requested_at", Time, "Time of the request to stop it; null where there is none."),
    required("correlation_id", Id, "Command that began it: its trace, in traces."),
    required("end_user", Text, "Name of the end user; empty for none, and when the person was erased."),
    required("created_by", Text, "Actor who began it."),
    person(),
    required("created_at", Time, "When it was requested."),
    optional("finished_at", Time, "When it ended; null while it has not."),
    required("updated_at", Time, "Time of the last change."),
)
workflow_runs.sorted_by("newest", "created_at", "id")
workflow_runs.sorted_by("app_id", "app_id", "created_at", "id")
workflow_runs.sorted_by("open", postgresql_where=text("status IN ('scheduled', 'running')"))
workflow_runs.looked_up("message_id")
workflow_runs.looked_up("source_id")
workflow_runs.clears(App.Deleted, column="app_id")
workflow_runs.clears(Conversation.Deleted, column="conversation_id")
workflow_runs.sets(
    EndUser.Erased,
    {
        "inputs": {},
        "system_variables": {},
        "conversation_variables": {},
        "outputs": {},
        "error": None,
        "end_user": "",
    },
    column="person_id",
)


@workflow_runs.makes(Run.Started, new=originator)
def started(event: Run.Started, message: Recorded) -> Row:
    source = event.source
    return {
        "id": event.originator_id,
        "app_id": event.app,
        "workflow_id": workflow_id(event.app, event.version or 0),
        "version": str(event.version or "draft"),
        "type": "chat" if event.mode == "advanced-chat" else "workflow",
        "triggered_from": event.trigger,
        "entry_node_id": event.entry,
        "graph_digest": event.graph,
        "engine": event.engine,
        "status": "scheduled",
        "attempt": 0,
        "inputs": event.inputs,
        "system_variables": event.system,
        "conversation_variables": event.variables,
        "outputs": {},
        "executions": 0,
        "total_steps": 0,
        "exceptions_count": 0,
        "total_tokens": 0,
        "max_steps": event.limits["steps"],
        "max_seconds": event.limits["seconds"],
        "conversation_id": event.conversation,
        "message_id": event.message,
        "source_id": source and source["run"],
        "source_kind": source and source["kind"],
        "source_step": source and source["step"],
        "tool_call_id": event.tool_call,
        "depth": event.depth,
        "correlation_id": message.metadata.correlation,
        "end_user": event.user,
        "created_by": message.metadata.actor,
        "person_id": message.metadata.person,
    }


@workflow_runs.changes(Run.Taken)
def taken(row: Row, event: Run.Taken, message: Recorded) -> Row:
    return {"status": "running", "attempt": event.attempt}


@workflow_runs.changes(Run.Stepped)
def stepped(row: Row, event: Run.Stepped, message: Recorded) -> Row | None:
    return {"status": "paused"} if event.paused else None


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
        "total_steps": event.steps,
        "exceptions_count": event.exceptions,
        "elapsed_time": event.duration_ms / 1000,
        "finished_at": event.timestamp,
    }


@workflow_runs.changes(Run.Retried)
def retried(row: Row, event: Run.Retried, message: Recorded) -> Row:
    return {"status": "scheduled", "error_code": None, "error": None, "elapsed_time": None, "finished_at": None}
