"""The record of a run: the values at its beginning, the results that are folded, the calls and the happenings that
follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from domain.workflows.graph import Node
from domain.workflows.node_type import Write
from domain.workflows.node_types import TYPES
from domain.workflows.reply import Printed
from domain.workflows.values import Value, from_json, to_json

Status = Literal["running", "paused", "succeeded", "partial-succeeded", "failed", "stopped"]


@dataclass(frozen=True)
class Given:
    """The values at the beginning of a run."""

    entry: str | None = None
    """The trigger that began it; None for the start node."""

    inputs: Mapping[str, Value] = field(default_factory=dict)
    system: Mapping[str, Value] = field(default_factory=dict)
    environment: Mapping[str, Value] = field(default_factory=dict)
    conversation: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """Where a run is stopped."""

    steps: int = 500


@dataclass(frozen=True)
class Result:
    """The end of a try of a node. Everything else follows from these."""

    key: str
    outputs: Mapping[str, Value] = field(default_factory=dict)
    handle: str | None = None
    writes: tuple[Write, ...] = ()
    error: str | None = None
    error_type: str = ""

    def recorded(self) -> dict[str, Any]:
        """The result as plain JSON; `Result.read` gives it back."""
        stored: dict[str, Any] = {"key": self.key}
        if self.outputs:
            stored["outputs"] = {name: to_json(value) for name, value in self.outputs.items()}
        if self.handle is not None:
            stored["handle"] = self.handle
        if self.writes:
            stored["writes"] = [{"selector": list(each.selector), "value": to_json(each.value)} for each in self.writes]
        if self.error is not None:
            stored |= {"error": self.error, "error_type": self.error_type}
        return stored

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Result:
        return cls(
            stored["key"],
            {name: from_json(value) for name, value in stored.get("outputs", {}).items()},
            stored.get("handle"),
            tuple(Write(tuple(each["selector"]), from_json(each["value"])) for each in stored.get("writes", ())),
            stored.get("error"),
            stored.get("error_type", ""),
        )


@dataclass(frozen=True)
class Call:
    """An outside call that a node waits for."""

    key: str
    node: Node
    attempt: int
    """From 1."""
    stage: int
    """From 0: some nodes make several calls, one after the other."""
    request: Any
    delay_ms: int
    """The wait before it is made."""

    @property
    def name(self) -> str:
        """The name of the call within its run."""
        return f"{self.key}#{self.attempt}.{self.stage}"

    @property
    def waits(self) -> bool:
        """Test for a call that may take days."""
        return TYPES[self.node.type].waits


@dataclass(frozen=True)
class Started:
    key: str
    node: str


@dataclass(frozen=True)
class Ended:
    key: str
    node: str
    status: str
    """succeeded, failed or exception."""
    outputs: Mapping[str, Value]
    error: str | None = None
    error_type: str = ""


@dataclass(frozen=True)
class Skipped:
    key: str
    node: str


@dataclass(frozen=True)
class Retried:
    key: str
    node: str
    error: str


@dataclass(frozen=True)
class Next:
    """Another item of an iteration, or another round of a loop."""

    key: str
    node: str
    index: int


@dataclass(frozen=True)
class Stopped:
    """An execution that was given up."""

    key: str
    node: str


Happening = Started | Ended | Skipped | Retried | Next | Stopped | Printed
