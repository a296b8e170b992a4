"""A mapping: names of a tenant that stand for the models, knowledge bases and tools that a file names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.aggregate import Rejection
from domain.workflows import needs
from domain.workflows.graph import MODES, RENAMED
from domain.workflows.needs import Need, Path

KINDS: Final = ("model", "rerank", "dataset", "tool")
ANY: Final = "*"


@dataclass(frozen=True)
class Replacements:
    """Names by kind and name in the file: `{"model": {"openai/gpt-4o": "local/small", "*": "local/large"}}`."""

    by_kind: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, need: Need) -> str | None:
        """The name that stands for a need; None where it stays."""
        known = self.by_kind.get(need.kind, {})
        owner, _, name = need.name.partition("/")
        found = known.get(need.name) or known.get(f"{owner}/{ANY}")
        if found is None and need.kind == "tool":
            found = known.get(owner)
            return f"{found}/{name}" if found and "/" not in found else found
        return found or known.get(ANY)


def replacements(entry: object) -> Replacements:
    """The mapping in a file. Raises: Rejection."""
    if not isinstance(entry, Mapping):
        raise Rejection("invalid", f"A mapping is an object with {', '.join(KINDS)}.")
    checked: dict[str, dict[str, str]] = {}
    for kind, names in entry.items():
        if kind not in KINDS or not isinstance(names, Mapping):
            raise Rejection("invalid", f"It is an object of names by one of {', '.join(KINDS)}.", str(kind))
        for name, new in names.items():
            checked.setdefault(kind, {})[str(name)] = _checked(kind, str(name), new)
    return Replacements(checked)


def replacements_of(pairs: Iterable[str]) -> dict[str, dict[str, str]]:
    """The mapping in options such as `model:openai/gpt-4o=local/small`. Raises: Rejection."""
    found: dict[str, dict[str, str]] = {}
    for pair in pairs:
        kind, colon, rest = pair.partition(":")
        name, equals, new = rest.rpartition("=")
        if not (colon and equals and name):
            raise Rejection("invalid", f"{pair!r} is not like KIND:NAME=NEW, with a KIND of {', '.join(KINDS)}.")
        found.setdefault(kind, {})[name] = new
    return found


def _checked(kind: str, name: str, new: object) -> str:
    path = f"{kind}.{name}"
    if not isinstance(new, str) or not new:
        raise Rejection("invalid", "It is the name that stands for it.", path)
    if kind in ("model", "rerank") and not all(new.partition("/")):
        raise Rejection("invalid", "It is PROVIDER/MODEL.", path)
    return new


def mapped(document: Mapping[str, Any], given: Replacements) -> dict[str, Any]:
    """The document with what stands for its needs."""
    if not given.by_kind:
        return dict(document)
    if document["app"]["mode"] not in MODES:
        config = document["model_config"]
        return {**document, "model_config": _replaced(config, needs.of_model_config(config), given)}
    workflow = document["workflow"]
    graph = workflow.get("graph")
    if not isinstance(graph, Mapping) or not isinstance(graph.get("nodes"), list):
        return dict(document)
    nodes = [_node(each, given) for each in graph["nodes"]]
    return {**document, "workflow": {**workflow, "graph": {**graph, "nodes": nodes}}}


def _node(entry: Any, given: Replacements) -> Any:
    data = entry.get("data") if isinstance(entry, Mapping) else None
    if not isinstance(data, Mapping):
        return entry
    type = str(data.get("type"))
    return {**entry, "data": _replaced(data, needs.of_node(RENAMED.get(type, type), data), given)}


def _replaced(data: Mapping[str, Any], wanted: Iterator[Need], given: Replacements) -> dict[str, Any]:
    found: Any = dict(data)
    for need in wanted:
        if new := given.of(need):
            found = _with(found, need.path, lambda old, need=need, new=new: _renamed(need, old, new))
    return dict(found)


def _with(within: Any, path: Path, change: Any) -> Any:
    if not path:
        return change(within)
    first, rest = path[0], path[1:]
    if isinstance(within, list):
        return [_with(each, rest, change) if number == first else each for number, each in enumerate(within)]
    return {**within, first: _with(within[first], rest, change)}


def _renamed(need: Need, old: Any, new: str) -> Any:
    owner, _, name = new.partition("/")
    match need.kind:
        case "dataset":
            return new
        case "tool":
            own = {"provider_type": "toolset", "provider_id": owner, "provider_name": owner, "tool_name": name}
            return {**old, **own}
        case _:
            names = {"provider", "reranking_provider_name"}
            owners = {key: owner for key in old if key in names} or {"provider": owner}
            models = {key: name for key in old if key in ("name", "model", "reranking_model_name")}
            return {**old, **owners, **models}
