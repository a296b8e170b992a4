"""Forms that runs of workflows show to a person: the table `human_input_forms`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded
from domain.workflows.run import Run
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator
from projections.workflow_node_executions import form_of
from projections.workflow_runs import workflow_runs

human_input_forms = ReadModel(
    "human_input_forms",
    "Forms of runs, for a person to fill in. They go with their run.",
    key("id", "Execution of the node that waits, in workflow_node_executions."),
    required("workflow_run_id", Id, "Run, in workflow_runs."),
    required("app_id", Id, "App, in apps."),
    required("step", Text, "Path to the execution, which run.answer names."),
    required("node_id", Text, "Node."),
    required("status", Text, "waiting, submitted, timeout, or expired: the run ended before."),
    required("expiration_time", Time, "When the run goes on without an answer."),
    required("rendered_content", Text, "Text of the form, Markdown; `{{#$output.name#}}` where a field stands."),
    required("inputs", JSONB, "Fields of the form, as the node describes them."),
    required("user_actions", JSONB, "Buttons of the form: id, title, button_style."),
    optional("selected_action_id", Text, "Button that was pressed; null before, and when none was."),
    required("submitted_data", JSONB, "Values of the fields, by name; empty before."),
    optional("submitted_by", Text, "End user who answered, or actor of the tenant; null likewise."),
    optional("submitted_at", Time, "When it was answered, or its time was over; null before."),
    optional("conversation_id", Id, "Conversation of the run; null for none."),
    required("correlation_id", Id, "Command that began the run: its trace, in traces."),
    person(),
    required("created_at", Time, "When the run began to wait."),
    required("updated_at", Time, "Time of the last change."),
)
human_input_forms.sorted_by("waiting", "expiration_time", "id", postgresql_where=text("status = 'waiting'"))
human_input_forms.clears(App.Deleted, column="app_id")
human_input_forms.clears(Conversation.Deleted, column="conversation_id")
human_input_forms.sets(
    EndUser.Erased,
    {"rendered_content": "", "inputs": [], "submitted_data": {}, "submitted_by": None},
    column="person_id",
)
human_input_forms.sets(Run.Finished, {"status": "expired"}, column="workflow_run_id", only={"status": "waiting"})


@human_input_forms.makes(Run.Waiting, within=(workflow_runs, originator), new=form_of)
def waiting(event: Run.Waiting, message: Recorded, run: Row) -> Row:
    return {
        "id": form_of(event, message),
        "workflow_run_id": run["id"],
        "app_id": run["app_id"],
        "step": event.key,
        "node_id": event.node,
        "status": "waiting",
        "expiration_time": datetime.fromisoformat(event.until),
        "rendered_content": event.content,
        "inputs": event.inputs,
        "user_actions": event.actions,
        "submitted_data": {},
        "conversation_id": run["conversation_id"],
        "correlation_id": run["correlation_id"],
        "person_id": run["person_id"],
    }


@human_input_forms.changes(Run.Answered, pick=form_of)
def answered(row: Row, event: Run.Answered, message: Recorded) -> Row:
    return {
        "status": "submitted",
        "selected_action_id": event.action,
        "submitted_data": event.fields,
        "submitted_by": event.by or message.metadata.actor,
        "submitted_at": event.timestamp,
    }


@human_input_forms.changes(Run.TimedOut, pick=form_of)
def timed_out(row: Row, event: Run.TimedOut, message: Recorded) -> Row:
    return {"status": "timeout", "submitted_at": event.timestamp}
