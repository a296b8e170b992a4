"""Human-input: a form that waits for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import (
    Done,
    Failed,
    NodeType,
    Trouble,
    Values,
    data,
    mapping,
    selector,
    sequence,
    text,
    whole,
)
from domain.workflows.rendering import render
from domain.workflows.requests import FormAnswer, FormRequest
from domain.workflows.values import as_objects

TIMEOUT: Final = "__timeout"
UNITS: Final = {"hour": 3600, "day": 86400}
HOURS: Final = 36


def prepare(node: Node, view: Values) -> FormRequest:
    inputs = []
    for spec in map(mapping, sequence(node.data.get("inputs"))):
        default = mapping(spec.get("default"))
        value: Any = default.get("value")
        if default.get("type") == "variable":
            value = as_objects(data(view.find(selector(default.get("selector")))))
        inputs.append({**spec, "default": value})
    unit = UNITS.get(text(node.data.get("timeout_unit")), UNITS["hour"])
    return FormRequest(
        render(text(node.data.get("form_content")), view.find),
        tuple(inputs),
        tuple(mapping(each) for each in sequence(node.data.get("user_actions"))),
        whole(node.data.get("timeout"), HOURS) * unit,
        tuple(mapping(each) for each in sequence(node.data.get("delivery_methods"))),
    )


def conclude(node: Node, request: FormRequest, answer: FormAnswer | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type)
    if answer.expired:
        return Done({**answer.fields, "__action_id": TIMEOUT, "__action_value": "", "__rendered_content": ""}, TIMEOUT)
    content = request.content
    for name, value in answer.fields.items():
        content = content.replace(f"{{{{#$output.{name}#}}}}", text(value))
    titles = {text(each.get("id")): text(each.get("title")) for each in request.actions}
    chosen = {"__action_id": answer.action, "__action_value": titles.get(answer.action, "")}
    return Done({**answer.fields, **chosen, "__rendered_content": content}, answer.action)


def check(node: Node) -> Iterator[Problem]:
    if not sequence(node.data.get("user_actions")):
        yield Problem(node.id, "user_actions", "A form has at least one action.")
    if text(node.data.get("timeout_unit") or "hour") not in UNITS:
        yield Problem(node.id, "timeout_unit", f"It is {' or '.join(UNITS)}.")


TYPE = NodeType(
    "human-input",
    {
        "form_content": "Text of the form, a template; `{{#$output.name#}}` where a field stands.",
        "inputs": "Fields.",
        "user_actions": "Buttons: `id`, `title`.",
        "timeout": "Longest wait.",
        "timeout_unit": "hour or day.",
        "delivery_methods": "Ways to send the form.",
    },
    {
        "<field>": "Value of the field.",
        "__action_id": "The button.",
        "__action_value": "Its title.",
        "__rendered_content": "The form with what was filled in.",
    },
    prepare=prepare,
    conclude=conclude,
    check=check,
    branches=True,
    waits=True,
)
