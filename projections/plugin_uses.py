"""Plugins that a tenant uses: the table `plugin_uses`. No secret is in it."""

from __future__ import annotations

from sqlalchemy import Boolean, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.tools.plugin_use import PluginUse
from projections.engine.columns import Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

plugin_uses = ReadModel(
    "plugin_uses",
    "Installed plugins that the tenant has enabled, disabled or configured.",
    key("id", "Plugin, in plugins."),
    required("status", Text, "disabled, enabled, or suspended: it failed too often, and is tried again each minute."),
    optional("reason", Text, "Error message of a suspended one; null otherwise."),
    required("content", Boolean, "A monitor may have texts, as far as the operator does."),
    required("settings", JSONB, "Settings that are no secrets."),
    required("secrets", JSONB, "Names of the secret settings: a list."),
    required("created_by", Text, "Actor who used it first."),
    required("created_at", Time, "When it was first used."),
    required("updated_at", Time, "Time of the last change."),
)


@plugin_uses.makes(PluginUse.Begun, new=originator)
def begun(event: PluginUse.Begun, message: Recorded) -> Row:
    unset = {"status": "disabled", "content": True, "settings": {}, "secrets": []}
    return {"id": event.originator_id, **unset, "created_by": message.metadata.actor}


@plugin_uses.changes(PluginUse.Configured)
def configured(row: Row, event: PluginUse.Configured, message: Recorded) -> Row:
    status = "disabled" if row["status"] == "disabled" else "enabled"
    return {"settings": event.settings, "secrets": sorted(event.secrets), "status": status, "reason": None}


@plugin_uses.changes(PluginUse.Enabled)
def enabled(row: Row, event: PluginUse.Enabled, message: Recorded) -> Row:
    return {"status": "enabled", "content": event.content, "reason": None}


@plugin_uses.changes(PluginUse.Disabled)
def disabled(row: Row, event: PluginUse.Disabled, message: Recorded) -> Row:
    return {"status": "disabled", "reason": None}


@plugin_uses.changes(PluginUse.Suspended)
def suspended(row: Row, event: PluginUse.Suspended, message: Recorded) -> Row:
    return {"status": "suspended", "reason": event.reason}


@plugin_uses.changes(PluginUse.Resumed)
def resumed(row: Row, event: PluginUse.Resumed, message: Recorded) -> Row:
    return {"status": "enabled", "reason": None}
