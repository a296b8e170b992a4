"""The view `workflow_app_logs`: the runs of workflows that were no tests.

The planner puts the text of the function in its place, so that filters reach the indexes of the table. The collations
of columns must be those of the table for that, which only a type can state.
"""

from __future__ import annotations

from adapters.postgres.views import View

COLUMNS = {
    "tenant_id": "Tenant that the row belongs to.",
    "id": "Run.",
    "app_id": "App, in apps.",
    "workflow_id": "Version that it ran, in workflows.",
    "workflow_run_id": "Run, in workflow_runs.",
    "created_from": "app, tool, webhook or schedule.",
    "created_by_role": "end_user, or account for an actor of the tenant.",
    "created_by": "Name of the end user, or the actor; empty when the person was erased.",
    "person_id": "Person who began it; null when it is not known.",
    "created_at": "When it was requested.",
}

_MADE = """
DO $$ BEGIN
    IF to_regtype('headrace.workflow_app_log') IS NULL THEN
        CREATE TYPE headrace.workflow_app_log AS (
            tenant_id text COLLATE "C", id text COLLATE "C", app_id text COLLATE "C", workflow_id text COLLATE "C",
            workflow_run_id text COLLATE "C", created_from text, created_by_role text, created_by text,
            person_id text COLLATE "C", created_at timestamptz
        );
    END IF;
END $$;
CREATE OR REPLACE FUNCTION headrace.logged_runs() RETURNS SETOF headrace.workflow_app_log
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.tenant_id, r.id, r.app_id, r.workflow_id, r.id, r.triggered_from,
        CASE WHEN r.person_id IS NULL THEN 'account' ELSE 'end_user' END,
        CASE WHEN r.person_id IS NULL THEN r.created_by ELSE r.end_user END, r.person_id, r.created_at
    FROM headrace.workflow_runs r WHERE r.triggered_from <> 'draft'
$$;
CREATE OR REPLACE VIEW headrace.workflow_app_logs WITH (security_invoker = true) AS
SELECT * FROM headrace.logged_runs();
"""

WORKFLOW_APP_LOGS = View(
    "workflow_app_logs", "Runs of workflows that were no tests, a row each.", COLUMNS, _MADE, table="workflow_runs"
)
