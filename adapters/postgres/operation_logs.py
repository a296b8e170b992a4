"""The view `operation_logs`: the audit, of commands with their outcomes, and of what doors report."""

from __future__ import annotations

from adapters.postgres.views import ID, TEXT, TIME, Column, View, comments, row_type
from domain.access.tenant import HOUSE

COLUMNS = {
    "tenant_id": Column(ID, "Tenant that the row belongs to."),
    "id": Column(ID, "Command, or report in door_events."),
    "created_at": Column(TIME, "When it was decided or reported."),
    "actor": Column(TEXT, "Actor; null for refusals, and for sign-ins without an account."),
    "account_id": Column(TEXT, "Account of the actor; null: none is known."),
    "door": Column(TEXT, "Door: bus, operator or viewer; null for older commands."),
    "action": Column(TEXT, "Command, or event of a door: door.signed_in, door.refused, door.used."),
    "target_noun": Column(TEXT, "Kind of what it created, changed, read, or named."),
    "target_id": Column(TEXT, "Id of that; null where a rejected command names none."),
    "outcome": Column(TEXT, "accepted or rejected; for events of a door signed_in, refused or used."),
    "code": Column(TEXT, "Rule that a rejected command broke; credential that signed in, or was refused."),
    "detail": Column(
        TEXT, "Field at fault and sentence of a rejection; path and query of a search; number of refusals."
    ),
    "address": Column(TEXT, "Address of the sender; null: unknown, erased, or not visible to this login."),
    "browser": Column(TEXT, "Browser or program of the sender, as it names itself; null as for the address."),
    "correlation_id": Column(ID, "Command that began the chain of causes."),
}

_MADE = f"""{row_type("audited", COLUMNS)}
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
    comments(COLUMNS),
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
