"""Features of an app without a graph, as `features` of `app.configure`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.workflows.node_type import mapping, sequence
from domain.workflows.report import Part, Reason, Report

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


def features(made: Configuring, config: Mapping[str, Any]) -> dict[str, Any]:
    speech = mapping(config.get("text_to_speech"))
    found: dict[str, Any] = {
        "opening_statement": as_text(config.get("opening_statement"))[:10_000],
        "suggested_questions": _questions(config.get("suggested_questions")),
        "more_like_this": _enabled(config, "more_like_this"),
        "suggest_after_answer": {} if _enabled(config, "suggested_questions_after_answer") else None,
        "speech_to_text": _enabled(config, "speech_to_text"),
        "text_to_speech": {
            "enabled": _enabled(config, "text_to_speech"),
            "voice": as_text(speech.get("voice"))[:255],
            "language": as_text(speech.get("language"))[:35],
            "autoplay": speech.get("autoPlay") == "enabled",
        },
        "moderation": _moderation(made, mapping(config.get("sensitive_word_avoidance"))),
        "files": _files(made, mapping(config.get("file_upload"))),
    }
    for name in ("speech_to_text", "text_to_speech"):
        if _enabled(config, name):
            made.part(name)
    if _enabled(config, "annotation_reply"):
        message = "Set it by app.set_annotation_reply: annotations are not in the file."
        made.changed("annotation_reply", "annotation_reply", message)
    if asking := config.get("dataset_query_variable"):
        message = f"Passages are searched by all values, not by {asking} alone."
        made.changed("retrieval", "dataset_query_variable", message)
    return found


def _questions(value: object) -> list[str]:
    return [each[:500] for each in sequence(value) if isinstance(each, str) and each.strip()][:10]


def _moderation(made: Configuring, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not settings.get("enabled"):
        return []
    name, type = "sensitive_word_avoidance", settings.get("type")
    made.part(name)
    if type != "keywords":
        message = f"Filters of type {type} are not made of a file; add one by app.configure."
        made.cannot(name, f"{name}.type", message)
        return []
    config = mapping(settings.get("config"))
    words = [word.strip()[:100] for word in as_text(config.get("keywords")).split("\n") if word.strip()]
    filters = []
    for side, where in zip(MODERATION, ("input", "output"), strict=True):
        spec = mapping(config.get(side))
        if spec.get("enabled") and words:
            preset = as_text(spec.get("preset_response"))[:10_000]
            action = {"action": "answer", "text": preset} if preset.strip() else {"action": "refuse"}
            filters.append({"kind": "words", "where": where, "words": words, "whole_words": False, **action})
    return filters


def _files(made: Configuring, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    image = mapping(settings.get("image"))
    if not settings.get("enabled") and not image.get("enabled"):
        return None
    made.part("file_upload")
    named = sequence(settings.get("allowed_file_types")) or ["image"]
    types = [each for each in FILE_TYPES if each in named]
    if len(types) < len(named):
        made.changed("file_upload", "allowed_file_types", f"Files of the types {', '.join(FILE_TYPES)} are taken.")
    methods = sequence(settings.get("allowed_file_upload_methods")) or sequence(image.get("transfer_methods"))
    most = settings.get("number_limits") or image.get("number_limits")
    return {
        "types": types or ["image"],
        "most": min(max(most, 1), 100) if isinstance(most, int) else 3,
        "methods": [each for each in ("local_file", "remote_url") if each in methods] or ["local_file"],
        "detail": "low" if image.get("detail") == "low" else "high",
    }


def _enabled(config: Mapping[str, Any], name: str) -> bool:
    return mapping(config.get(name)).get("enabled") is True


def as_text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
