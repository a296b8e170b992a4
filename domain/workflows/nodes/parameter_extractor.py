"""Parameter-extractor: values that a model reads out of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from domain.workflows import prompt, values
from domain.workflows.graph import Node, Problem
from domain.workflows.lenient_json import first_object
from domain.workflows.node_type import (
    FALSE,
    TRUE,
    Done,
    Failed,
    NodeType,
    Trouble,
    Values,
    flag,
    mapping,
    selector,
    sequence,
    text,
)
from domain.workflows.nodes.llm import with_files
from domain.workflows.rendering import as_text, render
from domain.workflows.requests import Message, ModelAnswer, ModelRequest
from domain.workflows.values import Value

RESERVED: Final = ("__reason", "__is_success", "__usage")
RENAMED: Final = {"bool": "boolean"}
EMPTY: Final[Mapping[str, Any]] = {"string": "", "select": "", "number": 0, "boolean": False}
ELEMENTS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "number": (int, float),
    "object": dict,
    "boolean": bool,
}
MODES: Final = ("function_call", "prompt")
TOOL: Final = "extract_parameters"

TASK: Final = """Read the values of the parameters out of the text of the user.
{how} Keep to the names and types of the JSON Schema. What the text does not say is left out; guess nothing.
Earlier turns of the conversation, if there are any, only help to understand the text:
<history>
{histories}
</history>
{instruction}"""
BY_TOOL: Final = f"Call the tool {TOOL} with them."
BY_TEXT: Final = "Answer with one JSON object that holds them, and nothing else."

EXAMPLES: Final = (
    (
        {"city": {"type": "string", "description": "Where"}},
        "Will it rain in Lima tomorrow?",
        {"city": "Lima"},
    ),
    (
        {"meals": {"type": "array", "items": {"type": "string"}, "description": "Dishes"}},
        "Two soups and one salad, please.",
        {"meals": ["soup", "salad"]},
    ),
)


def prepare(node: Node, view: Values) -> ModelRequest:
    value = view.find(selector(node.data.get("query")))
    query = "" if value is None else as_text(value)
    instruction = render(text(node.data.get("instruction")), view.find)
    by_text = _request(node, view, query, instruction, tools=False)
    if node.data.get("reasoning_mode") == "prompt":
        return by_text
    tool = {"name": TOOL, "description": "Takes the values of the parameters.", "parameters": schema(node)}
    by_tool = _request(node, view, query, instruction, tools=True)
    return replace(by_tool, tools=(tool,), otherwise=by_text)


def conclude(node: Node, request: ModelRequest, answer: ModelAnswer | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message)
    found = _found(answer)
    named = [mapping(each) for each in sequence(node.data.get("parameters"))]
    reason = None if found else "The model gave no parameters."
    if found and len(found) != len(named):
        reason = f"The model gave {len(found)} parameters, not {len(named)}."
    outputs: dict[str, Any] = {}
    for spec in named:
        name, type = text(spec.get("name")), _type(spec)
        outputs[name], fits = _converted(type, found.get(name), sequence(spec.get("options")))
        if found and not fits and reason is None:
            reason = f"The parameter {name} is missing, or no {type}."
    usage = {"__usage": dict(answer.usage)}
    return Done({**outputs, "__is_success": 0 if reason else 1, "__reason": reason, **usage})


def check(node: Node) -> Iterator[Problem]:
    if (node.data.get("reasoning_mode") or MODES[0]) not in MODES:
        yield Problem(node.id, "reasoning_mode", f"It is {' or '.join(MODES)}.")
    for number, spec in enumerate(map(mapping, sequence(node.data.get("parameters")))):
        path = f"parameters[{number}]"
        name = text(spec.get("name"))
        if not name or name in RESERVED:
            yield Problem(node.id, f"{path}.name", f"It is a name, and none of {', '.join(RESERVED)}.")
        if _type(spec) not in EMPTY and _element(_type(spec)) not in ELEMENTS:
            yield Problem(node.id, f"{path}.type", "It is string, number, boolean, select or an array of those.")
        if str(spec.get("required", False)).strip().lower() not in TRUE | FALSE:
            yield Problem(node.id, f"{path}.required", "It is true or false.")


def schema(node: Node) -> dict[str, Any]:
    """The JSON Schema of the parameters."""
    properties, required = {}, []
    for spec in map(mapping, sequence(node.data.get("parameters"))):
        name, type = text(spec.get("name")), _type(spec)
        about = {"description": text(spec.get("description"))}
        if element := _element(type):
            properties[name] = {"type": "array", "items": {"type": element}, **about}
        else:
            options = {"enum": list(sequence(spec.get("options")))} if spec.get("options") else {}
            properties[name] = {"type": "string" if type == "select" else type, **options, **about}
        if flag(spec.get("required")):
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _request(node: Node, view: Values, query: str, instruction: str, *, tools: bool) -> ModelRequest:
    how = BY_TOOL if tools else BY_TEXT
    task = TASK.format(how=how, histories=prompt.HISTORIES, instruction=instruction)
    messages = [Message("system", task)]
    for number, (properties, said, found) in enumerate(EXAMPLES):
        written = json.dumps(found)
        asked = Message("user", _asked({"type": "object", "properties": properties}, said))
        if tools:
            call = {"id": f"example-{number}", "name": TOOL, "arguments": written}
            called = Message("assistant", "", calls=(call,))
            taken = Message("tool", "Taken.", call_id=call["id"])
            messages += [asked, called, taken, Message("assistant", "The parameters were taken.")]
        else:
            messages += [asked, Message("assistant", written)]
    messages.append(Message("user", _asked(schema(node), query)))
    return prompt.request(node, with_files(node, messages, view), view, inline=True)


def _asked(described: Mapping[str, Any], said: str) -> str:
    return f"Parameters:\n{json.dumps(described, ensure_ascii=False)}\nText:\n{said}"


def _found(answer: ModelAnswer) -> dict[str, Any]:
    for call in answer.tool_calls:
        if (found := first_object(text(call.get("arguments")))) is not None:
            return found
    return first_object(answer.text) or {}


def _type(spec: Mapping[str, Any]) -> str:
    return RENAMED.get(text(spec.get("type")), text(spec.get("type")))


def _element(type: str) -> str:
    return type[6:-1] if type.startswith("array[") and type.endswith("]") else ""


def _converted(type: str, given: Any, options: Any) -> tuple[Any, bool]:
    """A value of a type, and whether it was given as one."""
    if element := _element(type):
        items = [_item(element, each) for each in given] if isinstance(given, list) else []
        fits = isinstance(given, list) and all(fine for _, fine in items)
        return Value(values.array(element), [item for item, _ in items if item is not None]), fits
    if type in ("string", "select"):
        fits = isinstance(given, str) and (type == "string" or not options or given in options)
        return (given, fits) if isinstance(given, str) else ("", False)
    if type == "boolean":
        return (bool(given), isinstance(given, bool)) if isinstance(given, bool | int) else (False, False)
    number, fits = _item("number", given)
    return (0 if number is None else number), fits


def _item(element: str, given: Any) -> tuple[Any, bool]:
    """An item of a list, None for one that does not fit; and whether it was given as one."""
    if element != "number":
        return (given, True) if isinstance(given, ELEMENTS[element]) else (None, False)
    if isinstance(given, int | float):
        return (int(given) if isinstance(given, bool) else given), True
    if isinstance(given, str):
        try:
            return (float(given) if "." in given else int(given[:400])), False
        except ValueError:
            return None, False
    return None, False


TYPE = NodeType(
    "parameter-extractor",
    {
        "query": "The text.",
        "model": "The model.",
        "parameters": "Parameters: `name`, `type`, `description`, `required`, `options`.",
        "instruction": "Instruction, a template.",
        "reasoning_mode": "function_call or prompt.",
        "memory": "Earlier turns.",
        "vision": "Files to see.",
    },
    {
        "<parameter>": "Value, else an empty one of its type.",
        "__is_success": "1 where all was found, else 0.",
        "__reason": "Fault; null for none.",
        "__usage": "Tokens.",
    },
    prepare=prepare,
    conclude=conclude,
    check=check,
)
