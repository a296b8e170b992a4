"""Code and templates that cannot be read: found before they run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import SandboxedEnvironment

from domain.workflows.graph import Graph
from domain.workflows.report import Reason

TOO_DEEP = (RecursionError, MemoryError)


def unreadable(graph: Graph) -> dict[str, list[Reason]]:
    """Why code or templates of nodes cannot run, by node."""
    found = {}
    for id, node in graph.nodes.items():
        if reasons := list(_of_node(node.type, node.data)):
            found[id] = reasons
    return found


def _of_node(type: str, data: Mapping[str, Any]) -> Iterator[Reason]:
    if type == "code" and data.get("code_language") == "python3":
        yield from _fault("code", data.get("code"), _python)
    if type == "template-transform":
        yield from _fault("template", data.get("template"), _jinja)


def _fault(field: str, text: object, parse: Callable[[str], str | None]) -> Iterator[Reason]:
    if not isinstance(text, str):
        return
    try:
        fault = parse(text)
    except TOO_DEEP:
        fault = "It is nested too deep."
    if fault:
        yield Reason("cannot", field, fault)


def _python(text: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except SyntaxError as error:
        return f"It is no Python: {error.msg}, line {error.lineno}."
    except ValueError as error:
        return f"It is no Python: {error}."
    return None


def _jinja(text: str) -> str | None:
    try:
        _environment().parse(text)
    except TemplateError as error:
        return f"It is no template: {str(error)[:200]}"
    return None


@cache
def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment()
