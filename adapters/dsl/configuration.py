"""A configuration of an app as the `model_config` of an app file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from domain.workflows.node_type import mapping

_STRATEGIES: Final = {"tools": "function_call", "react": "react"}


def model_config(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a row of `app_model_configs`, with the fields of `base` that have no place in it."""
    made = {
        **base,
        "model": _model(row, mapping(base.get("model"))),
        "pre_prompt": row["pre_prompt"],
        "prompt_type": "simple",
        "user_input_form": _form(row["user_input_form"], base.get("user_input_form")),
        "dataset_configs": _datasets(row["dataset_configs"], mapping(base.get("dataset_configs"))),
        "opening_statement": row["opening_statement"],
        "suggested_questions": row["suggested_questions"],
        "suggested_questions_after_answer": {"enabled": row["suggested_questions_after_answer"]["enabled"]},
        "more_like_this": {"enabled": row["more_like_this"]["enabled"]},
        "retriever_resource": {"enabled": row["retriever_resource"]["enabled"]},
        "speech_to_text": {"enabled": row["speech_to_text"]["enabled"]},
        "text_to_speech": _speech(row["text_to_speech"]),
        "sensitive_word_avoidance": _moderation(row["sensitive_word_avoidance"], base),
        "file_upload": _files(row["file_upload"]),
    }
    if row["agent_mode"]["enabled"]:
        made["agent_mode"] = _agent(row["agent_mode"], mapping(base.get("agent_mode")))
    return made


def _model(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    configs = row["configs"]
    return {
        **base,
        "provider": row["provider"],
        "name": row["model_id"] or row["route"],
        "mode": base.get("mode", "chat"),
        "completion_params": {**configs["parameters"], "max_tokens": configs["max_tokens"]},
    }


def _form(variables: list[Mapping[str, Any]], base: object) -> list[dict[str, Any]]:
    known: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for entry in base if isinstance(base, list) else []:
        for type, spec in mapping(entry).items():
            known[str(mapping(spec).get("variable"))] = type, mapping(spec)
    form = []
    for each in variables:
        type, spec = known.get(each["name"], ("paragraph", {"label": each["name"]}))
        own = {"variable": each["name"], "required": each["required"], "default": each["default"] or ""}
        form.append({type: {**spec, **own}})
    return form


def _datasets(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    retrieval = row["retrieval"]
    rerank, threshold, weight = retrieval["rerank"], retrieval["score_threshold"], retrieval["weight"]
    made = {
        **base,
        "retrieval_model": "multiple",
        "top_k": retrieval["top_k"],
        "score_threshold_enabled": threshold is not None,
        "score_threshold": threshold,
        "reranking_enable": rerank is not None,
        "datasets": {"datasets": [{"dataset": {"enabled": True, "id": id}} for id in row["datasets"]]},
    }
    if rerank:
        names = {"reranking_provider_name": rerank["provider"], "reranking_model_name": rerank["model"]}
        return {**made, "reranking_mode": "reranking_model", "reranking_model": names}
    if weight is None:
        return made
    weights = {
        "vector_setting": {**mapping(mapping(base.get("weights")).get("vector_setting")), "vector_weight": weight},
        "keyword_setting": {"keyword_weight": round(1 - weight, 6)},
    }
    return {**made, "reranking_mode": "weighted_score", "weights": {**mapping(base.get("weights")), **weights}}


def _speech(row: Mapping[str, Any]) -> dict[str, Any]:
    autoplay = "enabled" if row["autoplay"] else "disabled"
    return {"enabled": row["enabled"], "voice": row["voice"], "language": row["language"], "autoPlay": autoplay}


def _moderation(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Filters of words; others have no place in a file."""
    words = [each for each in row["configs"] if each["kind"] == "words"]
    if not words:
        return {"enabled": False, "type": "", "config": {}}
    config: dict[str, Any] = {"keywords": "\n".join(dict.fromkeys(word for each in words for word in each["words"]))}
    for side, name in (("input", "inputs_config"), ("output", "outputs_config")):
        found = [each for each in words if each["where"] in (side, "both")]
        config[name] = {"enabled": bool(found), "preset_response": found[0]["text"] if found else ""}
    return {"enabled": True, "type": "keywords", "config": config}


def _files(row: Mapping[str, Any]) -> dict[str, Any]:
    if not row["enabled"]:
        return {"enabled": False, "image": {"enabled": False}}
    methods, most = row["methods"], row["most"]
    has_images = "image" in row["types"]
    image = {"enabled": has_images, "number_limits": most, "detail": row["detail"], "transfer_methods": methods}
    return {
        "enabled": True,
        "allowed_file_types": row["types"],
        "allowed_file_upload_methods": methods,
        "number_limits": most,
        "image": image,
    }


def _agent(agent: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    tools = [
        {
            "enabled": True,
            "provider_type": "toolset",
            "provider_id": each["toolset"],
            "provider_name": each["toolset"],
            "tool_name": name,
        }
        for each in agent["tools"]
        for name in each["tools"] or ()
    ]
    strategy = _STRATEGIES.get(agent["strategy"], "function_call")
    return {**base, "enabled": True, "strategy": strategy, "max_iteration": agent["rounds"], "tools": tools}
