"""A node type: the fields, the work and the outputs of its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from domain.workflows.graph import Node, Problem
from domain.workflows.rendering import Selector
from domain.workflows.values import Value

NODE_ERROR: Final = "WorkflowNodeError"
"""The type of errors that have no better one. Types are the names that files of Dify compare with."""


TRUE: Final = frozenset({"true", "1", "1.0", "yes", "on", "y", "t"})
FALSE: Final = frozenset({"false", "0", "0.0", "no", "off", "n", "f"})


class Failed(Exception):
    """A node that failed."""

    def __init__(self, message: str, type: str = "") -> None:
        super().__init__(message)
        self.message = message or "The node failed without a word."
        self.type = type


class Write(NamedTuple):
    """A variable that a node assigned."""

    selector: Selector
    value: Value


@dataclass(frozen=True)
class Done:
    """The result of a node that succeeded."""

    outputs: Mapping[str, Any] = field(default_factory=dict)
    handle: str | None = None
    """The edges that follow; None for all."""
    writes: tuple[Write, ...] = ()
    process: Mapping[str, Any] = field(default_factory=dict)
    """Data that it worked with, for people."""


@dataclass(frozen=True)
class Trouble:
    """The answer of an outside call that failed."""

    message: str
    type: str = ""


class Values(Protocol):
    """The values that a node sees."""

    def find(self, selector: Selector) -> Value | None:
        """The value that a selector reaches; None where it is missing."""
        ...

    def may_write(self, selector: Selector) -> bool:
        """Test for a variable of the conversation, or of a loop around the node."""
        ...

    @property
    def chat(self) -> bool:
        """Test for a run that answers a message."""
        ...

    @property
    def inputs(self) -> Mapping[str, Value]:
        """The inputs of the run."""
        ...


Check = Callable[[Node], Iterator[Problem]]


@dataclass(frozen=True)
class NodeType:
    """Nodes that `run`, or that `prepare` an outside call and `conclude` from its answer: with what the node puts
    out, or with another call."""

    name: str
    fields: Mapping[str, str]
    outputs: Mapping[str, str]
    run: Callable[[Node, Values], Done] | None = None
    prepare: Callable[[Node, Values], Any] | None = None
    conclude: Callable[[Node, Any, Any], Any] | None = None
    check: Check | None = None
    branches: bool = False
    retries: bool = False
    waits: bool = False
    """Its calls may take days."""


def selector(spec: object) -> Selector:
    """A selector of a file; empty for what is none."""
    if isinstance(spec, list | tuple):
        return tuple(str(part) for part in spec)
    return ()


def mapping(spec: object) -> Mapping[str, Any]:
    return spec if isinstance(spec, Mapping) else {}


def sequence(spec: object) -> Sequence[Any]:
    return spec if isinstance(spec, list | tuple) else []


def text(spec: object) -> str:
    return "" if spec is None else str(spec)


def data(value: Value | None) -> Any:
    """Plain data; None for what is missing."""
    return None if value is None else value.data


def flag(spec: object) -> bool:
    """A switch of a file, which some write as a text."""
    return str(spec).strip().lower() in TRUE


def whole(spec: object, otherwise: int) -> int:
    """A whole number of a file, from 1; another one where it is none."""
    if isinstance(spec, str) and spec.strip().isdecimal() and len(spec) < 10:
        spec = int(spec)
    return spec if isinstance(spec, int) and not isinstance(spec, bool) and spec > 0 else otherwise


def variables(spec: object, find: Callable[[Selector], Value | None]) -> dict[str, Any]:
    """The inputs that a list of variables names: null where one is missing."""
    named = (mapping(each) for each in sequence(spec))
    return {text(each.get("variable")): data(find(selector(each.get("value_selector")))) for each in named}


def is_selector(spec: object) -> bool:
    return isinstance(spec, list | tuple) and all(isinstance(part, str | int) for part in spec)
