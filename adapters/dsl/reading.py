"""Reading of app files: YAML or JSON, of all versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from adapters.dsl.yaml_values import finite, values, whole
from domain.aggregate import Rejection
from domain.workflows.graph import DEPTH, MODES, OTHER_KINDS

LARGEST: Final = 10 * 2**20
"""Maximum size of a file, in bytes."""

MODEL_MODES: Final = ("chat", "completion", "agent-chat")
"""Modes of apps that a `model_config` describes."""

Format = Literal["yaml", "json"]


@dataclass(frozen=True)
class AppFile:
    """An app file: its bytes, and what they say."""

    data: bytes
    format: Format
    document: dict[str, Any]

    @property
    def mode(self) -> str:
        return str(self.document["app"]["mode"])

    @property
    def is_workflow(self) -> bool:
        return self.mode in MODES


def read(data: bytes) -> AppFile:
    """The app in a file. Raises: Rejection `too_large`, `invalid`."""
    if len(data) > LARGEST:
        raise Rejection("too_large", f"The file has {len(data):,} bytes, at most {LARGEST:,} are read.")
    text = _decoded(data)
    format: Format = "json" if text.lstrip()[:1] == "{" else "yaml"
    found = _json(text) if format == "json" else None
    if found is None:
        format, found = "yaml", values(text)
    _check_texts(found)
    return AppFile(data, format, _app(found))


def _decoded(data: bytes) -> str:
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise Rejection("invalid", f"It is no text in UTF-8: byte {error.start:,} is wrong.") from None


def _json(text: str) -> Any:
    """The value of a JSON text; None where it is none, and may be YAML in braces."""
    try:
        return json.loads(text, parse_constant=str, parse_float=finite, parse_int=whole)
    except RecursionError:
        raise Rejection("invalid", f"A file is at most {DEPTH} levels deep.") from None
    except ValueError:
        return None


def _app(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Rejection("invalid", "An app file is an object with app, version, and workflow or model_config.")
    if (kind := found.get("kind")) in OTHER_KINDS:
        raise Rejection("invalid", f"A file of the kind {kind} is no app.", "kind")
    app = found.get("app")
    if not isinstance(app, dict):
        raise Rejection("invalid", "It is an object with the name and the mode of the app.", "app")
    known = [*MODEL_MODES, *sorted(MODES)]
    if app.get("mode") not in known:
        raise Rejection("invalid", f"A mode is one of {', '.join(known)}.", "app.mode")
    part = "workflow" if app["mode"] in MODES else "model_config"
    if not isinstance(found.get(part), dict):
        raise Rejection("invalid", f"An app of mode {app['mode']} has this object.", part)
    return found


def _check_texts(found: Any) -> None:
    """Raise a rejection for texts that cannot be stored, and for values that are nested too deep."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), found)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, str):
            _check(value, path)
        elif isinstance(value, dict | list):
            if len(path) > DEPTH:
                _fault(path, f"A file is at most {DEPTH} levels deep.")
            stack += _parts(path, value)


def _parts(path: tuple[str, ...], value: dict[str, Any] | list[Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, list):
        yield from (((*path, str(number)), each) for number, each in enumerate(value))
        return
    for name, inner in value.items():
        _check(name, path)
        yield (*path, name), inner


def _check(text: str, path: tuple[str, ...]) -> None:
    if "\0" in text:
        _fault(path, "Must not contain NUL characters.")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        _fault(path, "Must not contain half of a character: write both halves of the surrogate pair.")


def _fault(path: tuple[str, ...], rule: str) -> NoReturn:
    raise Rejection("invalid", rule, ".".join(path).replace("\0", "�")[:200] or None)


Secrets = Mapping[str, str]
"""Values of secret variables, by their names."""


def without_secrets(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The document with empty secret variables of the environment, and their values by name."""
    workflow = document.get("workflow")
    variables = workflow.get("environment_variables") if isinstance(workflow, dict) else None
    if not isinstance(workflow, dict) or not isinstance(variables, list):
        return dict(document), {}
    secrets: dict[str, str] = {}
    emptied = []
    for each in variables:
        if isinstance(each, dict) and each.get("value_type") == "secret" and each.get("value"):
            secrets[str(each.get("name"))] = str(each["value"])
            emptied.append({**each, "value": ""})
        else:
            emptied.append(each)
    return {**document, "workflow": {**workflow, "environment_variables": emptied}}, secrets
