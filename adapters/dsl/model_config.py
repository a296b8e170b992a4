"""The configuration of an app without a graph, `model_config`, as the fields of `app.configure`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.workflows import needs
from domain.workflows.mapping import Replacements
from domain.workflows.needs import Known, Need
from domain.workflows.report import Part, Reason, Report, of_needs

WINDOW: Final = 8192
"""Tokens of prompt and answer where the file does not say."""

ANSWER: Final = 512

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SLOT: Final = re.compile(r"\{\{#(?:context|histories|query)#\}\}")

MODERATION: Final = ("inputs_config", "outputs_config")
FILE_TYPES: Final = ("image", "document", "audio")


@dataclass
class Configuring:
    """The fields of `app.configure`, and the parts of the file that they were made of."""

    fields: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, list[Reason]] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """True if nothing that the app needs is missing."""
        return all(reason.status != "cannot" for reasons in self.reasons.values() for reason in reasons)

    def part(self, name: str, *reasons: Reason) -> None:
        self.reasons.setdefault(name, []).extend(reasons)

    def changed(self, name: str, field: str, message: str) -> None:
        self.part(name, Reason("changed", field, message))

    def cannot(self, name: str, field: str, message: str) -> None:
        self.part(name, Reason("cannot", field, message))

    def report(self, **about: str) -> Report:
        parts = tuple(Part(name, "model_config", name, tuple(found)) for name, found in self.reasons.items())
        notes = (about.pop("note"),) if "note" in about else ()
        return Report(about["name"], about["mode"], about["version"], parts, notes)


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
    made.fields["variables"] = list(_variables(made, _list(config.get("user_input_form"))))
    if config.get("external_data_tools"):
        made.cannot("variables", "external_data_tools", "Variables from an API are not asked for.")
    _knowledge(made, config)
    features = made.fields["features"] = _features(made, config)
    if mode == "agent-chat":
        made.part("agent")
        features["agent"] = _agent(made, _object(config.get("agent_mode")))
    elif _object(config.get("agent_mode")).get("enabled") and _list(_object(config.get("agent_mode")).get("tools")):
        made.changed("agent", "agent_mode", "Only apps of mode agent-chat call tools: they are left out.")
    for need in needs.of_model_config(original):
        made.part(_PART[need.kind], *of_needs(iter([need]), known, given))
    return made


_PART: Final = {"model": "model", "rerank": "retrieval", "dataset": "knowledge", "tool": "agent", "strategy": "agent"}


def _model(made: Configuring, config: Mapping[str, Any]) -> None:
    model = _object(config.get("model"))
    if not model.get("name"):
        made.cannot("model", "model", "It names no model; map one: model:*=PROVIDER/MODEL.")
        return
    parameters = dict(_object(model.get("completion_params")))
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
    text = _text(config.get("pre_prompt"))
    if config.get("prompt_type") == "advanced":
        chat = [_object(each) for each in _list(_object(config.get("chat_prompt_config")).get("prompt"))]
        completion = _text(_object(_object(config.get("completion_prompt_config")).get("prompt")).get("text"))
        text = "\n\n".join(_text(each.get("text")) for each in chat) or completion
        if any(each.get("role") != "system" for each in chat):
            made.changed("prompt", "chat_prompt_config", "All messages of the prompt become instructions.")
    if _SLOT.search(text):
        text = _SLOT.sub("", text)
        made.changed("prompt", "pre_prompt", "Passages, history and question stand where they always do.")
    made.fields["prompt"] = text[:100_000]


def _variables(made: Configuring, form: list[Any]) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(form[:64]):
        type, spec = next(iter(_object(entry).items()), ("", {}))
        spec, place = _object(spec), f"user_input_form[{number}]"
        name = _text(spec.get("variable"))
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
            "default": None if default in (None, "") else _text(default)[:10_000],
        }


def _knowledge(made: Configuring, config: Mapping[str, Any]) -> None:
    found = [need for need in needs.of_model_config(config) if need.kind == "dataset"]
    made.fields["datasets"] = list(dict.fromkeys(need.name for need in found))[:32]
    settings = _object(config.get("dataset_configs"))
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
    weight = _object(_object(settings.get("weights")).get("vector_setting")).get("vector_weight")
    if isinstance(weight, int | float) and 0 <= weight <= 1:
        retrieval["weight"] = float(weight)
    if settings.get("metadata_filtering_mode") in ("automatic", "manual"):
        made.changed("retrieval", "dataset_configs.metadata_filtering_mode", "Set the filter by app.configure.")
    retrieval["rerank"] = next(map(_rerank, (n for n in needs.of_model_config(config) if n.kind == "rerank")), None)
    made.fields["retrieval"] = retrieval


def _rerank(need: Need) -> dict[str, Any]:
    provider, _, model = need.name.partition("/")
    return {"provider": provider, "model": model}


def _features(made: Configuring, config: Mapping[str, Any]) -> dict[str, Any]:
    speech = _object(config.get("text_to_speech"))
    features: dict[str, Any] = {
        "opening_statement": _text(config.get("opening_statement"))[:10_000],
        "suggested_questions": _questions(config.get("suggested_questions")),
        "more_like_this": _enabled(config, "more_like_this"),
        "suggest_after_answer": {} if _enabled(config, "suggested_questions_after_answer") else None,
        "speech_to_text": _enabled(config, "speech_to_text"),
        "text_to_speech": {
            "enabled": _enabled(config, "text_to_speech"),
            "voice": _text(speech.get("voice"))[:255],
            "language": _text(speech.get("language"))[:35],
            "autoplay": speech.get("autoPlay") == "enabled",
        },
        "moderation": _moderation(made, _object(config.get("sensitive_word_avoidance"))),
        "files": _files(made, _object(config.get("file_upload"))),
    }
    for name in ("speech_to_text", "text_to_speech"):
        if _enabled(config, name):
            made.part(name)
    if _enabled(config, "annotation_reply"):
        message = "Set it by app.set_annotation_reply: annotations are not in the file."
        made.changed("annotation_reply", "annotation_reply", message)
    if found := config.get("dataset_query_variable"):
        message = f"Passages are searched by all values, not by {found} alone."
        made.changed("retrieval", "dataset_query_variable", message)
    return features


def _questions(value: object) -> list[str]:
    return [each[:500] for each in _list(value) if isinstance(each, str) and each.strip()][:10]


def _moderation(made: Configuring, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not settings.get("enabled"):
        return []
    name, type = "sensitive_word_avoidance", settings.get("type")
    made.part(name)
    if type != "keywords":
        message = f"Filters of type {type} are not made of a file; add one by app.configure."
        made.cannot(name, f"{name}.type", message)
        return []
    config = _object(settings.get("config"))
    words = [word.strip()[:100] for word in _text(config.get("keywords")).split("\n") if word.strip()]
    filters = []
    for side, where in zip(MODERATION, ("input", "output"), strict=True):
        spec = _object(config.get(side))
        if spec.get("enabled") and words:
            text = _text(spec.get("preset_response"))[:10_000]
            action = {"action": "answer", "text": text} if text.strip() else {"action": "refuse"}
            filters.append({"kind": "words", "where": where, "words": words, "whole_words": False, **action})
    return filters


def _files(made: Configuring, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    image = _object(settings.get("image"))
    if not settings.get("enabled") and not image.get("enabled"):
        return None
    made.part("file_upload")
    named = _list(settings.get("allowed_file_types")) or ["image"]
    types = [each for each in FILE_TYPES if each in named]
    if len(types) < len(named):
        made.changed("file_upload", "allowed_file_types", f"Files of the types {', '.join(FILE_TYPES)} are taken.")
    methods = _list(settings.get("allowed_file_upload_methods")) or _list(image.get("transfer_methods"))
    most = settings.get("number_limits") or image.get("number_limits")
    return {
        "types": types or ["image"],
        "most": min(max(most, 1), 100) if isinstance(most, int) else 3,
        "methods": [each for each in ("local_file", "remote_url") if each in methods] or ["local_file"],
        "detail": "low" if image.get("detail") == "low" else "high",
    }


def _agent(made: Configuring, settings: Mapping[str, Any]) -> dict[str, Any]:
    strategy = {"function_call": "tools", "react": "react", "cot": "react"}.get(_text(settings.get("strategy")), "auto")
    tools: dict[str, list[str]] = {}
    for number, entry in enumerate(_list(settings.get("tools"))):
        tool = _object(entry)
        if tool.get("enabled") is False or "dataset" in tool:
            continue
        owner, _, name = needs.tool_of(tool).partition("/")
        if not owner or not name:
            made.cannot("agent", f"agent_mode.tools[{number}]", "It names no tool; add it to the app.")
            continue
        tools.setdefault(owner, []).append(name)
    if _text(settings.get("prompt")) or _object(settings.get("prompt")):
        made.changed("agent", "agent_mode.prompt", "The strategy has a prompt of its own.")
    if tools:
        made.changed("agent", "agent_mode.tools", "Calls that may change something wait for tool_call.release.")
    rounds = settings.get("max_iteration")
    return {
        "strategy": strategy,
        "rounds": min(max(rounds, 1), 99) if isinstance(rounds, int) else 10,
        "tools": [{"toolset": owner, "tools": names} for owner, names in tools.items()],
    }


def _enabled(config: Mapping[str, Any], name: str) -> bool:
    return _object(config.get(name)).get("enabled") is True


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
