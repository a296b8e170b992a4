"""Needs of a node, or of the configuration of an app, outside of its file: models, knowledge bases, tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from domain.workflows.node_type import mapping, sequence

Kind = Literal["model", "rerank", "dataset", "tool", "strategy", "event"]
Path = tuple[str | int, ...]

STRATEGIES: Final = frozenset({"function_calling", "function_call", "react"})
"""Strategies of agents that need no plugin, in lower case."""


@dataclass(frozen=True)
class Need:
    """Something that has to be there. `name` is `provider/model`, the id of a knowledge base, `toolset/tool`, the
    name of a strategy, or `plugin/event`; `path` is its place in the data of the node."""

    kind: Kind
    name: str
    path: Path

    @property
    def field(self) -> str:
        return ".".join(map(str, self.path)) or "tool_name"


@dataclass(frozen=True)
class Known:
    """Models, knowledge bases, tools and strategies of a tenant."""

    models: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Models by provider; none where they are not listed."""
    datasets: frozenset[str] = frozenset()
    toolsets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Tools by toolset; none where they are not listed."""
    strategies: frozenset[str] = frozenset()

    def lacks(self, need: Need) -> str | None:
        """The missing thing, for people; None where nothing is missing."""
        owner, _, name = need.name.partition("/")
        match need.kind:
            case "model" | "rerank":
                return _lacking("provider", "model", owner, name, self.models)
            case "tool":
                return _lacking("toolset", "tool", owner, name, self.toolsets)
            case "dataset":
                return None if need.name in self.datasets else f"There is no knowledge base {need.name}"
            case "event":
                return f"Events of plugins, such as {need.name}, do not arrive here"
            case "strategy":
                known = need.name.lower() in STRATEGIES or need.name in self.strategies
                return None if known else f"No plugin with the strategy {need.name} is enabled"


def _lacking(owner_kind: str, kind: str, owner: str, name: str, known: Mapping[str, frozenset[str]]) -> str | None:
    if owner not in known:
        return f"There is no {owner_kind} {owner} with the {kind} {name}"
    if known[owner] and name not in known[owner]:
        return f"The {owner_kind} {owner} has no {kind} {name}"
    return None


def last_part(entry: object) -> str:
    """The name of a provider: `openai` and `langgenius/openai/openai` are the same one."""
    return str(entry or "").rpartition("/")[2]


def of_node(type: str, data: Mapping[str, Any]) -> Iterator[Need]:
    """The needs of a node, by its type."""
    if find := _BY_TYPE.get(type):
        yield from find(data)


def of_model_config(config: Mapping[str, Any]) -> Iterator[Need]:
    """The needs of the configuration of an app that has no graph."""
    yield from _model(config, "model")
    retrieval = mapping(config.get("dataset_configs"))
    yield from _reranking(retrieval, ("dataset_configs",))
    listed = mapping(retrieval.get("datasets")).get("datasets")
    for number, each in enumerate(sequence(listed)):
        dataset = mapping(mapping(each).get("dataset"))
        if dataset.get("id") and dataset.get("enabled") is not False:
            path = ("dataset_configs", "datasets", "datasets", number, "dataset", "id")
            yield Need("dataset", str(dataset["id"]), path)
    for number, each in enumerate(sequence(mapping(config.get("agent_mode")).get("tools"))):
        yield from _agent_tool(mapping(each), ("agent_mode", "tools", number))


def _model(data: Mapping[str, Any], *path: str, kind: Kind = "model", name: str = "name") -> Iterator[Need]:
    entry: Any = data
    for part in path:
        entry = mapping(entry).get(part)
    entry = mapping(entry)
    if entry.get(name):
        owner = entry.get("provider") or entry.get("reranking_provider_name")
        yield Need(kind, f"{last_part(owner)}/{entry[name]}", path)


def _retrieval(data: Mapping[str, Any]) -> Iterator[Need]:
    for number, id in enumerate(sequence(data.get("dataset_ids"))):
        yield Need("dataset", str(id), ("dataset_ids", number))
    if data.get("retrieval_mode") == "single":
        yield from _model(data, "single_retrieval_config", "model")
    else:
        yield from _reranking(mapping(data.get("multiple_retrieval_config")), ("multiple_retrieval_config",))
    if data.get("metadata_filtering_mode") == "automatic":
        yield from _model(data, "metadata_model_config")


def _reranking(settings: Mapping[str, Any], path: Path) -> Iterator[Need]:
    wanted = settings.get("reranking_enable", True) and settings.get("reranking_mode") != "weighted_score"
    entry = mapping(settings.get("reranking_model"))
    owner = entry.get("provider") or entry.get("reranking_provider_name")
    name = entry.get("model") or entry.get("reranking_model_name")
    if wanted and name:
        yield Need("rerank", f"{last_part(owner)}/{name}", (*path, "reranking_model"))


def tool_of(data: Mapping[str, Any]) -> str:
    """The toolset and the name of a tool; old files have tools of agents by name alone: `{google_search: {}}`."""
    if data.get("tool_name"):
        return f"{last_part(data.get('provider_name') or data.get('provider_id'))}/{data['tool_name']}"
    return next((f"{name}/{name}" for name, spec in data.items() if isinstance(spec, Mapping)), "")


def _tool(data: Mapping[str, Any], path: Path = ()) -> Iterator[Need]:
    if name := tool_of(data):
        yield Need("tool", name, path)


def _agent_tool(entry: Mapping[str, Any], path: Path) -> Iterator[Need]:
    """Old files have knowledge bases among the tools: `{dataset: {id}}`."""
    if entry.get("enabled") is False:
        return
    if "dataset" in entry:
        dataset = mapping(entry["dataset"])
        if dataset.get("id") and dataset.get("enabled") is not False:
            yield Need("dataset", str(dataset["id"]), (*path, "dataset", "id"))
    else:
        yield from _tool(entry, path)


def _agent(data: Mapping[str, Any]) -> Iterator[Need]:
    if data.get("agent_strategy_name"):
        yield Need("strategy", str(data["agent_strategy_name"]), ("agent_strategy_name",))
    parameters = mapping(data.get("agent_parameters"))
    model = mapping(mapping(parameters.get("model")).get("value"))
    if name := model.get("model") or model.get("name"):
        yield Need("model", f"{last_part(model.get('provider'))}/{name}", ("agent_parameters", "model", "value"))
    for number, each in enumerate(sequence(mapping(parameters.get("tools")).get("value"))):
        yield from _agent_tool(mapping(each), ("agent_parameters", "tools", "value", number))


def _event(data: Mapping[str, Any]) -> Iterator[Need]:
    owner = last_part(data.get("provider_id") or data.get("plugin_id"))
    yield Need("event", f"{owner}/{data.get('event_name') or ''}", ("event_name",))


_OF_MODEL: Callable[[Mapping[str, Any]], Iterator[Need]] = lambda data: _model(data, "model")  # noqa: E731

_BY_TYPE: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[Need]]]] = {
    "llm": _OF_MODEL,
    "question-classifier": _OF_MODEL,
    "parameter-extractor": _OF_MODEL,
    "knowledge-retrieval": _retrieval,
    "tool": _tool,
    "agent": _agent,
    "trigger-plugin": _event,
}
