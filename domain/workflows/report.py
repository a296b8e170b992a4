"""A report on an app file: what of it runs, runs with a change, or cannot run yet, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from domain.workflows import needs
from domain.workflows.graph import Graph, Node
from domain.workflows.mapping import KINDS, Replacements
from domain.workflows.needs import Known, Need
from domain.workflows.node_types import problems
from domain.workflows.rendering import references

Status = Literal["runs", "changed", "cannot"]

STATUSES: Final[Mapping[Status, str]] = {
    "runs": "runs",
    "changed": "runs with a change",
    "cannot": "cannot run yet",
}

NAMESPACES: Final = frozenset({"sys", "env", "conversation", "rag"})


class Reason(NamedTuple):
    """Why a part does not run as it is, or what is worth to know (`runs`)."""

    status: Status
    field: str
    message: str


@dataclass(frozen=True)
class Part:
    """A node, or a part of a configuration."""

    id: str
    type: str
    title: str
    reasons: tuple[Reason, ...] = ()

    @property
    def status(self) -> Status:
        found = {reason.status for reason in self.reasons}
        return "cannot" if "cannot" in found else "changed" if "changed" in found else "runs"


@dataclass(frozen=True)
class Report:
    name: str
    mode: str
    version: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    """Facts about the file as a whole: what was ignored, or is worth to know."""
    problems: tuple[Reason, ...] = ()
    """Reasons why the whole cannot run."""

    @property
    def status(self) -> Status:
        found = {part.status for part in self.parts}
        return "cannot" if "cannot" in found or self.problems else "changed" if "changed" in found else "runs"

    def count(self, status: Status) -> int:
        return sum(part.status == status for part in self.parts)

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "mode": self.mode,
            "version": self.version,
            "status": self.status,
            "counts": {status: self.count(status) for status in STATUSES},
            "notes": list(self.notes),
            "problems": [_plain(each) for each in self.problems],
            "parts": [
                {
                    "id": part.id,
                    "type": part.type,
                    "title": part.title,
                    "status": part.status,
                    "reasons": [_plain(each) for each in part.reasons],
                }
                for part in self.parts
            ],
        }


def _plain(reason: Reason) -> dict[str, str]:
    return {"status": reason.status, "field": reason.field, "message": reason.message}


def of_graph(
    graph: Graph,
    original: Graph,
    known: Known | None,
    given: Replacements,
    others: Mapping[str, Sequence[Reason]],
    **about: str,
) -> Report:
    """The report on a graph that was made of `original` by a mapping, with other reasons by node.

    Without `known`, needs are only named.
    """
    found = problems(graph)
    parts = []
    for id, node in graph.nodes.items():
        own = [Reason("cannot", each.field, each.rule) for each in found if each.node == id]
        wanted = needs.of_node(original.nodes[id].type, original.nodes[id].data)
        noted = [*_clear_keys(node), *_gone(node, graph)]
        reasons = [*own, *changes(node), *of_needs(wanted, known, given), *others.get(id, ()), *noted]
        parts.append(Part(id, node.type, node.title, tuple(dict.fromkeys(reasons))))
    return Report(
        **_about(about),
        parts=tuple(parts),
        notes=(*_notes(about), *graph.warnings),
        problems=tuple(Reason("cannot", each.field, each.rule) for each in found if each.node is None),
    )


def _about(about: Mapping[str, str]) -> dict[str, str]:
    return {name: about.get(name, "") for name in ("name", "mode", "version")}


def _notes(about: Mapping[str, str]) -> Sequence[str]:
    return [about["note"]] if about.get("note") else []


def of_needs(wanted: Iterator[Need], known: Known | None, given: Replacements) -> Iterator[Reason]:
    """Missing needs, and mapped ones."""
    for need in wanted:
        new = given.of(need)
        lacking = known and known.lacks(Need(need.kind, new or need.name, need.path))
        if lacking:
            yield Reason("cannot", need.field, f"{lacking}{_advice(need)}.")
        elif new and new != need.name:
            yield Reason("changed", need.field, f"{new} stands for the {need.kind} {need.name}.")
        elif known is None:
            yield Reason("runs", need.field, f"It needs the {need.kind} {need.name}.")


def _advice(need: Need) -> str:
    if need.kind == "event":
        return ": begin with a webhook or a schedule"
    if need.kind not in KINDS:
        return ": install and enable one"
    news = {"dataset": "ID", "tool": "TOOLSET/TOOL"}
    return f"; add it, or map it: {need.kind}:{need.name}={news.get(need.kind, 'PROVIDER/MODEL')}"


def changes(node: Node) -> Iterator[Reason]:
    """Where a node is read in another way than it says."""
    if find := _CHANGES.get(node.type):
        yield from (Reason("changed", field, message) for field, message in find(node.data))


Found = Iterator[tuple[str, str]]


def _code(data: Mapping[str, Any]) -> Found:
    if isinstance(data.get("outputs"), list):
        yield "outputs", "The list of outputs is read as an object by their names."


def _assigner(data: Mapping[str, Any]) -> Found:
    if str(data.get("version")) not in ("1", "2", "None"):
        yield "version", f"Version {data['version']} is read as 2."
    if not data.get("items") and not data.get("assigned_variable_selector"):
        yield "items", "It assigns nothing."


def _http(data: Mapping[str, Any]) -> Found:
    body = data.get("body")
    if isinstance(body, Mapping) and isinstance(body.get("data"), str) and body["data"]:
        yield "body.data", "The text is read as the body; of forms, each line is a field."


def _tool(data: Mapping[str, Any]) -> Found:
    entry = data.get("tool_configurations")
    empty = [name for name, value in entry.items() if value is None] if isinstance(entry, Mapping) else []
    if empty:
        yield "tool_configurations", f"Settings that are null are left out: {', '.join(map(str, empty))}."


def _if_else(data: Mapping[str, Any]) -> Found:
    cases = data.get("cases") if isinstance(data.get("cases"), list) else [data]
    for number, case in enumerate(cases or []):
        conditions = case.get("conditions") if isinstance(case, Mapping) else None
        for place, each in enumerate(conditions if isinstance(conditions, list) else []):
            if not isinstance(each, Mapping):
                continue
            field = f"cases[{number}].conditions[{place}]" if "cases" in data else f"conditions[{place}]"
            if each.get("comparison_operator") in ("is empty", "is not empty"):
                operator = str(each["comparison_operator"]).removeprefix("is ")
                yield f"{field}.comparison_operator", f"It is read as {operator}."
            if isinstance(each.get("value"), int | float) and not isinstance(each.get("value"), bool):
                yield f"{field}.value", "The number is read as a text."


def _human_input(data: Mapping[str, Any]) -> Found:
    methods = data.get("delivery_methods")
    for number, each in enumerate(methods if isinstance(methods, list) else []):
        if isinstance(each, Mapping) and each.get("type") == "email" and each.get("enabled", True):
            yield f"delivery_methods[{number}]", "No mail is sent: the form is answered by a command."


_CHANGES: Final[Mapping[str, Callable[[Mapping[str, Any]], Found]]] = {
    "code": _code,
    "assigner": _assigner,
    "http-request": _http,
    "tool": _tool,
    "if-else": _if_else,
    "human-input": _human_input,
}


def _clear_keys(node: Node) -> Iterator[Reason]:
    """Keys that stand in the node, and so in tables and in the exported file."""
    authorization = node.data.get("authorization")
    if not isinstance(authorization, Mapping) or authorization.get("type") != "api-key":
        return
    config = authorization.get("config")
    key = config.get("api_key") if isinstance(config, Mapping) else None
    if isinstance(key, str) and key and not references(key):
        field = "authorization.config.api_key"
        yield Reason("runs", field, "The key stands in the node: move it to a secret variable of the environment.")


def _gone(node: Node, graph: Graph) -> Iterator[Reason]:
    """References to nodes that are not there: they are missing in a run."""
    for field, selector in _selectors(node.data, ""):
        first = selector[0]
        if first not in graph.nodes and first not in NAMESPACES and first != node.id:
            yield Reason("runs", field, f"{'.'.join(selector)} names a node that is not there.")


def _selectors(entry: Any, field: str) -> Iterator[tuple[str, Sequence[str]]]:
    if isinstance(entry, str):
        yield from ((field, selector) for selector in references(entry))
    elif isinstance(entry, Mapping):
        for name, each in entry.items():
            yield from _selectors(each, f"{field}.{name}" if field else name)
    elif isinstance(entry, list):
        if field.rpartition(".")[2].endswith("selector") and len(entry) > 1 and all(isinstance(x, str) for x in entry):
            yield field, entry
            return
        for number, each in enumerate(entry):
            yield from _selectors(each, f"{field}[{number}]")
