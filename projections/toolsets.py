"""Toolsets and the tools that they list: the tables `toolsets` and `tools`."""

from __future__ import annotations

from sqlalchemy import Boolean, Double, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.tools.toolset import Toolset
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

toolsets = ReadModel(
    "toolsets",
    "Toolsets that were registered. Their secrets are in no table.",
    key("id", "Name that apps call the toolset by."),
    required("kind", Text, "openapi, mcp, app, dataset, sql or plugin."),
    required("description", Text, "Description, for people."),
    required("settings", JSONB, "Settings of its kind."),
    required("has_secret", Boolean, "It has a secret."),
    required("secret_hint", Text, "Last characters of the secret; empty when unknown."),
    required("timeout_s", Double, "Time limit of a call, in seconds."),
    required("status", Text, "active or removed; a removed one is not called any more."),
    optional("digest", Text, "Blob with the list of its tools and their schemas; null before the first."),
    required("tool_count", Integer, "Number of its tools; 0 before the first list."),
    required("tools", JSONB, "Its tools: name, description, destructive, idempotent."),
    required("warnings", JSONB, "Parts that were left out of the list, and why."),
    required("refresh_status", Text, "State of the last refresh: requested, ok or failed."),
    optional("refresh_trace_id", Id, "Trace of the last refresh, in traces; null before the first."),
    optional("error_code", Text, "Error code of the last refresh; null on success, and before its end."),
    optional("error", Text, "Error message of the last refresh; null likewise."),
    optional("refreshed_at", Time, "When the last refresh ended; null before."),
    required("created_by", Text, "Actor who registered it."),
    required("created_at", Time, "When it was first registered."),
    required("updated_at", Time, "Time of the last change."),
)
toolsets.sorted_by("open", postgresql_where=text("refresh_status = 'requested'"))


def _place(event: Toolset.Registered | Toolset.Changed) -> Row:
    return {
        "kind": event.kind,
        "description": event.description,
        "settings": event.settings,
        "has_secret": event.secret is not None,
        "secret_hint": event.secret["hint"] if event.secret else "",
        "timeout_s": event.timeout_s,
        "status": "active",
    }


@toolsets.makes(Toolset.Registered, new=originator)
def registered(event: Toolset.Registered, message: Recorded) -> Row:
    listed = {"tool_count": 0, "tools": [], "warnings": [], "refresh_status": "requested"}
    return {"id": event.originator_id, **_place(event), **listed, "created_by": message.metadata.actor}


@toolsets.changes(Toolset.Changed)
def changed(row: Row, event: Toolset.Changed, message: Recorded) -> Row:
    return _place(event)


@toolsets.changes(Toolset.RefreshRequested)
def refresh_requested(row: Row, event: Toolset.RefreshRequested, message: Recorded) -> Row:
    trace = message.metadata.correlation
    return {"refresh_status": "requested", "refresh_trace_id": trace, "error_code": None, "error": None}


@toolsets.changes(Toolset.Refreshed)
def refreshed(row: Row, event: Toolset.Refreshed, message: Recorded) -> Row:
    return {
        "refresh_status": "ok",
        "digest": event.digest,
        "tool_count": len(event.tools),
        "tools": event.tools,
        "warnings": event.warnings,
        "refreshed_at": event.timestamp,
    }


@toolsets.changes(Toolset.RefreshFailed)
def refresh_failed(row: Row, event: Toolset.RefreshFailed, message: Recorded) -> Row:
    return {
        "refresh_status": "failed",
        "error_code": event.code,
        "error": event.reason,
        "refreshed_at": event.timestamp,
    }


@toolsets.changes(Toolset.Removed)
def removed(row: Row, event: Toolset.Removed, message: Recorded) -> Row:
    ended = {"refresh_status": "failed"} if row["refresh_status"] == "requested" else {}
    return {"status": "removed", "has_secret": False, "secret_hint": "", **ended}
