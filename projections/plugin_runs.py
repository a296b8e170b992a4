"""Hooks that filters of plugins handled: the table `plugin_runs`."""

from __future__ import annotations

from sqlalchemy import Boolean, Double, Text

from domain.log import Recorded, derived_id
from domain.models.model_call import ModelCall
from domain.tools.tool_call import ToolCall
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row

plugin_runs = ReadModel(
    "plugin_runs",
    "Hooks that filters of plugins handled, one row a hook of a call. They outlive the call's cause.",
    key("id", "Run."),
    required("plugin_id", Id, "Plugin, in plugins."),
    required("version", Text, "Version of its package."),
    required("digest", Text, "SHA-256 of its package."),
    required("call_noun", Text, "Noun of the call: model_call or tool_call."),
    required("call_id", Id, "Call, in model_calls or tool_calls."),
    required("hook", Text, "Hook: before_invoke, after_invoke, on_error, check, before_tool or after_tool."),
    required("action", Text, "continue, replace, answer, refuse, or fail where the hook failed."),
    required("changed", Boolean, "It changed something."),
    optional("original", Text, "SHA-256 of the request or answer before all filters; null if nothing changed."),
    optional("error_code", Text, "Error code of a hook that failed; null for none."),
    required("duration_ms", Double, "Milliseconds that it took."),
    required("correlation_id", Id, "Command that began the chain of causes that the call belongs to."),
    required("created_at", Time, "Time of the record."),
)
plugin_runs.looked_up("call_id")
plugin_runs.sorted_by("plugin", "plugin_id", "created_at")


@plugin_runs.makes(ModelCall.Filtered, ToolCall.Filtered)
def filtered(event: ModelCall.Filtered | ToolCall.Filtered, message: Recorded) -> list[Row]:
    return [
        {
            "id": derived_id(f"{event.originator_id}/{event.originator_version}/{number}"),
            "plugin_id": run["name"],
            "version": run["version"],
            "digest": run["digest"],
            "call_noun": message.subject.noun,
            "call_id": event.originator_id,
            "hook": run["hook"],
            "action": run["action"],
            "changed": run["changed"],
            "original": event.original,
            "error_code": run["code"],
            "duration_ms": run["ms"],
            "correlation_id": message.metadata.correlation,
        }
        for number, run in enumerate(event.plugins)
    ]
