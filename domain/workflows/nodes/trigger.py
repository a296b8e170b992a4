"""Triggers: what begins a run from outside. The run is given what the trigger read."""

from __future__ import annotations

from domain.workflows.graph import Node
from domain.workflows.node_type import Done, NodeType, Values


def run(node: Node, view: Values) -> Done:
    return Done(view.inputs)


TYPES = (
    NodeType(
        "trigger-webhook",
        {
            "method": "Method of the request.",
            "content_type": "Media type of the request.",
            "params": "Names from the query.",
            "headers": "Names from the headers.",
            "body": "Names from the body.",
            "status_code": "Status of the response.",
            "response_body": "Body of the response.",
        },
        {"<name>": "As declared.", "_webhook_raw": "The whole request."},
        run=run,
    ),
    NodeType(
        "trigger-schedule",
        {
            "mode": "visual or cron.",
            "frequency": "hourly, daily, weekly or monthly.",
            "visual_config": "Times.",
            "cron_expression": "Times.",
            "timezone": "Time zone.",
        },
        {},
        run=run,
    ),
    NodeType(
        "trigger-plugin",
        {"plugin_id": "The plugin.", "event_name": "The event.", "event_parameters": "Its parameters."},
        {"<name>": "By the schema of the event."},
        run=run,
    ),
)
