"""The view `operation_logs`: the audit, of commands with their outcomes, and of what doors report.

The planner puts the text of a function in its place, so that filters reach the indexes of the tables. The collations of
columns must be those of the tables for that, which only a type can state.
"""

from __future__ import annotations

from adapters.postgres.views import View
from domain.access.tenant import HOUSE

COLUMNS = {
    "tenant_id": "Tenant that the row belongs to.",
    "id": "Command, or report in door_events.",
    "created_at": "When it was decided or reported.",
    "actor": "Actor; null for refusals, and for sign-ins without an account.",
    "account_id": "Account of the actor; null: none is known.",
    "door": "Door: bus, operator or viewer; null for older commands.",
    "action": "Command, or event of a door: door.signed_in, door.refused, door.used.",
    "target_noun": "Kind of what it created, changed, read, or named.",
    "target_id": "Id of that; null where a rejected command names none.",
    "outcome": "accepted or rejected; for events of a door signed_in, refused or used.",
    "code": "Rule that a rejected command broke; credential that signed in, or was refused.",
    "detail": "Field at fault and sentence of a rejection; path and query of a search; number of refusals.",
    "address": "Address of the sender; null: unknown, erased, or not visible to this login.",
    "browser": "Browser or program of the sender, as it names itself; null as for the address.",
    "correlation_id": "Command that began the chain of causes.",
}

_MADE = f"""
DO $$ BEGIN
    IF to_regtype('headrace.audited') IS NULL THEN
        CREATE TYPE headrace.audited AS (
            tenant_id text COLLATE "C", id text COLLATE "C", created_at timestamptz, actor text, account_id text,
            door text, action text, target_noun text, target_id text, outcome text, code text, detail text,
            address text, browser text, correlation_id text COLLATE "C"
        );
    END IF;
END $$;
CREATE OR REPLACE FUNCTION headrace.audited_commands() RETURNS SETOF headrace.audited
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.tenant_id, c.id, c.created_at, c.actor, CASE WHEN c.actor ^@ 'a_' THEN substr(c.actor, 3) END, c.door,
        c.name,
        CASE WHEN c.ids ? split_part(c.name, '.', 1) THEN split_part(c.name, '.', 1)
            ELSE coalesce((SELECT min(key) FROM jsonb_object_keys(c.ids) key), split_part(c.name, '.', 1)) END,
        coalesce(c.ids ->> split_part(c.name, '.', 1),
            (SELECT value FROM jsonb_each_text(c.ids) ORDER BY key LIMIT 1)),
        c.status, c.code,
        CASE WHEN c.name = 'trace.search' AND c.status = 'accepted' THEN (
            SELECT s.search FROM headrace.door_events s WHERE (s.tenant_id, s.id) = (c.tenant_id, c.id)
        ) ELSE nullif(concat_ws(': ', c.field, c.message), '') END,
        (SELECT o.address FROM headrace.door_events o
            WHERE o.tenant_id IN (c.tenant_id, '{HOUSE}') AND o.id = c.origin AND o.event = 'used' LIMIT 1),
        (SELECT o.browser FROM headrace.door_events o
            WHERE o.tenant_id IN (c.tenant_id, '{HOUSE}') AND o.id = c.origin AND o.event = 'used' LIMIT 1),
        c.correlation_id
    FROM headrace.commands c WHERE NOT (c.name ^@ 'door.' AND c.status = 'accepted')
$$;
CREATE OR REPLACE FUNCTION headrace.audited_doors() RETURNS SETOF headrace.audited
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT d.tenant_id, d.id, d.created_at, d.actor, d.account_id, d.door, 'door.' || d.event, 'door', d.id, d.event,
        d.credential, d.count::text, d.address, d.browser, d.id
    FROM headrace.door_events d WHERE d.event <> 'searched'
$$;
CREATE OR REPLACE VIEW headrace.operation_logs WITH (security_invoker = true) AS
SELECT * FROM headrace.audited_commands() UNION ALL SELECT * FROM headrace.audited_doors();
"""

OPERATION_LOGS = View(
    "operation_logs",
    "The audit: commands with their outcomes, and sign-ins, refusals and first uses at doors.",
    COLUMNS,
    _MADE,
    table="door_events",
)

TESTS = {
    "actor": "actor = %(actor)s",
    "action": "(action = %(action)s OR action ^@ (%(action)s || '.'))",
    "outcome": "outcome = %(outcome)s",
    "door": "door = %(door)s",
}
"""Conditions on rows, by the value that they take. An action is a command or an event, or the noun of several."""

HALVES = tuple(
    f"SELECT * FROM headrace.{half}() WHERE {{where}} ORDER BY created_at, id"
    for half in ("audited_commands", "audited_doors")
)
"""The rows of the view that fulfil a condition, in two lists in order of time, each read as far as its reader goes."""

PAGE = """
SELECT * FROM (
    (SELECT * FROM headrace.audited_commands() WHERE {where} ORDER BY created_at DESC, id DESC LIMIT {limit})
    UNION ALL
    (SELECT * FROM headrace.audited_doors() WHERE {where} ORDER BY created_at DESC, id DESC LIMIT {limit})
) AS newest ORDER BY created_at DESC, id DESC LIMIT {limit}
"""
"""The newest rows of the view that fulfil a condition, read by the indexes in their order: of the view itself, all rows
would be read and sorted."""
