"""The stream of a reply: the response node that prints, and its progress.

A response node prints once it is certain to run: each decision on a way to it has been made, and leads there. It need
not have been reached. One prints at a time, in the order in which they became certain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from domain.workflows.graph import CONTAINERS, FAILED, Edge, Graph, Node
from domain.workflows.node_type import mapping, selector, sequence, text
from domain.workflows.nodes.assigner import assigned
from domain.workflows.rendering import Find, Reference, Selector, Text, as_markdown, parse

RESPONSES: Final = frozenset({"answer", "end"})
DECIDING: Final = frozenset({"if-else", "question-classifier", "human-input", *CONTAINERS, *RESPONSES})


@dataclass(frozen=True)
class Printed:
    """A part of the reply."""

    selector: Selector
    text: str


@dataclass
class Session:
    """The parts that a response node prints."""

    node: str
    parts: list[Text | Reference]
    deciding: frozenset[str]
    """Nodes that have to have ended, and led here."""
    at: int = 0
    printed: int = 0
    """Number of chunks of the stream at this part that were printed."""


@dataclass
class Reply:
    graph: Graph
    entry: str | None
    find: Find
    _pending: list[Session] = field(default_factory=list)
    _queue: list[Session] = field(default_factory=list)
    _streams: dict[Selector, list[str]] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)
    _skipped: set[str] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)
    _changed: bool = True

    def __post_init__(self) -> None:
        nodes = [self.graph.nodes[id] for id in self.graph.scopes[None].nodes]
        for node in nodes:
            if node.type in RESPONSES:
                parts = _parts(node)
                printed = {part.selector for part in parts if isinstance(part, Reference)}
                deciding = frozenset(each.id for each in nodes if _decides(each, printed))
                self._pending.append(Session(node.id, parts, deciding))

    def token(self, selector: Selector, text: str) -> None:
        self._streams.setdefault(selector, []).append(text)

    def forget(self, node: str) -> None:
        """Drop the stream of a try that failed, except for the part that was printed."""
        for name in [each for each in self._streams if each[0] == node]:
            printing = bool(self._queue) and self._here(self._queue[0]) == Reference(name)
            self._streams[name] = self._streams[name][: self._queue[0].printed if printing else 0]

    def ended(self, node: str, taken: Iterable[Edge] = ()) -> None:
        """Take the end of a node, and the edges that are taken after it."""
        self._ended.add(node)
        self._taken.update(edge.id for edge in taken)
        self._changed |= any(node in session.deciding for session in self._pending)

    def failed(self, node: str) -> None:
        """Print what it has streamed, and nothing after it."""
        self._failed.add(node)
        self.ended(node)

    def skipped(self, node: str) -> None:
        self._skipped.add(node)

    def advance(self) -> list[Printed]:
        """Print as far as possible."""
        if self._changed and self._pending:
            certain = [session for session in self._pending if self._certain(session)]
            self._queue += certain
            self._pending = [session for session in self._pending if session not in certain]
        self._changed = False
        printed: list[Printed] = []
        while self._queue and self._print(self._queue[0], printed.append):
            self._queue.pop(0)
        return printed

    def _certain(self, session: Session) -> bool:
        scope = self.graph.scopes[None]
        ways, seen = [self.entry], {self.entry}
        while ways:
            id = ways.pop()
            if id == session.node:
                return True
            for edge in scope.outgoing.get(id or "", ()):
                open = edge.source not in session.deciding or edge.id in self._taken
                if open and edge.target not in seen:
                    seen.add(edge.target)
                    ways.append(edge.target)
        return False

    def _print(self, session: Session, tell: Callable[[Printed], None]) -> bool:
        """Print all that is known, and return whether nothing is left."""
        while (part := self._here(session)) is not None:
            if isinstance(part, Text):
                tell(Printed((session.node, "answer"), part.text))
            elif not self._refer(session, part.selector, tell):
                return session.node in self._ended
            session.at, session.printed = session.at + 1, 0
        return True

    @staticmethod
    def _here(session: Session) -> Text | Reference | None:
        return session.parts[session.at] if session.at < len(session.parts) else None

    def _refer(self, session: Session, selector: Selector, tell: Callable[[Printed], None]) -> bool:
        """Print what is known of a value, and return whether that is all of it."""
        node = selector[0] if selector else ""
        if (stream := self._streams.get(selector)) is not None:
            for chunk in stream[session.printed :]:
                tell(Printed(selector, chunk))
            session.printed = len(stream)
            return node in self._ended and node not in self._failed
        if node in self._skipped:
            return True
        if node in self.graph.nodes and node not in self._ended:
            return False
        if (value := self.find(selector)) is None:
            return False
        if written := as_markdown(value):
            tell(Printed(selector, written))
        return True


def _parts(node: Node) -> list[Text | Reference]:
    if node.type == "answer":
        return parse(text(node.data.get("answer")))
    parts: list[Text | Reference] = []
    for spec in map(mapping, sequence(node.data.get("outputs"))):
        parts += [Text("\n")] if parts else []
        parts.append(Reference(selector(spec.get("value_selector"))))
    return parts


def _decides(node: Node, printed: set[Selector]) -> bool:
    if node.type in DECIDING or node.strategy == FAILED:
        return True
    return node.type == "assigner" and any(each in printed for each in assigned(node))
