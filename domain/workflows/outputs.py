"""The outputs of a run: answers one after the other, and the names of its end nodes."""

from __future__ import annotations

from collections.abc import Mapping

from domain.workflows import values
from domain.workflows.graph import Graph, Node
from domain.workflows.values import File, Value, infer


class Outputs:
    """Of equal names, that of the last end node in the file counts, whichever ended last."""

    def __init__(self, graph: Graph) -> None:
        self.values: dict[str, Value] = {}
        self._order = {id: number for number, id in enumerate(graph.nodes)}
        self._named_by: dict[str, int] = {}
        self._answers: dict[str, str] = {}
        self._files: dict[File, None] = {}

    def take(self, node: Node, outputs: Mapping[str, Value]) -> None:
        """Add the outputs of a response node that ended."""
        if node.type == "answer":
            self._answers[node.id] = outputs["answer"].data
            self._files |= dict.fromkeys(outputs["files"].data)
            self.values["answer"] = infer("".join(self._answers.values()))
            self.values["files"] = Value(values.array(values.FILE), list(self._files))
            return
        place = self._order[node.id]
        for name, value in outputs.items():
            if place >= self._named_by.get(name, -1):
                self._named_by[name] = place
                self.values[name] = value
