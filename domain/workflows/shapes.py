"""Shapes of the fields of nodes: what each type needs, and what its fields hold. Null is as good as missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import FALSE, TRUE

Fault = tuple[str, str]
"""A path below a field, and the rule that it breaks."""
Shape = Callable[[Any], Iterator[Fault]]


def check(node: Node) -> Iterator[Problem]:
    """The fields of a node that are missing, or have another shape."""
    if shape := SHAPES.get(node.type):
        for path, rule in shape(node.data):
            yield Problem(node.id, path.lstrip("."), rule)


def _text(value: Any) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield "", "It is a text."


def _flag(value: Any) -> Iterator[Fault]:
    if str(value).strip().lower() not in TRUE | FALSE:
        yield "", "It is true or false."


def _selector(value: Any) -> Iterator[Fault]:
    parts = value if isinstance(value, list) else [None]
    if not all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts):
        yield "", "It is a list: the node, the name."


def _listed(of: Shape) -> Shape:
    def check(value: Any) -> Iterator[Fault]:
        if not isinstance(value, list):
            yield "", "It is a list."
            return
        for number, each in enumerate(value):
            yield from ((f"[{number}]{path}", rule) for path, rule in of(each))

    return check


def _fields(*, needs: Mapping[str, Shape], may: Mapping[str, Shape] | None = None) -> Shape:
    def check(value: Any) -> Iterator[Fault]:
        if not isinstance(value, Mapping):
            yield "", "It is an object."
            return
        for name, shape in {**needs, **(may or {})}.items():
            if value.get(name) is not None:
                yield from ((f".{name}{path}", rule) for path, rule in shape(value[name]))
            elif name in needs:
                yield f".{name}", "It is needed."

    return check


def _one_of(*names: str) -> Shape:
    def check(value: Any) -> Iterator[Fault]:
        if value not in names:
            yield "", f"It is {', '.join(names[:-1])} or {names[-1]}."

    return check


_VARIABLES: Final = _listed(_fields(needs={"variable": _text, "value_selector": _selector}))
_AND_OR: Final = _one_of("and", "or")
_CONDITIONS: Final = _listed(_fields(needs={"variable_selector": _selector}))
_MODEL: Final = _fields(needs={"provider": _text, "name": _text, "mode": _one_of("chat", "completion")})
_VISION: Final = _fields(needs={}, may={"enabled": _flag, "configs": _fields(needs={})})
_SWITCH: Final = _fields(needs={"enabled": _flag})
_MESSAGE: Final = _fields(needs={"role": _one_of("system", "user", "assistant")})


def _prompt(value: Any) -> Iterator[Fault]:
    kinds = {"edition_type": _one_of("basic", "jinja2")}
    whole = _fields(needs={"text": _text}, may=kinds) if isinstance(value, Mapping) else _listed(_MESSAGE)
    yield from whole(value)


SHAPES: Final[Mapping[str, Shape]] = {
    "answer": _fields(needs={"answer": _text}),
    "end": _fields(needs={}, may={"outputs": _listed(_fields(needs={"variable": _text}))}),
    "template-transform": _fields(needs={"template": _text}, may={"variables": _VARIABLES}),
    "code": _fields(needs={"code": _text}, may={"variables": _VARIABLES}),
    "if-else": _fields(
        needs={},
        may={
            "cases": _listed(_fields(needs={"case_id": _text, "logical_operator": _AND_OR, "conditions": _CONDITIONS})),
            "conditions": _CONDITIONS,
        },
    ),
    "llm": _fields(
        needs={"model": _MODEL, "prompt_template": _prompt, "context": _SWITCH},
        may={"vision": _VISION, "reasoning_format": _one_of("tagged", "separated")},
    ),
    "question-classifier": _fields(
        needs={
            "query_variable_selector": _selector,
            "model": _MODEL,
            "classes": _listed(_fields(needs={"id": _text, "name": _text})),
        },
        may={"vision": _VISION},
    ),
    "parameter-extractor": _fields(
        needs={"query": _selector, "model": _MODEL, "parameters": _listed(_fields(needs={}))}, may={"vision": _VISION}
    ),
    "http-request": _fields(
        needs={"url": _text}, may={"headers": _text, "params": _text, "timeout": _fields(needs={})}
    ),
    "tool": _fields(needs={"provider_id": _text, "tool_name": _text}, may={"tool_parameters": _fields(needs={})}),
    "variable-aggregator": _fields(needs={}, may={"variables": _listed(_selector)}),
    "list-operator": _fields(
        needs={"variable": _selector},
        may={
            "filter_by": _fields(needs={}, may={"enabled": _flag, "conditions": _listed(_fields(needs={}))}),
            "extract_by": _fields(needs={}, may={"enabled": _flag}),
            "order_by": _fields(needs={}, may={"enabled": _flag, "value": _one_of("asc", "desc")}),
            "limit": _fields(needs={}, may={"enabled": _flag}),
        },
    ),
    "document-extractor": _fields(needs={"variable_selector": _selector}),
    "loop": _fields(needs={}, may={"break_conditions": _CONDITIONS, "logical_operator": _AND_OR}),
    "iteration": _fields(needs={"iterator_selector": _selector, "output_selector": _selector}),
    "assigner": _fields(
        needs={},
        may={
            "items": _listed(
                _fields(needs={"variable_selector": _selector, "input_type": _one_of("variable", "constant")})
            ),
        },
    ),
}
