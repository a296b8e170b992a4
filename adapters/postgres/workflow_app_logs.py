"""The view `workflow_app_logs`: the runs of workflows that were no tests."""

from __future__ import annotations

from adapters.postgres.views import ID, TEXT, TIME, Column, view_of

COLUMNS = {
    "tenant_id": Column(ID, "Tenant that the row belongs to."),
    "id": Column(ID, "Run."),
    "app_id": Column(ID, "App, in apps."),
    "workflow_id": Column(ID, "Version that it ran, in workflows."),
    "workflow_run_id": Column(ID, "Run, in workflow_runs."),
    "created_from": Column(TEXT, "app, tool, webhook or schedule."),
    "created_by_role": Column(TEXT, "end_user, or account for an actor of the tenant."),
    "created_by": Column(TEXT, "Name of the end user, or the actor; empty when the person was erased."),
    "person_id": Column(ID, "Person who began it; null when it is not known."),
    "created_at": Column(TIME, "When it was requested."),
}

_SELECT = """
    SELECT r.tenant_id, r.id, r.app_id, r.workflow_id, r.id, r.triggered_from,
        CASE WHEN r.person_id IS NULL THEN 'account' ELSE 'end_user' END,
        CASE WHEN r.person_id IS NULL THEN r.created_by ELSE r.end_user END, r.person_id, r.created_at
    FROM headrace.workflow_runs r WHERE r.triggered_from <> 'draft'
"""

WORKFLOW_APP_LOGS = view_of(
    "workflow_app_logs",
    "Runs of workflows that were no tests, a row each.",
    COLUMNS,
    row="workflow_app_log",
    function="logged_runs",
    table="workflow_runs",
    select=_SELECT,
)
