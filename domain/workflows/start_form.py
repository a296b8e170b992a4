"""The inputs of a run, as its start node asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from domain.aggregate import Rejection
from domain.workflows.graph import START, Graph
from domain.workflows.node_type import mapping, sequence, text, whole
from domain.workflows.values import File, to_number

LENGTH: Final = 48
"""Longest text of a text-input, where the file says nothing."""
ON: Final = frozenset({"true", "1", "yes", "on"})
OFF: Final = frozenset({"false", "0", "no", "off"})


def accept(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that the start node declares, converted. Raises: Rejection."""
    if graph.entry is None or graph.nodes[graph.entry].type != START:
        return dict(given)
    accepted = {}
    for spec in map(mapping, sequence(graph.nodes[graph.entry].data.get("variables"))):
        name = text(spec.get("variable"))
        accepted[name] = _input(name, spec, given.get(name))
    return accepted


def _input(name: str, spec: Mapping[str, Any], value: Any) -> Any:
    if value is None:
        if spec.get("required"):
            raise _refused(name, "It is required.")
        value = spec.get("default")
    if value is None:
        return None
    convert = CONVERSIONS.get(text(spec.get("type")))
    return convert(name, spec, value) if convert else value


def _text(name: str, spec: Mapping[str, Any], value: Any) -> str:
    if not isinstance(value, str):
        raise _refused(name, "It is a text.")
    longest = whole(spec.get("max_length"), LENGTH if spec.get("type") == "text-input" else 0)
    if longest and len(value) > longest:
        raise _refused(name, f"It has at most {longest} characters.")
    return value


def _select(name: str, spec: Mapping[str, Any], value: Any) -> str:
    options = [text(each) for each in sequence(spec.get("options"))]
    if value not in options:
        raise _refused(name, f"It is one of {', '.join(options)}.")
    return str(value)


def _number(name: str, spec: Mapping[str, Any], value: Any) -> int | float | None:
    if value == "":
        return None
    if isinstance(value, str):
        try:
            return to_number(value)
        except ValueError:
            raise _refused(name, "It is a number.") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(name, "It is a number.")
    return value


def _checkbox(name: str, spec: Mapping[str, Any], value: Any) -> bool:
    written = str(value).strip().lower()
    if written not in ON | OFF:
        raise _refused(name, "It is true or false.")
    return written in ON


def _object(name: str, spec: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refused(name, "It is an object.")
    return value


def _file(name: str, spec: Mapping[str, Any], value: Any) -> File:
    if not isinstance(value, File):
        raise _refused(name, "It is a file.")
    kinds, methods = (sequence(spec.get(f"allowed_file_{each}")) for each in ("types", "upload_methods"))
    endings = {text(each).lower().removeprefix(".") for each in sequence(spec.get("allowed_file_extensions"))}
    own = "custom" in kinds and (value.extension or "").lower().removeprefix(".") in endings
    if kinds and value.type not in kinds and not own:
        raise _refused(name, f"It is a file of the types {', '.join(map(text, kinds))}.")
    if methods and value.transfer_method not in (*methods, "tool_file"):
        raise _refused(name, f"It comes by {' or '.join(map(text, methods))}.")
    return value


def _files(name: str, spec: Mapping[str, Any], value: Any) -> list[File]:
    if not isinstance(value, list):
        raise _refused(name, "It is a list of files.")
    most = whole(spec.get("max_length"), len(value))
    if len(value) > most:
        raise _refused(name, f"There are at most {most} files.")
    return [_file(name, spec, each) for each in value]


def _refused(name: str, rule: str) -> Rejection:
    return Rejection("invalid", rule, f"inputs.{name}")


CONVERSIONS: Final[Mapping[str, Callable[[str, Mapping[str, Any], Any], Any]]] = {
    "text-input": _text,
    "paragraph": _text,
    "select": _select,
    "number": _number,
    "checkbox": _checkbox,
    "json_object": _object,
    "file": _file,
    "file-list": _files,
}
