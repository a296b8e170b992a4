"""If-else: the branch whose conditions hold."""

from __future__ import annotations

from collections.abc import Iterator

from domain.workflows import conditions
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import Done, NodeType, Values, mapping, sequence, text


def run(node: Node, view: Values) -> Done:
    if node.data.get("cases") is None:
        held = _holds(node.data, view)
        return _done("true" if held else "false", result=held)
    for case in map(mapping, sequence(node.data.get("cases"))):
        if _holds(case, view):
            return _done(text(case.get("case_id")), result=True)
    return _done("false", result=False)


def check(node: Node) -> Iterator[Problem]:
    yield from conditions.problems(node.id, "conditions", node.data.get("conditions"))
    for number, case in enumerate(map(mapping, sequence(node.data.get("cases")))):
        yield from conditions.problems(node.id, f"cases[{number}].conditions", case.get("conditions"))


def _holds(spec: object, view: Values) -> bool:
    case = mapping(spec)
    listed = [mapping(each) for each in sequence(case.get("conditions"))]
    return conditions.hold(listed, text(case.get("logical_operator")) or "and", view)


def _done(handle: str, *, result: bool) -> Done:
    return Done({"result": result, "selected_case_id": handle}, handle)


TYPE = NodeType(
    "if-else",
    {
        "cases": "Branches: `case_id`, `logical_operator`, `conditions`; the first that holds is taken.",
        "conditions": "Of old files: the conditions of the branch `true`.",
        "logical_operator": "Of old files: `and` or `or`.",
    },
    {"result": "True if a case held.", "selected_case_id": "The case, else `false`."},
    run=run,
    check=check,
    branches=True,
)
