"""The contents of a package of Dify: `manifest.yaml` and the files that it names, as they declare them.

Nothing of the package runs. The files are read by YAML's safe loader without aliases, up to limits of number and size.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

import yaml

from domain.aggregate import Rejection
from domain.tools.dify import (
    Declared,
    DifyTool,
    Field,
    ModelProvider,
    Parameter,
    Predefined,
    Price,
    Strategy,
    StrategyProvider,
    ToolProvider,
)
from domain.tools.plugin import Manifest, Match

MANIFEST = "manifest.yaml"

MOST_FILES, MOST_FILE, MOST_TEXT = 2000, 512 * 1024, 8 * 2**20
"""Maximum number of files that are read, maximum size of one, and of all together, in bytes."""

MOST_DECLARED = 2 * 2**20
"""Maximum size of what a package declares, as JSON, in bytes."""

LEAST_MEMORY_MB = 2048
"""Address space of a process, in MiB: what a package declares is the memory that it uses, which is much less."""

TYPES = {
    "llm": "chat",
    "text-embedding": "embedding",
    "rerank": "rerank",
    "speech2text": "transcription",
    "tts": "speech",
    "moderation": "moderation",
}
"""Types of models, by Dify's words."""

SERVED = ("chat", "embedding", "rerank")
"""Types of models that providers of kind `dify` serve."""

FEATURES = {
    "tool-call": "tools",
    "multi-tool-call": "tools",
    "vision": "image",
    "document": "document",
    "audio": "audio",
    "agent-thought": "reasoning",
    "structured-output": "schema",
}
"""Abilities of chat models, by Dify's words."""

CALLED_BACK = {
    "app": "apps",
    "node": "nodes of workflows",
    "endpoint": "endpoints",
}
"""Permissions that are not granted, each in words."""

OF_MODELS = ("text_embedding", "rerank", "tts", "speech2text", "moderation")

Load = Callable[[str], Any]
"""Reads a YAML file of the package by its path. Raises: Rejection."""


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]  # it has no types
    """Without times, which are no JSON."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


def manifest(read: Callable[[str], bytes], names: Sequence[str]) -> Manifest:
    """The manifest of a package with these files, `read` by their names. Raises: Rejection `invalid_package`."""
    load = _loading(read, frozenset(names))
    whole = _mapping(load(MANIFEST), MANIFEST)
    name, version = str(whole.get("name", "")), str(whole.get("version", ""))
    if not re.fullmatch(r"[a-z0-9_-]{1,64}", name):
        raise _invalid(f"{MANIFEST}: name: Must have 1 to 64 of a-z, 0-9, _ and -.")
    if not re.fullmatch(r"\d{1,9}\.\d{1,9}\.\d{1,9}(?:[-+.][0-9A-Za-z.+-]{1,64})?", version):
        raise _invalid(f"{MANIFEST}: version: Must be a version, like 1.2.3.")
    runner = _at(whole, "meta", "runner")
    if runner.get("language", "python") != "python":
        raise _invalid(f"{MANIFEST}: meta.runner.language: Only python can be run.")
    python = re.match(r"3\.\d{1,2}", str(runner.get("version", "3.12")))
    entrypoint = str(runner.get("entrypoint", "main"))
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", entrypoint):
        raise _invalid(f"{MANIFEST}: meta.runner.entrypoint: Must be the name of a module.")
    declared = _declared(whole, load, names)
    if len(json.dumps(declared)) > MOST_DECLARED:
        raise _invalid(f"Its files declare more than {MOST_DECLARED:,} bytes.")
    memory = _at(whole, "resource").get("memory")
    wanted = memory // 2**20 if isinstance(memory, int) and memory < 2**40 else 0
    return Manifest(
        name=name,
        version=version,
        description=_words(whole.get("description"))[:2000],
        main=f"{entrypoint}.py",
        python=python[0] if python else "3.12",
        dependencies={},
        hooks={},
        kind="dify",
        match=Match(kinds=[], providers=[], models=[], apps=[]),
        order=0,
        timeout_ms=600_000,
        on_failure="closed",
        window="sentence",
        settings={},
        network=["*"],
        memory_mb=min(max(LEAST_MEMORY_MB, 2 * wanted), 65_536),
        api=1,
        dify=declared,
    )


def _loading(read: Callable[[str], bytes], names: frozenset[str]) -> Load:
    total = count = 0

    def load(path: str) -> Any:
        nonlocal total, count
        path = path.removeprefix("./")
        if path not in names:
            raise _invalid(f"It has no file {path[:200]}, which another one names.")
        data = read(path)
        total, count = total + len(data), count + 1
        if len(data) > MOST_FILE or total > MOST_TEXT or count > MOST_FILES:
            raise _invalid(
                f"{path}: At most {MOST_FILES:,} files of {MOST_FILE:,} bytes are read, {MOST_TEXT:,} in all."
            )
        return parsed(data, path)

    return load


def parsed(data: bytes, path: str) -> Any:
    """A YAML document, as JSON could hold it. Raises: Rejection `invalid_package`."""
    try:
        text = data.decode("utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _Loader)):
            raise _invalid(f"{path}: Aliases of YAML are not read.")
        found = yaml.load(text, _Loader)
        json.dumps(found, allow_nan=False)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise _invalid(f"{path} is no YAML file that can be read: {str(error)[:200]}.") from None
    return found


def _declared(whole: Mapping[str, Any], load: Load, names: Sequence[str]) -> Declared:
    plugins = _mapping(whole.get("plugins") or {}, MANIFEST)
    warnings = _warnings(whole, plugins)
    tools = [_tools(path, load, warnings) for path in _paths(plugins, "tools")]
    models = [_models(path, load, names, warnings) for path in _paths(plugins, "models")]
    strategies = [_strategies(path, load) for path in _paths(plugins, "agent_strategies")]
    permission = _at(whole, "resource", "permission")
    storage = _at(permission, "storage")
    size = storage.get("size", 2**20)
    return Declared(
        author=str(whole.get("author") or "")[:64],
        label=_words(whole.get("label"))[:200],
        tools=tools,
        models=models,
        strategies=strategies,
        permissions=sorted(_permissions(permission)),
        storage=min(max(size, 1024), 2**30) if storage.get("enabled") and isinstance(size, int) else 0,
        warnings=list(dict.fromkeys(warnings))[:200],
    )


def _permissions(permission: Mapping[str, Any]) -> Iterator[str]:
    for name in ("tool", "storage"):
        if _at(permission, name).get("enabled"):
            yield name
    model = _at(permission, "model")
    if model.get("enabled"):
        yield from (f"model.{name}" for name in ("llm", *OF_MODELS) if model.get(name))


def _warnings(whole: Mapping[str, Any], plugins: Mapping[str, Any]) -> list[str]:
    """Parts that a package has or asks for, and that it does not get."""
    found = ["It may call every address that the guard permits, by HTTP only."]
    for kind, words in (("endpoints", "endpoints"), ("datasources", "data sources"), ("triggers", "triggers")):
        if plugins.get(kind):
            found.append(f"Its {words} are left out.")
    permission = _at(whole, "resource", "permission")
    for name, words in CALLED_BACK.items():
        if _at(permission, name).get("enabled"):
            found.append(f"It may not call {words}, which it asks for.")
    model = _at(permission, "model")
    found += [f"It may not call models of {name}, which it asks for." for name in OF_MODELS if model.get(name)]
    return found


def _tools(path: str, load: Load, warnings: list[str]) -> ToolProvider:
    whole = _mapping(load(path), path)
    name = _name(_at(whole, "identity"), path)
    if whole.get("oauth_schema"):
        warnings.append(f"Tools of {name}: OAuth is left out; credentials by the form are needed.")
    form = whole.get("credentials_for_provider") or {}
    fields = [
        {**_mapping(each, path), "name": key} for key, each in _mapping(form, path).items() if isinstance(key, str)
    ]
    tools = [_tool(str(each), load, warnings) for each in _list(whole.get("tools"), path)]
    return ToolProvider(
        name=name,
        label=_words(_at(whole, "identity").get("label"))[:200],
        description=_words(_at(whole, "identity").get("description"))[:2000],
        credentials=[_field(each, each["name"], path) for each in fields],
        tools=tools,
    )


def _tool(path: str, load: Load, warnings: list[str]) -> DifyTool:
    whole = _mapping(load(path), path)
    identity, description = _at(whole, "identity"), _at(whole, "description")
    name = _name(identity, path)
    parameters = []
    for each in _list(whole.get("parameters"), path):
        found = _parameter(_mapping(each, path), path)
        if found["type"] in ("app-selector", "dynamic-select", "model-selector"):
            warnings.append(f"Tool {name}: the parameter {found['name']} of type {found['type']} offers no list.")
        parameters.append(found)
    return DifyTool(
        name=name,
        label=_words(identity.get("label"))[:200],
        description=str(description.get("llm") or _words(description.get("human")))[:10_000],
        parameters=parameters,
    )


def _parameter(whole: Mapping[str, Any], path: str) -> Parameter:
    words = _words(whole.get("human_description")) or _words(whole.get("label"))
    schema = whole.get("input_schema")
    return Parameter(
        name=_name(whole, path),
        type=str(whole.get("type", "string")),
        form=str(whole.get("form", "llm")),
        required=bool(whole.get("required")),
        description=str(whole.get("llm_description") or words)[:4000],
        default=whole.get("default"),
        options=_options(whole, path),
        minimum=_number(whole.get("min")),
        maximum=_number(whole.get("max")),
        multiple=bool(whole.get("multiple")),
        json_schema=dict(schema) if isinstance(schema, dict) else None,
    )


def _models(path: str, load: Load, names: Sequence[str], warnings: list[str]) -> ModelProvider:
    whole = _mapping(load(path), path)
    name = str(whole.get("provider", ""))
    if not re.fullmatch(r"[A-Za-z0-9_./-]{1,128}", name):
        raise _invalid(f"{path}: provider: Must be a name.")
    types = [TYPES[each] for each in map(str, _list(whole.get("supported_model_types"), path)) if each in TYPES]
    if left := [each for each in types if each not in SERVED]:
        warnings.append(f"Models of {name}: those of type {', '.join(left)} are left out.")
    models = []
    for part in _mapping(whole.get("models") or {}, path).values():
        for pattern in _list(_mapping(part or {}, path).get("predefined"), path):
            models += [_predefined(each, load, warnings) for each in _matching(str(pattern), names)]
    return ModelProvider(
        name=name,
        label=_words(whole.get("label"))[:200],
        types=types,
        credentials=_form(_at(whole, "provider_credential_schema"), path),
        of_models=_form(_at(whole, "model_credential_schema"), path),
        models=[each for each in models if each["type"] in types],
    )


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The files that a pattern like `models/llm/*.yaml` names, but for those with their order."""
    parts = PurePosixPath(pattern.removeprefix("./")).parts
    deep = "**" in parts

    def matches(name: str) -> bool:
        found = name.split("/")
        if deep:
            return fnmatchcase(name, pattern.replace("**/", "*"))
        return len(found) == len(parts) and all(map(fnmatchcase, found, parts))

    return [name for name in sorted(names) if matches(name) and not name.endswith("_position.yaml")]


def _predefined(path: str, load: Load, warnings: list[str]) -> Predefined:
    whole = _mapping(load(path), path)
    properties = _at(whole, "model_properties")
    features = [str(each) for each in _list(whole.get("features"), path)]
    window = properties.get("context_size")
    return Predefined(
        name=str(whole.get("model", ""))[:255],
        type=TYPES.get(str(whole.get("model_type")), ""),
        context_window=window if isinstance(window, int) and window > 0 else None,
        max_output=_max_output(whole, path),
        abilities={FEATURES[each]: True for each in features if each in FEATURES},
        prices=_prices(_at(whole, "pricing"), warnings),
        deprecated=bool(whole.get("deprecated")),
    )


def _max_output(whole: Mapping[str, Any], path: str) -> int | None:
    for each in _list(whole.get("parameter_rules"), path):
        rule = _mapping(each, path)
        if "max_tokens" in (rule.get("name"), rule.get("use_template")):
            most = rule.get("max")
            return most if isinstance(most, int) and most > 0 else None
    return None


def _prices(whole: Mapping[str, Any], warnings: list[str]) -> Price | None:
    """Prices in dollars per million tokens; None for none, and for another currency."""
    if not whole:
        return None
    if str(whole.get("currency")) != "USD":
        warnings.append(f"Prices in {str(whole.get('currency'))[:20]} are left out.")
        return None
    try:
        unit = float(whole.get("unit", 1e-6)) * 1e6
        found = [float(whole.get(name) or 0) * unit for name in ("input", "output")]
    except (TypeError, ValueError):
        return None
    if not all(math.isfinite(each) and 0 <= each < 1e6 for each in found):
        return None
    return Price(input=round(found[0], 9), output=round(found[1], 9))


def _strategies(path: str, load: Load) -> StrategyProvider:
    whole = _mapping(load(path), path)
    found = []
    for each in _list(whole.get("strategies"), path):
        of = str(each)
        strategy = _mapping(load(of), of)
        parameters = [_parameter(_mapping(one, of), of) for one in _list(strategy.get("parameters"), of)]
        found.append(
            Strategy(
                name=_name(_at(strategy, "identity"), of),
                label=_words(_at(strategy, "identity").get("label"))[:200],
                description=_words(strategy.get("description"))[:2000],
                parameters=parameters,
            )
        )
    return StrategyProvider(name=_name(_at(whole, "identity"), path), strategies=found)


def _form(whole: Mapping[str, Any], path: str) -> list[Field]:
    found = [_mapping(each, path) for each in _list(whole.get("credential_form_schemas"), path)]
    return [_field(each, str(each.get("variable", "")), path) for each in found]


def _field(whole: Mapping[str, Any], name: str, path: str) -> Field:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", name):
        raise _invalid(f"{path}: {name[:100]!r} is no name of a field.")
    return Field(
        name=name,
        type=str(whole.get("type", "text-input")),
        required=bool(whole.get("required")),
        default=whole.get("default"),
        options=_options(whole, path),
        label=_words(whole.get("label"))[:200],
        when={
            str(each.get("variable")): str(each.get("value"))
            for each in _list(whole.get("show_on"), path)
            if isinstance(each, dict)
        },
    )


def _options(whole: Mapping[str, Any], path: str) -> list[str]:
    return [str(_mapping(each, path).get("value"))[:500] for each in _list(whole.get("options"), path)]


def _paths(plugins: Mapping[str, Any], kind: str) -> list[str]:
    return [str(each) for each in _list(plugins.get(kind), MANIFEST)]


def _name(whole: Mapping[str, Any], path: str) -> str:
    """Raises: Rejection."""
    name = str(whole.get("name", ""))
    if not name or len(name) > 128 or not name.isprintable():
        raise _invalid(f"{path}: name: Must have 1 to 128 characters.")
    return name


def _words(text: object) -> str:
    """The English text of one in several languages."""
    if isinstance(text, dict):
        return str(text.get("en_US") or next(iter(text.values()), "") or "")
    return str(text or "")


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _at(whole: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A part of a mapping; an empty one where it is missing."""
    found: Any = whole
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _mapping(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(f"{path}: It must be a mapping.")
    return value


def _list(value: object, path: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _invalid(f"{path}: It must be a list.")
    return value


def _invalid(message: str) -> Rejection:
    return Rejection("invalid_package", message, "package")
