"""The configuration of an app without a graph, `model_config`, as the fields of `app.configure`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from adapters.dsl.features import Configuring, as_text, features
from domain.workflows import needs
from domain.workflows.mapping import Replacements
from domain.workflows.needs import Known, Need
from domain.workflows.node_type import mapping, sequence
from domain.workflows.report import of_needs

STRATEGIES: Final = {"function_call": "tools", "react": "react", "cot": "react"}

WINDOW: Final = 8192
"""Tokens of prompt and answer where the file does not say."""

ANSWER: Final = 512

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SLOT: Final = re.compile(r"\{\{#(?:context|histories|query)#\}\}")


def configuring(
    document: Mapping[str, Any], original: Mapping[str, Any], known: Known | None, given: Replacements
) -> Configuring:
    """The fields for a mapped document, whose configuration was `original`."""
    made, config = Configuring(), document["model_config"]
    mode = document["app"]["mode"]
    for name in ("model", "prompt", "variables"):
        made.part(name)
    _model(made, config)
    _prompt(made, config)
    made.fields["variables"] = list(_variables(made, sequence(config.get("user_input_form"))))
    if config.get("external_data_tools"):
        made.cannot("variables", "external_data_tools", "Variables from an API are not asked for.")
    _knowledge(made, config)
    around = made.fields["features"] = features(made, config)
    if mode == "agent-chat":
        made.part("agent")
        around["agent"] = _agent(made, mapping(config.get("agent_mode")))
    elif mapping(config.get("agent_mode")).get("enabled") and sequence(mapping(config.get("agent_mode")).get("tools")):
        made.changed("agent", "agent_mode", "Only apps of mode agent-chat call tools: they are left out.")
    for need in needs.of_model_config(original):
        made.part(_PART[need.kind], *of_needs(iter([need]), known, given))
    return made


_PART: Final = {"model": "model", "rerank": "retrieval", "dataset": "knowledge", "tool": "agent", "strategy": "agent"}


def _model(made: Configuring, config: Mapping[str, Any]) -> None:
    model = mapping(config.get("model"))
    if not model.get("name"):
        made.cannot("model", "model", "It names no model; map one: model:*=PROVIDER/MODEL.")
        return
    parameters = dict(mapping(model.get("completion_params")))
    most = parameters.pop("max_tokens", None)
    answer = most if isinstance(most, int) and not isinstance(most, bool) and most > 0 else ANSWER
    if parameters.get("stop") == []:
        del parameters["stop"]
    made.fields["model"] = {
        "provider": needs.last_part(model.get("provider")),
        "name": str(model["name"]),
        "max_tokens": min(answer, 1_000_000),
        "context_window": min(max(WINDOW, 2 * answer), 10_000_000),
        "parameters": parameters,
    }


def _prompt(made: Configuring, config: Mapping[str, Any]) -> None:
    text = as_text(config.get("pre_prompt"))
    if config.get("prompt_type") == "advanced":
        chat = [mapping(each) for each in sequence(mapping(config.get("chat_prompt_config")).get("prompt"))]
        completion = as_text(mapping(mapping(config.get("completion_prompt_config")).get("prompt")).get("text"))
        text = "\n\n".join(as_text(each.get("text")) for each in chat) or completion
        if any(each.get("role") != "system" for each in chat):
            made.changed("prompt", "chat_prompt_config", "All messages of the prompt become instructions.")
    if _SLOT.search(text):
        text = _SLOT.sub("", text)
        made.changed("prompt", "pre_prompt", "Passages, history and question stand where they always do.")
    made.fields["prompt"] = text[:100_000]


def _variables(made: Configuring, form: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(form[:64]):
        type, spec = next(iter(mapping(entry).items()), ("", {}))
        spec, place = mapping(spec), f"user_input_form[{number}]"
        name = as_text(spec.get("variable"))
        if not _NAME.fullmatch(name):
            made.changed("variables", f"{place}.variable", "A name has letters, digits and _; it is left out.")
            continue
        if type == "external_data_tool":
            made.cannot("variables", place, "A value from an API is not asked for.")
        elif type not in ("text-input", "paragraph"):
            made.changed("variables", place, f"The value of {name}, of type {type}, is not checked.")
        default = spec.get("default")
        yield {
            "name": name,
            "required": spec.get("required") is True,
            "default": None if default in (None, "") else as_text(default)[:10_000],
        }


def _knowledge(made: Configuring, config: Mapping[str, Any]) -> None:
    found = [need for need in needs.of_model_config(config) if need.kind == "dataset"]
    made.fields["datasets"] = list(dict.fromkeys(need.name for need in found))[:32]
    settings = mapping(config.get("dataset_configs"))
    if not found:
        return
    made.part("knowledge")
    made.part("retrieval")
    retrieval: dict[str, Any] = {}
    if isinstance(settings.get("top_k"), int):
        retrieval["top_k"] = min(max(settings["top_k"], 1), 50)
    threshold = settings.get("score_threshold")
    if settings.get("score_threshold_enabled") and isinstance(threshold, int | float) and 0 <= threshold <= 1:
        retrieval["score_threshold"] = float(threshold)
    if settings.get("retrieval_model") == "single":
        made.changed("retrieval", "dataset_configs.retrieval_model", "All knowledge bases are searched.")
    weight = mapping(mapping(settings.get("weights")).get("vector_setting")).get("vector_weight")
    if isinstance(weight, int | float) and 0 <= weight <= 1:
        retrieval["weight"] = float(weight)
    if settings.get("metadata_filtering_mode") in ("automatic", "manual"):
        made.changed("retrieval", "dataset_configs.metadata_filtering_mode", "Set the filter by app.configure.")
    retrieval["rerank"] = next(map(_rerank, (n for n in needs.of_model_config(config) if n.kind == "rerank")), None)
    made.fields["retrieval"] = retrieval


def _rerank(need: Need) -> dict[str, Any]:
    provider, _, model = need.name.partition("/")
    return {"provider": provider, "model": model}


def _agent(made: Configuring, settings: Mapping[str, Any]) -> dict[str, Any]:
    strategy = STRATEGIES.get(as_text(settings.get("strategy")), "auto")
    tools: dict[str, list[str]] = {}
    for number, entry in enumerate(sequence(settings.get("tools"))):
        tool = mapping(entry)
        if tool.get("enabled") is False or "dataset" in tool:
            continue
        owner, _, name = needs.tool_of(tool).partition("/")
        if not owner or not name:
            made.cannot("agent", f"agent_mode.tools[{number}]", "It names no tool; add it to the app.")
            continue
        tools.setdefault(owner, []).append(name)
    if as_text(settings.get("prompt")) or mapping(settings.get("prompt")):
        made.changed("agent", "agent_mode.prompt", "The strategy has a prompt of its own.")
    if tools:
        made.changed("agent", "agent_mode.tools", "Calls that may change something wait for tool_call.release.")
    rounds = settings.get("max_iteration")
    return {
        "strategy": strategy,
        "rounds": min(max(rounds, 1), 99) if isinstance(rounds, int) else 10,
        "tools": [{"toolset": owner, "tools": names} for owner, names in tools.items()],
    }
