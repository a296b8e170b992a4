"""Triggers: what begins a run from outside. The run is given what the trigger read."""

from __future__ import annotations

from collections.abc import Iterator

from domain.aggregate import Rejection
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import Done, NodeType, Values
from domain.workflows.schedule import of_node


def run(node: Node, view: Values) -> Done:
    return Done(view.inputs)


def check_schedule(node: Node) -> Iterator[Problem]:
    try:
        of_node(node.data)
    except Rejection as fault:
        yield Problem(node.id, fault.field or "", fault.message)


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
            "visual_config": "`on_minute`, `time` such as 2:30 PM, `weekdays`, `monthly_days` with `last`.",
            "cron_expression": "Minute, hour, day, month and weekday; `L`, `?`, `mon#2`, `@daily`.",
            "timezone": "Time zone; UTC by default.",
        },
        {},
        run=run,
        check=check_schedule,
    ),
    NodeType(
        "trigger-plugin",
        {"plugin_id": "The plugin.", "event_name": "The event.", "event_parameters": "Its parameters."},
        {"<name>": "By the schema of the event."},
        run=run,
    ),
)
