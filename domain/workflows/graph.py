"""A graph: the nodes and edges of a workflow, as an app file of Dify describes them.

Loading is lenient: what older files hold, and no run needs, is ignored with a warning. What only a run needs is a
problem: the graph is a draft that cannot run yet.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from domain.aggregate import Rejection

MODES: Final = ("workflow", "advanced-chat")
OTHER_KINDS: Final = ("rag_pipeline", "snippet")
START: Final = "start"
TRIGGERS: Final = ("trigger-webhook", "trigger-schedule", "trigger-plugin")
CONTAINERS: Final = ("iteration", "loop")
INNER_STARTS: Final = ("iteration-start", "loop-start")
STRATEGIES: Final = ("fail-branch", "default-value")
RENAMED: Final = {"variable-assigner": "variable-aggregator"}
"""Types of old files, which have nothing to do with an `assigner`."""

SOURCE: Final = "source"
"""The handle of edges that are taken after success."""
FAILED: Final = "fail-branch"
"""The handle of edges that are taken after an error."""

DEPTH: Final = 100
NODES: Final = 5_000
EDGES: Final = 20_000
VALUES: Final = 1_000_000
"""Largest number of values in a file, with those that anchors repeat."""


@dataclass(frozen=True)
class Problem:
    """A reason why a graph cannot run."""

    node: str | None
    field: str
    rule: str


@dataclass(frozen=True)
class Edge:
    """A way from one node to the next, taken when the source ends with its handle."""

    id: str
    source: str
    handle: str
    target: str


@dataclass(frozen=True)
class Retry:
    """The tries of a node after an error."""

    tries: int = 0
    interval_ms: int = 0
    enabled: bool = False


@dataclass(frozen=True)
class Node:
    """A node. `data` holds the fields of its type."""

    id: str
    type: str
    title: str
    version: str
    data: Mapping[str, Any]
    owner: str | None
    """The iteration or loop that it is in; None at the top."""
    strategy: str | None
    """After the last error: `fail-branch`, `default-value`, or None to fail the run."""
    retry: Retry


@dataclass(frozen=True)
class Variable:
    """A variable of the environment or of conversations."""

    name: str
    type: str
    value: Any
    description: str = ""
    id: str = ""


@dataclass(frozen=True)
class Scope:
    """The nodes at the top, or those of one container."""

    owner: str | None
    entry: str | None
    """Where it begins; None where there is no such node."""
    nodes: tuple[str, ...]
    """Ids, in the order of the file."""
    edges: tuple[Edge, ...]

    @cached_property
    def outgoing(self) -> Mapping[str, tuple[Edge, ...]]:
        return _by(self.edges, "source")

    @cached_property
    def incoming(self) -> Mapping[str, tuple[Edge, ...]]:
        return _by(self.edges, "target")


@dataclass(frozen=True)
class Graph:
    mode: str
    nodes: Mapping[str, Node]
    scopes: Mapping[str | None, Scope]
    environment: tuple[Variable, ...]
    conversation: tuple[Variable, ...]
    features: Mapping[str, Any]
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """Parts of the document that were ignored, for people."""
    problems: tuple[Problem, ...] = ()
    """Reasons why it cannot run, apart from the fields of single nodes."""

    @property
    def entry(self) -> str | None:
        return self.scopes[None].entry

    @cached_property
    def normalised(self) -> dict[str, Any]:
        """A document of the same meaning, without what is only for screens and without secrets; loading it gives an
        equal graph."""
        edges = [edge for scope in self.scopes.values() for edge in scope.edges]
        return {
            "kind": "app",
            "app": {"mode": self.mode},
            "workflow": {
                "graph": {
                    "nodes": [_node(node) for node in self.nodes.values()],
                    "edges": [
                        {"id": e.id, "source": e.source, "sourceHandle": e.handle, "target": e.target} for e in edges
                    ],
                },
                "environment_variables": [_variable(each) for each in self.environment],
                "conversation_variables": [_variable(each) for each in self.conversation],
                "features": dict(self.features),
            },
        }

    @cached_property
    def text(self) -> bytes:
        """The normalised document as JSON, the same for equal graphs."""
        text = json.dumps(self.normalised, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode(errors="surrogatepass")

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the normalised document."""
        return hashlib.sha256(self.text).hexdigest()


def load(document: Mapping[str, Any]) -> Graph:
    """The graph of an app file of the modes `workflow` and `advanced-chat`. Raises: Rejection."""
    return _Loading(document).graph()


def loaded_from(workflow: Mapping[str, Any], mode: str) -> Graph:
    """The graph of the part `workflow` of an app file. Raises: Rejection."""
    return load({"kind": "app", "app": {"mode": mode}, "workflow": workflow})


class _Loading:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.warnings: list[str] = []
        self.problems: list[Problem] = []
        whole = _mapping(plain(document), "")
        if (kind := _text(whole.get("kind"))) in OTHER_KINDS:
            raise Rejection("invalid", f"A file of the kind {kind} is no app.", "kind")
        mode = _text(_mapping(whole.get("app"), "app").get("mode"))
        if mode not in MODES:
            raise Rejection("invalid", f"A graph has the mode {' or '.join(sorted(MODES))}.", "app.mode")
        self.mode = mode
        self.workflow = _mapping(whole.get("workflow"), "workflow")

    def graph(self) -> Graph:
        spec = _mapping(self.workflow.get("graph"), "workflow.graph")
        nodes = self._nodes(_sequence(spec.get("nodes"), "workflow.graph.nodes"))
        edges = self._edges(_sequence(spec.get("edges") or [], "workflow.graph.edges"), nodes)
        return Graph(
            mode=self.mode,
            nodes=nodes,
            scopes=self._scopes(nodes, edges),
            environment=self._variables("environment_variables"),
            conversation=self._variables("conversation_variables"),
            features=_optional(self.workflow.get("features"), "workflow.features"),
            warnings=tuple(self.warnings),
            problems=tuple(self.problems),
        )

    def _nodes(self, spec: Sequence[Any]) -> dict[str, Node]:
        if len(spec) > NODES:
            raise Rejection("invalid", f"A graph has at most {NODES:,} nodes.", "workflow.graph.nodes")
        raw: dict[str, Mapping[str, Any]] = {}
        for number, each in enumerate(spec):
            path = f"workflow.graph.nodes[{number}]"
            node = _mapping(each, path)
            data = _optional(node.get("data"), f"{path}.data")
            if node.get("type") == "custom-note" or (not data.get("type") and not node.get("id")):
                continue
            id = _id(node.get("id"), f"{path}.id")
            if id in raw:
                raise Rejection("invalid", f"Two nodes have the id {id}; give each its own.", f"{path}.id")
            raw[id] = {**node, "data": data, "path": path}
        containers = {id for id, node in raw.items() if _text(node["data"].get("type")) in CONTAINERS}
        return {id: self._one(id, node, containers) for id, node in raw.items()}

    def _one(self, id: str, spec: Mapping[str, Any], containers: set[str]) -> Node:
        data: dict[str, Any] = dict(spec["data"])
        type = data.pop("type", None)
        if not isinstance(type, str) or not type:
            self.problems.append(Problem(id, "type", "A node has a type."))
            type = ""
        strategy = _text(data.get("error_strategy")) or None
        if strategy is not None and strategy not in STRATEGIES:
            self.problems.append(Problem(id, "error_strategy", "It is fail-branch or default-value."))
            strategy = None
        return Node(
            id=id,
            type=RENAMED.get(type, type),
            title=_text(data.get("title")),
            version=_text(data.get("version") or "1"),
            data=data,
            owner=self._owner(id, spec, containers),
            strategy=strategy,
            retry=self._retry(id, data),
        )

    def _owner(self, id: str, spec: Mapping[str, Any], containers: set[str]) -> str | None:
        data = spec["data"]
        named = [data.get("container_id"), spec.get("parentId"), data.get("iteration_id"), data.get("loop_id")]
        owners = [_text(each) for each in named if each not in (None, "")]
        for owner in owners:
            if owner in containers and owner != id:
                return owner
        if owners:
            self.warnings.append(f"Node {id}: its container {owners[0]} is not there; it stands at the top.")
        return None

    def _retry(self, id: str, data: Mapping[str, Any]) -> Retry:
        if "retry_config" in data and not isinstance(data["retry_config"], Mapping):
            self.problems.append(Problem(id, "retry_config", "It is an object; leave it out to try once."))
            return Retry()
        spec = data.get("retry_config", {})
        if not spec.get("retry_enabled"):
            return Retry()
        return Retry(self._count(id, spec, "max_retries"), self._count(id, spec, "retry_interval"), enabled=True)

    def _count(self, id: str, spec: Mapping[str, Any], name: str) -> int:
        value = spec.get(name)
        if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
            value = int(value)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problems.append(Problem(id, f"retry_config.{name}", "It is a number."))
            return 0
        return max(0, int(value))

    def _edges(self, spec: Sequence[Any], nodes: Mapping[str, Node]) -> list[Edge]:
        if len(spec) > EDGES:
            raise Rejection("invalid", f"A graph has at most {EDGES:,} edges.", "workflow.graph.edges")
        edges: list[Edge] = []
        taken: set[str] = set()
        for number, each in enumerate(spec):
            path = f"workflow.graph.edges[{number}]"
            edge = _mapping(each, path)
            ends = [_id(edge.get(end), f"{path}.{end}") for end in ("source", "target")]
            if gone := [end for end in ends if end not in nodes]:
                self.warnings.append(f"Edge {ends[0]} to {ends[1]}: there is no node {gone[0]}; the edge is ignored.")
                continue
            id = base = _text(edge.get("id")) or f"{ends[0]}-{ends[1]}"
            more = 1
            while id in taken:
                more += 1
                id = f"{base}-{more}"
            taken.add(id)
            edges.append(Edge(id, ends[0], _handle(edge.get("sourceHandle"), nodes[ends[0]]), ends[1]))
        return edges

    def _scopes(self, nodes: Mapping[str, Node], edges: Sequence[Edge]) -> dict[str | None, Scope]:
        """An edge between scopes belongs to its target's, where its source never ends: so the target never runs."""
        owners = [None, *(id for id, node in nodes.items() if node.type in CONTAINERS)]
        within: dict[str | None, list[str]] = {owner: [] for owner in owners}
        for id, node in nodes.items():
            within[node.owner].append(id)
        ways: dict[str | None, list[Edge]] = {owner: [] for owner in owners}
        for edge in edges:
            source, target = nodes[edge.source], nodes[edge.target]
            ways[target.owner].append(edge)
            if source.owner != target.owner:
                self.warnings.append(
                    f"Edge {edge.source} to {edge.target} crosses the border of a container: "
                    f"{edge.target} never runs; end the edge inside."
                )
        scopes = {}
        for owner in owners:
            entry = self._entry(nodes, within[owner], ways[owner], owner)
            scopes[owner] = Scope(owner, entry, tuple(within[owner]), tuple(ways[owner]))
            self._cycles(scopes[owner])
        self._rings(nodes)
        return scopes

    def _rings(self, nodes: Mapping[str, Node]) -> None:
        for id in nodes:
            seen, owner = {id}, nodes[id].owner
            while owner is not None:
                if owner in seen:
                    raise Rejection("invalid", f"The container {owner} is inside of itself.", "workflow.graph.nodes")
                seen.add(owner)
                owner = nodes[owner].owner

    def _entry(
        self, nodes: Mapping[str, Node], within: Sequence[str], edges: Sequence[Edge], owner: str | None
    ) -> str | None:
        if owner is None:
            starts = [id for id in within if nodes[id].type == START]
            triggers = [id for id in within if nodes[id].type in TRIGGERS]
            if len(starts) > 1 or (starts and triggers):
                rule = "A graph has one start node, or triggers; remove the others."
                self.problems.append(Problem((starts + triggers)[-1], "type", rule))
            if not starts and not triggers:
                self.problems.append(Problem(None, "graph.nodes", "A graph begins with a start node or a trigger."))
            return next((id for id in within if id in {*starts, *triggers}), None)
        named = _text(nodes[owner].data.get("start_node_id"))
        if named in within:
            return named
        reached = {edge.target for edge in edges}
        inner = [id for id in within if nodes[id].type in INNER_STARTS] or [id for id in within if id not in reached]
        if not inner:
            self.problems.append(Problem(owner, "start_node_id", "It names the first node inside."))
            return None
        if named:
            self.warnings.append(f"Node {owner}: its start node {named} is not inside; it begins with {inner[0]}.")
        return inner[0]

    def _cycles(self, scope: Scope) -> None:
        waiting = {id: sum(1 for _ in scope.incoming.get(id, ())) for id in scope.nodes}
        if scope.entry is not None:
            waiting[scope.entry] = 0
        ready = [id for id in scope.nodes if not waiting[id]]
        done = set(ready)
        while ready:
            for edge in scope.outgoing.get(ready.pop(), ()):
                if edge.target in waiting:
                    waiting[edge.target] -= 1
                    if not waiting[edge.target] and edge.target not in done:
                        done.add(edge.target)
                        ready.append(edge.target)
        if left := [id for id in scope.nodes if id not in done]:
            self.warnings.append(f"These nodes wait for each other and never run: {', '.join(left[:20])}.")

    def _variables(self, name: str) -> tuple[Variable, ...]:
        found: dict[str, Variable] = {}
        for number, each in enumerate(_sequence(self.workflow.get(name) or [], f"workflow.{name}")):
            path = f"workflow.{name}[{number}]"
            spec = _mapping(each, path)
            if not (named := _text(spec.get("name"))):
                raise Rejection("invalid", "A variable has a name.", f"{path}.name")
            if not (type := _text(spec.get("value_type"))):
                raise Rejection("invalid", f"The variable {named} has a value_type.", f"{path}.value_type")
            variable = Variable(named, type, spec.get("value"), _text(spec.get("description")), _text(spec.get("id")))
            if named in found:
                self.warnings.append(f"The variable {named} is there twice; the last one counts.")
            found[named] = variable
        return tuple(found.values())


def plain(document: object) -> Any:
    """A parsed file as JSON: other scalars, as dates, become text. Raises: Rejection."""
    return _Plain().value(document, 0, "")


class _Plain:
    def __init__(self) -> None:
        self.seen = 0

    def value(self, value: object, depth: int, path: str) -> Any:
        self.seen += 1
        if depth > DEPTH or self.seen > VALUES:
            raise Rejection("invalid", f"A file is at most {DEPTH} levels deep, with {VALUES:,} values.", path or None)
        if isinstance(value, str) and "\0" in value:
            raise Rejection("invalid", "Must not contain NUL characters.", path.replace("\0", "�") or None)
        if isinstance(value, Mapping):
            named = ((self.value(_text(key), depth, path), each) for key, each in value.items())
            return {name: self.value(each, depth + 1, f"{path}.{name}"[-200:]) for name, each in named}
        if isinstance(value, list | tuple):
            return [self.value(each, depth + 1, path) for each in value]
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        return str(value)


def _handle(spec: object, source: Node) -> str:
    handle = _text(spec) or SOURCE
    return SOURCE if handle == "success-branch" and source.strategy == FAILED else handle


def _by(edges: Sequence[Edge], end: str) -> dict[str, tuple[Edge, ...]]:
    found: dict[str, list[Edge]] = {}
    for edge in edges:
        found.setdefault(getattr(edge, end), []).append(edge)
    return {id: tuple(each) for id, each in found.items()}


def _node(node: Node) -> dict[str, Any]:
    spec = {"id": node.id, "data": {"type": node.type, **node.data}}
    return spec if node.owner is None else {**spec, "parentId": node.owner}


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "id": variable.id,
        "name": variable.name,
        "value_type": variable.type,
        "value": "" if variable.type == "secret" else variable.value,
        "description": variable.description,
    }


def _id(spec: object, path: str) -> str:
    if isinstance(spec, bool) or not isinstance(spec, str | int | float) or spec == "":
        raise Rejection("invalid", "It is a text that names a node.", path)
    return str(spec)


def _text(spec: object) -> str:
    return "" if spec is None else spec if isinstance(spec, str) else str(spec)


def _mapping(spec: object, path: str) -> Mapping[str, Any]:
    if not isinstance(spec, Mapping):
        raise Rejection("invalid", "It is an object, and has to be there.", path or None)
    return spec


def _optional(spec: object, path: str) -> Mapping[str, Any]:
    return {} if spec is None else _mapping(spec, path)


def _sequence(spec: object, path: str) -> Sequence[Any]:
    if not isinstance(spec, list):
        raise Rejection("invalid", "It is a list.", path)
    return spec


def texts(problems: Sequence[Problem]) -> Iterator[str]:
    """Problems, for people."""
    for each in problems:
        yield f"Node {each.node}, {each.field}: {each.rule}" if each.node else f"{each.field}: {each.rule}"
