"""Packages of Dify: what is read of them, what is refused, and the forms of credentials."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.aggregate import Rejection
from handlers.commands import dify_package
from handlers.commands.dify_form import form_fault
from handlers.commands.dify_package import manifest as read_manifest
from handlers.commands.plugin_package import pack, read
from tests.adapters.plugins.dify_lab import FILES, FORM, MANIFEST
from tests.dify_packages import manifest, unpacked, words

MODELS = {
    "provider/lab.yaml": {
        "provider": "lab",
        "label": words("Lab"),
        "supported_model_types": ["llm", "text-embedding", "tts"],
        "configurate_methods": ["predefined-model"],
        "provider_credential_schema": {
            "credential_form_schemas": [{"variable": "api_key", "type": "secret-input", "required": True}]
        },
        "models": {"llm": {"predefined": ["models/llm/*.yaml"]}, "text_embedding": {"predefined": ["models/e/*.yaml"]}},
    },
    "models/llm/_position.yaml": ["small"],
    "models/llm/small.yaml": {
        "model": "small",
        "model_type": "llm",
        "features": ["tool-call", "vision", "agent-thought", "polling"],
        "model_properties": {"mode": "chat", "context_size": 32768},
        "parameter_rules": [{"name": "temperature"}, {"name": "max_tokens", "use_template": "max_tokens", "max": 4096}],
        "pricing": {"input": "0.15", "output": "0.60", "unit": "0.000001", "currency": "USD"},
    },
    "models/llm/yuan.yaml": {
        "model": "yuan",
        "model_type": "llm",
        "pricing": {"input": "1", "output": "2", "unit": "0.001", "currency": "RMB"},
    },
    "models/e/vectors.yaml": {"model": "vectors", "model_type": "text-embedding"},
}


def found(whole: dict[str, Any], files: dict[str, Any]) -> Any:
    texts = {name: each if isinstance(each, str) else json.dumps(each) for name, each in files.items()}
    given = {**texts, "manifest.yaml": json.dumps(whole)}
    return read_manifest(lambda name: given[name].encode(), list(given))


def fault(whole: dict[str, Any], files: dict[str, Any] | None = None) -> str:
    with pytest.raises(Rejection) as refused:
        found(whole, files or {})
    assert refused.value.code == "invalid_package"
    return refused.value.message


def test_tools_are_read_with_their_forms() -> None:
    known = read(unpacked(MANIFEST, FILES, wheels=False)).manifest
    assert (known["name"], known["version"], known["kind"], known["python"]) == ("lab", "0.1.0", "dify", "3.12")
    assert known["network"] == ["*"]
    lab, guarded = known["dify"]["tools"]
    assert lab["tools"][0]["name"] == "echo"
    assert lab["tools"][0]["parameters"][0]["required"]
    assert [(field["name"], field["type"], field["required"]) for field in guarded["credentials"]] == [
        ("api_key", "secret-input", True),
        ("region", "select", False),
    ]
    assert known["dify"]["permissions"] == ["model.llm", "storage", "tool"]
    assert known["dify"]["storage"] == 1024


def test_models_are_read_with_window_abilities_and_prices() -> None:
    known = found(manifest(plugins={"models": ["provider/lab.yaml"]}), MODELS)["dify"]
    [provider] = known["models"]
    assert provider["types"] == ["chat", "embedding", "speech"]
    by_name = {each["name"]: each for each in provider["models"]}
    assert by_name.keys() == {"small", "yuan", "vectors"}
    small = by_name["small"]
    assert (small["context_window"], small["max_output"]) == (32768, 4096)
    assert small["abilities"] == {"tools": True, "image": True, "reasoning": True}
    assert small["prices"] == {"input": 0.15, "output": 0.6}
    assert by_name["yuan"]["prices"] is None
    assert "Prices in RMB are left out." in known["warnings"]
    assert "Models of lab: those of type speech are left out." in known["warnings"]


def test_what_is_left_out_is_said() -> None:
    permission = {"endpoint": {"enabled": True}, "app": {"enabled": True}, "model": {"enabled": True, "tts": True}}
    whole = manifest(
        plugins={"endpoints": ["a.yaml"], "triggers": ["b.yaml"], "datasources": ["c.yaml"]},
        resource={"memory": 1, "permission": permission},
    )
    assert found(whole, {})["dify"]["warnings"] == [
        "It may call every address that the guard permits, by HTTP only.",
        "Its endpoints are left out.",
        "Its data sources are left out.",
        "Its triggers are left out.",
        "It may not call apps, which it asks for.",
        "It may not call endpoints, which it asks for.",
        "It may not call models of tts, which it asks for.",
    ]


def test_a_manifest_that_cannot_be_run_is_refused() -> None:
    assert "name" in fault(manifest(name="A B"))
    assert "version" in fault(manifest(version="latest"))
    assert "which another one names" in fault(manifest(plugins={"tools": ["../../etc/passwd"]}))
    assert "entrypoint" in fault(manifest(meta={"runner": {"entrypoint": "os; x"}}))
    assert "must be a list" in fault(manifest(plugins={"tools": "provider/lab.yaml"}))
    runner = {"language": "go", "entrypoint": "main", "version": "1"}
    assert "python" in fault(manifest(meta={"runner": runner}))


def test_hostile_yaml_is_refused_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = "a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n"
    whole = manifest(plugins={"tools": ["x.yaml"]})
    assert "Aliases" in fault(whole, {"x.yaml": bomb})
    assert "no YAML file" in fault(whole, {"x.yaml": "!!python/object/apply:os.system ['true']"})
    assert "no YAML file" in fault(whole, {"x.yaml": "a: ["})
    assert "no YAML file" in fault(whole, {"x.yaml": "[" * 50_000})
    assert "no YAML file" in fault(whole, {"x.yaml": "a: .nan"})
    assert "must be a mapping" in fault(whole, {"x.yaml": "- 1"})
    monkeypatch.setattr(dify_package, "MOST_FILE", 1000)
    assert "At most" in fault(whole, {"x.yaml": "# " + "x" * 2000})


def test_a_package_without_a_manifest_is_refused() -> None:
    with pytest.raises(Rejection) as refused:
        read(pack(iter([("main.py", False, b"")])))
    assert "plugin.json or manifest.yaml" in refused.value.message


def test_credentials_must_be_those_of_the_form() -> None:
    fields = read(unpacked(MANIFEST, FILES, wheels=False)).manifest["dify"]["tools"][1]["credentials"]
    assert set(FORM) == {field["name"] for field in fields}
    assert form_fault(fields, '{"api_key": "k"}') is None
    assert form_fault(fields, '{"api_key": "k", "region": "us"}') is None
    for text, part in (
        ("k", "JSON object"),
        ("{}", "api_key is required"),
        ('{"api_key": 1}', "must be a text"),
        ('{"api_key": "k", "region": "mars"}', "one of eu, us"),
        ('{"api_key": "k", "other": "x"}', "no field other"),
    ):
        assert part in (form_fault(fields, text) or "")
