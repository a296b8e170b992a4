"""A frame: a scope that runs, with the state of its edges and the values of its nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from domain.workflows.graph import Edge, Node, Scope
from domain.workflows.node_type import Values
from domain.workflows.values import Value


@dataclass(frozen=True)
class Plan:
    """The beginning of a scope: branches that begin elsewhere than at its entry are skipped."""

    scope: Scope
    entry: str | None
    waiting: Mapping[str, int]
    """Number of edges to each node that are not decided."""
    skipped: frozenset[str]


def plan(scope: Scope, entry: str | None) -> Plan:
    waiting = {id: len(scope.incoming.get(id, ())) for id in scope.nodes}
    skipped: set[str] = set()
    ready = [id for id, count in waiting.items() if not count and id != entry]
    while ready:
        id = ready.pop()
        skipped.add(id)
        for edge in scope.outgoing.get(id, ()):
            waiting[edge.target] -= 1
            if not waiting[edge.target] and edge.target != entry:
                ready.append(edge.target)
    return Plan(scope, entry, waiting, frozenset(skipped))


@dataclass(frozen=True)
class ItemFailed:
    """The end of an item with an error."""

    error: str


class Container(Protocol):
    """An iteration or a loop that runs."""

    node: Node
    key: str
    frame: Frame
    leaving: bool
    closed: bool

    @property
    def done(self) -> bool: ...
    def next(self) -> int | None:
        """The item that may begin now."""
        ...

    def announces(self, index: int) -> bool:
        """Test for an item whose beginning is announced."""
        ...

    def seen(self, index: int) -> dict[str, Value]:
        """The values of an item under the id of the container."""
        ...

    def ended(self, index: int, view: Values, failed: ItemFailed | None) -> bool:
        """Take the end of an item, and return whether it failed and the container goes on. Raises: Failed."""
        ...

    def outputs(self) -> dict[str, Value]: ...


class Frame:
    """The top of a graph, one item of an iteration, or one round of a loop."""

    def __init__(self, plan: Plan, path: str, parent: Frame | None, container: Container | None, index: int) -> None:
        self.plan, self.path, self.parent, self.container, self.index = plan, path, parent, container, index
        self.waiting = dict(plan.waiting)
        self.decided = set(plan.skipped)
        self.taken: set[str] = set()
        self.values: dict[str, dict[str, Value]] = {}
        self.open = 0
        """Number of nodes that were started and have not ended."""
        self.closed = False

    def key(self, id: str) -> str:
        """The name of the execution of a node: the path to it, as a JSON pointer."""
        return self.path + id.replace("~", "~0").replace("/", "~1")

    def leave(self, id: str, handle: str | None) -> list[Edge]:
        """The edges that are taken after a node: those of the handle, None for all."""
        return [edge for edge in self.plan.scope.outgoing.get(id, ()) if handle in (None, edge.handle)]

    def follow(self, id: str, taken: list[Edge]) -> list[str]:
        """Skip the edges of a node that are not taken, then take the others; the nodes that are decided by it."""
        chosen = {edge.id for edge in taken}
        edges = self.plan.scope.outgoing.get(id, ())
        decided = [edge.target for edge in edges if edge.id not in chosen and self._skips(edge.target)]
        self.taken.update(edge.target for edge in taken)
        return decided + [edge.target for edge in taken if self._skips(edge.target)]

    def _skips(self, target: str) -> bool:
        """Take note of a decided edge; test for the last one."""
        if target in self.decided:
            return False
        self.waiting[target] -= 1
        return not self.waiting[target]

    def around(self) -> Iterator[Frame]:
        """The frame, and those around it."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.parent

    @property
    def gone(self) -> bool:
        """Test for a frame that was given up, or is inside of one."""
        return any(each.closed or (each.container is not None and each.container.closed) for each in self.around())
