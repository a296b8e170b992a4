"""Question-classifier: the branch that a model chooses."""

from __future__ import annotations

import json
from typing import Any, Final

from domain.workflows import prompt
from domain.workflows.graph import Node
from domain.workflows.node_type import (
    NODE_ERROR,
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
)
from domain.workflows.nodes.llm import with_files, without_thoughts
from domain.workflows.rendering import render
from domain.workflows.requests import Message, ModelAnswer, ModelRequest

NO_JSON: Final = "ValueError"
BROKEN_JSON: Final = "OutputParserError"

TASK: Final = """Put the text of the user into exactly one of the given categories.
Answer with one JSON object and nothing else: "keywords", a list of the words that decided; "category_id" and
"category_name", both copied from the category that fits best.
Earlier turns of the conversation, if there are any, only help to understand the text:
<history>
{histories}
</history>"""

EXAMPLES: Final = (
    (
        {"text": "The parcel came with a broken lid.", "categories": [("a1", "Complaint"), ("a2", "Praise")]},
        {"keywords": ["parcel", "broken lid"], "category_id": "a1", "category_name": "Complaint"},
    ),
    (
        {"text": "When does the shop open on Sunday?", "categories": [("7", "Prices"), ("8", "Opening hours")]},
        {"keywords": ["open", "Sunday"], "category_id": "8", "category_name": "Opening hours"},
    ),
)


def prepare(node: Node, view: Values) -> ModelRequest:
    query = data(view.find(selector(node.data.get("query_variable_selector"))))
    classes = [(id, name) for id, name, _ in _classes(node, view)]
    instruction = render(text(node.data.get("instruction")) or text(node.data.get("instructions")), view.find)
    messages = [Message("system", TASK.format(histories=prompt.HISTORIES))]
    for asked, answered in EXAMPLES:
        messages += [Message("user", _asked(asked, "")), Message("assistant", json.dumps(answered))]
    messages.append(Message("user", _asked({"text": text(query), "categories": classes}, instruction)))
    return prompt.request(node, with_files(node, messages, view), view, inline=True, then=_classes(node, view))


def conclude(node: Node, request: ModelRequest, answer: ModelAnswer | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type)
    if not (classes := request.then):
        raise Failed("There are no classes.", NODE_ERROR)
    found = _read(without_thoughts(answer.text))
    wanted = found.get("category_id")
    if isinstance(wanted, list | dict):
        raise Failed("The class that the model chose is no text.", NODE_ERROR)
    chosen = [each for each in classes if each[0] == wanted and "category_name" in found]
    id, name, label = (chosen or classes)[0]
    return Done({"class_name": name, "class_label": label, "class_id": id, "usage": dict(answer.usage)}, id)


def _read(said: str) -> dict[str, Any]:
    """The object from the first brace to the last."""
    start, end = said.find("{"), said.rfind("}")
    if not 0 <= start < end:
        listed = 0 <= said.find("[") < said.rfind("]")
        raise Failed("The answer of the model is no JSON object.", BROKEN_JSON if listed else NO_JSON)
    try:
        return dict(json.loads(said[start : end + 1]))
    except (ValueError, RecursionError) as error:
        raise Failed(f"The answer of the model is no JSON object: {error}", BROKEN_JSON) from error


def _classes(node: Node, view: Values) -> list[tuple[str, str, str]]:
    """Id, name and label of each class."""
    found = []
    for number, spec in enumerate(map(mapping, sequence(node.data.get("classes"))), 1):
        name = render(text(spec.get("name")), view.find)
        found.append((text(spec.get("id")), name, text(spec.get("label")) or f"CLASS {number}"))
    return found


def _asked(spec: Any, instruction: str) -> str:
    categories = [{"category_id": id, "category_name": name} for id, name in spec["categories"]]
    asked = {"text": spec["text"], "categories": categories}
    return json.dumps({**asked, "instructions": instruction} if instruction else asked, ensure_ascii=False)


TYPE = NodeType(
    "question-classifier",
    {
        "query_variable_selector": "The text.",
        "model": "The model.",
        "classes": "Branches: `id`, `name`, a template, `label`.",
        "instruction": "Instruction, a template.",
        "memory": "Earlier turns.",
        "vision": "Files to see.",
    },
    {"class_name": "Name of the class.", "class_label": "Its label.", "class_id": "Its id.", "usage": "Tokens."},
    prepare=prepare,
    conclude=conclude,
    branches=True,
)
