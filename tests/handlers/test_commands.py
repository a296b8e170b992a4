from __future__ import annotations

from typing import Any

import orjson
import pytest

from domain.aggregate import Aggregate, Rejection, new_id
from domain.chat.app import App, features, settings
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.models.provider import Provider
from domain.models.route import ModelRoute
from handlers.commands import chat, knowledge, models, retrieval
from handlers.commands.fields import MAX_DEPTH, MAX_PAYLOAD, MAX_TEXT, Command, named, parse, references
from handlers.routes import ROUTES

ID, OTHER = new_id(), new_id()
DIGEST = "ab" * 32


def refused(command: type[Command], payload: Any) -> Rejection:
    data = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    with pytest.raises(Rejection) as caught:
        parse(command, data)
    assert caught.value.message.endswith(".")
    assert len(caught.value.message) < 500
    return caught.value


def invalid(command: type[Command], fields: dict[str, Any]) -> str | None:
    """The field at fault, which the sentence does not repeat."""
    rejection = refused(command, fields)
    assert rejection.code == "invalid"
    assert not rejection.message.startswith(f"{rejection.field}:")
    return rejection.field


def test_defaults_are_filled_in() -> None:
    command = parse(chat.ConfigureApp, orjson.dumps({"app": ID}))
    assert command.model_dump() == {
        "app": ID,
        "model": {
            "route": None,
            "provider": "builtin",
            "name": "extractive",
            "max_tokens": 512,
            "context_window": 8192,
            "parameters": {},
        },
        "prompt": "",
        "variables": [],
        "datasets": [],
        "retrieval": settings({"mode": "hybrid", "weight": 0.7, "top_k": 4, "score_threshold": None}),
        "features": features({}),
    }


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        ({}, 0.7),
        ({"mode": "hybrid"}, 0.7),
        ({"weight": None}, None),
        ({"weight": 0.2}, 0.2),
        ({"mode": "semantic"}, None),
        ({"mode": "full_text", "weight": None}, None),
    ],
)
def test_only_a_hybrid_search_has_a_weight(given: dict[str, Any], weight: float | None) -> None:
    fields = {"datasets": [ID], "query": "x", "retrieval": given}
    assert parse(retrieval.TestDatasets, orjson.dumps(fields)).retrieval.weight == weight
    assert parse(chat.ConfigureApp, orjson.dumps({"app": ID, "retrieval": given})).retrieval.weight == weight
    for mode in ("semantic", "full_text"):
        assert invalid(retrieval.TestDatasets, fields | {"retrieval": {"mode": mode, "weight": 0.7}}) == "retrieval"


def test_an_app_that_was_configured_without_a_weight_keeps_its_rank_fusion() -> None:
    assert settings({"mode": "hybrid", "top_k": 4, "score_threshold": None})["weight"] is None


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"name": "x",}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"name": "\\ud800"}', "not JSON"),
        (b'{"name": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "an array"),
        (b'"app"', "a string"),
        (b"null", "null"),
        (b"true", "a boolean"),
        (b"3", "a number"),
        (b"0.5", "a number"),
    ],
)
def test_what_is_not_a_json_object_is_broken(payload: bytes, says: str) -> None:
    rejection = refused(chat.CreateApp, payload)
    assert (rejection.code, rejection.field) == ("broken_json", None)
    assert says in rejection.message


def test_a_large_payload_is_refused_before_it_is_read() -> None:
    rejection = refused(chat.CreateApp, b"{" * (MAX_PAYLOAD + 1))
    assert rejection.code == "too_large"
    assert "object store" in rejection.message


@pytest.mark.parametrize("command", [route.command for route in ROUTES.values()])
def test_no_command_takes_a_field_that_it_does_not_know(command: type[Command]) -> None:
    known = {name: "x" for name, field in command.model_fields.items() if field.is_required()}
    assert refused(command, {**known, "naem": 1}).code == "invalid"


@pytest.mark.parametrize("command", [route.command for route in ROUTES.values()])
def test_every_required_field_is_missed(command: type[Command]) -> None:
    assert command.model_fields[invalid(command, {}) or ""].is_required()


UPLOAD = {"dataset": ID, "name": "a.txt", "text": "x"}
SEND = {"app": ID, "query": "Why?"}
REGISTER = {"name": "lab", "base_url": "https://models.example.com/v1"}
NESTED: Any = 1
for _ in range(MAX_DEPTH):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("command", "fields", "field"),
    [
        (chat.CreateApp, {"name": "x", "extra": 1}, "extra"),
        (chat.CreateApp, {"name": 1}, "name"),
        (chat.CreateApp, {"name": None}, "name"),
        (chat.CreateApp, {"name": ["x"]}, "name"),
        (chat.CreateApp, {"name": " \t\n"}, "name"),
        (chat.CreateApp, {"name": ""}, "name"),
        (chat.CreateApp, {"name": "x" * 256}, "name"),
        (chat.CreateApp, {"name": "a\0b"}, "name"),
        (chat.CreateApp, {"name": "x", "description": "x" * 2001}, "description"),
        (chat.CreateApp, {"name": "x", "na\0me": "x"}, "na�me"),
        (chat.CreateApp, {"name": "x", "mode": "agent"}, "mode"),
        (chat.DeleteApp, {"app": "x"}, "app"),
        (chat.DeleteApp, {"app": ID.upper()}, "app"),
        (chat.DeleteApp, {"app": ID.replace("-", "")}, "app"),
        (chat.DeleteApp, {"app": f"{{{ID}}}"}, "app"),
        (chat.DeleteApp, {"app": f"{ID}\n"}, "app"),
        (chat.ConfigureApp, {"app": ID, "model": {"max_tokens": "512"}}, "model.max_tokens"),
        (chat.ConfigureApp, {"app": ID, "model": {"max_tokens": True}}, "model.max_tokens"),
        (chat.ConfigureApp, {"app": ID, "model": {"max_tokens": 0}}, "model.max_tokens"),
        (chat.ConfigureApp, {"app": ID, "model": {"max_tokens": 8192}}, "model"),
        (chat.ConfigureApp, {"app": ID, "model": {"name": "gpt"}}, "model"),
        (chat.ConfigureApp, {"app": ID, "model": {"provider": "Lab"}}, "model.provider"),
        (chat.ConfigureApp, {"app": ID, "model": {"parameters": {"x": "y" * 17_000}}}, "model.parameters"),
        (chat.ConfigureApp, {"app": ID, "model": {"parameters": {"x": NESTED}}}, "model"),
        (chat.ConfigureApp, {"app": ID, "model": {"parameters": {"x": ["a\0"]}}}, "model.parameters.x.0"),
        (chat.ConfigureApp, {"app": ID, "prompt": "x" * 100_001}, "prompt"),
        (chat.ConfigureApp, {"app": ID, "variables": [{"name": "1st"}]}, "variables.0.name"),
        (chat.ConfigureApp, {"app": ID, "variables": [{"name": "x"}] * 65}, "variables"),
        (chat.ConfigureApp, {"app": ID, "datasets": [ID, "x"]}, "datasets.1"),
        (chat.ConfigureApp, {"app": ID, "datasets": [ID] * 33}, "datasets"),
        (chat.ConfigureApp, {"app": ID, "datasets": ID}, "datasets"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"mode": "fuzzy"}}, "retrieval.mode"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"top_k": 51}}, "retrieval.top_k"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"top_k": 4.0}}, "retrieval.top_k"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"score_threshold": 1.1}}, "retrieval.score_threshold"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"provider": "lab"}}}, "retrieval.rerank"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"top_n": 0}}}, "retrieval.rerank.top_n"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"top_n": 201}}}, "retrieval.rerank.top_n"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"top_n": 3}}}, "retrieval"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"model": ""}}}, "retrieval.rerank.model"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"rerank": "builtin"}}, "retrieval.rerank"),
        (chat.ConfigureApp, {"app": ID, "retrieval": {"metadata_filter": {"mode": "automatic"}}}, "retrieval"),
        (chat.ConfigureApp, {"app": ID, "features": {"opener": "Hello"}}, "features.opener"),
        (chat.ConfigureApp, {"app": ID, "features": {"opening_statement": "x" * 10_001}}, "features.opening_statement"),
        (chat.ConfigureApp, {"app": ID, "features": {"suggested_questions": [" "]}}, "features.suggested_questions.0"),
        *(
            (chat.ConfigureApp, {"app": ID, "features": {"moderation": [filter]}}, f"features.moderation.0{field}")
            for filter, field in [
                ({"kind": "image"}, ".kind"),
                ({"kind": "words"}, ""),
                ({"kind": "words", "words": []}, ""),
                ({"kind": "words", "words": [" "]}, ".words.0"),
                ({"kind": "words", "words": ["x" * 101]}, ".words.0"),
                ({"kind": "words", "words": ["x" * 100] * 700}, ".words"),
                ({"kind": "words", "words": ["x"], "provider": "guard"}, ""),
                ({"kind": "words", "words": ["x"], "model": {"provider": "lab", "name": "m"}}, ""),
                ({"kind": "words", "words": ["x"], "action": "answer"}, ""),
                ({"kind": "words", "words": ["x"], "deadline_s": 0}, ".deadline_s"),
                ({"kind": "words", "words": ["x"], "fail": "ajar"}, ".fail"),
                ({"kind": "http"}, ""),
                ({"kind": "http", "provider": "builtin"}, ""),
                ({"kind": "http", "provider": "guard", "words": ["x"]}, ""),
                ({"kind": "model", "model": {}}, ""),
            ]
        ),
        (
            chat.ConfigureApp,
            {"app": ID, "features": {"moderation": [{"kind": "words", "words": ["x"]}] * 11}},
            "features.moderation",
        ),
        (chat.ConfigureApp, {"app": ID, "features": {"moderation": [{"kind": "model"}]}}, "features"),
        (chat.ConfigureApp, {"app": ID, "features": {"suggest_after_answer": {}}}, "features"),
        (
            chat.ConfigureApp,
            {"app": ID, "features": {"suggest_after_answer": {"prompt": "x" * 1001}}},
            "features.suggest_after_answer.prompt",
        ),
        (chat.ConfigureApp, {"app": ID, "features": {"response_schema": {"type": "object"}}}, "features"),
        (
            chat.ConfigureApp,
            {"app": ID, "features": {"response_schema": {"type": "array"}}},
            "features.response_schema",
        ),
        (
            chat.ConfigureApp,
            {"app": ID, "features": {"suggested_questions": ["x"] * 11}},
            "features.suggested_questions",
        ),
        (knowledge.UploadDocument, {"dataset": ID, "name": "a.txt"}, "digest"),
        (knowledge.UploadDocument, {**UPLOAD, "digest": DIGEST}, "digest"),
        (knowledge.UploadDocument, {**UPLOAD, "text": "é" * (MAX_TEXT // 2 + 1)}, "text"),
        (knowledge.UploadDocument, {**UPLOAD, "text": "a\0b"}, "text"),
        (knowledge.UploadDocument, {**UPLOAD, "media_type": "text"}, "media_type"),
        (knowledge.UploadDocument, {**UPLOAD, "text": None, "digest": "AB" * 32}, "digest"),
        (knowledge.UploadDocument, {**UPLOAD, "text": None, "digest": f"{DIGEST}\n"}, "digest"),
        (knowledge.UploadDocument, {**UPLOAD, "metadata": {"x": "y" * 17_000}}, "metadata"),
        (knowledge.UploadDocument, {**UPLOAD, "metadata": {"x": {"y": 1}}}, "metadata.x"),
        (chat.SendMessage, {**SEND, "query": "  "}, "query"),
        (chat.SendMessage, {**SEND, "query": "x" * 100_001}, "query"),
        (chat.SendMessage, {**SEND, "inputs": {"city": 1}}, "inputs.city"),
        (chat.SendMessage, {**SEND, "user": ""}, "user"),
        (chat.SendMessage, {**SEND, "conversation": "x"}, "conversation"),
        (chat.RateMessage, {"conversation": ID, "message": ID}, "rating"),
        (chat.RateMessage, {"conversation": ID, "message": ID, "rating": "love"}, "rating"),
        (models.RegisterProvider, {**REGISTER, "name": "builtin"}, "name"),
        (models.RegisterProvider, {**REGISTER, "name": "Lab 1"}, "name"),
        (models.RegisterProvider, {**REGISTER, "name": "a.b"}, "name"),
        (models.RegisterProvider, {**REGISTER, "base_url": "ftp://models.example.com"}, "base_url"),
        (models.RegisterProvider, {**REGISTER, "base_url": "https://ada:secret@example.com"}, "base_url"),
        (models.RegisterProvider, {**REGISTER, "base_url": "https://models.example.com/v1?x=#"}, "base_url"),
        (models.RegisterProvider, {**REGISTER, "base_url": "https://models.example.com/v1#"}, "base_url"),
        (models.RegisterProvider, {**REGISTER, "base_url": "https://models.example.com\\@127.0.0.1/v1"}, "base_url"),
        (models.RegisterProvider, {**REGISTER, "base_url": "https://models.example.com:99999/v1"}, "base_url"),
        (models.RegisterProvider, {**REGISTER, "base_url": "https://[half/v1"}, "base_url"),
        (models.RegisterProvider, {**REGISTER, "base_url": "https:///v1"}, "base_url"),
        (models.RegisterProvider, {**REGISTER, "key": "x" * 10_001}, "key"),
    ],
)
def test_a_rejection_names_the_field(command: type[Command], fields: dict[str, Any], field: str) -> None:
    assert invalid(command, fields) == field


@pytest.mark.parametrize("query", ["", "?", "?api-version=2024-10-21", "?a=1&a=2&b=%2F", "?to=a@b"])
def test_an_address_may_have_a_query(query: str) -> None:
    fields = {**REGISTER, "base_url": f"https://models.example.com/openai/deployments/gpt{query}"}
    assert parse(models.RegisterProvider, orjson.dumps(fields)).model_dump()["base_url"] == fields["base_url"]


def test_a_rejection_does_not_repeat_the_key() -> None:
    for fields in ({"key": "sk-secret" * 2000}, {"key": ["sk-secret"]}, {"key": "sk-secret\0"}, {"base_url": 1}):
        rejection = refused(models.RegisterProvider, {**REGISTER, "key": "sk-secret", **fields})
        assert "sk-secret" not in rejection.message


def test_nesting_is_allowed_where_it_can_be_stored() -> None:
    inner: Any = NESTED
    for _ in range(4):
        [inner] = inner
    parsed = parse(chat.ConfigureApp, orjson.dumps({"app": ID, "model": {"parameters": {"x": inner}}}))
    assert orjson.dumps(parsed.model_dump())


@pytest.mark.parametrize("text", ["שלום עולם", "水门几点开？", "مرحبا", "🚢" * 100, "a\u202eb", "\u0001"])
def test_texts_are_in_every_script(text: str) -> None:
    assert parse(chat.CreateApp, orjson.dumps({"name": text})).model_dump()["name"] == text


def test_a_route_stands_for_a_model_wherever_one_is_named() -> None:
    model = {"route": "fast"}
    features = {
        "name_conversations": True,
        "moderation": [{"kind": "model"}, {"kind": "model", "model": model}],
        "suggest_after_answer": {"model": model},
        "response_schema": {"type": "object"},
    }
    command = parse(chat.ConfigureApp, orjson.dumps({"app": ID, "model": model, "features": features}))
    settings = command.features.settings()
    assert {settings["moderation"][1]["model"][name] for name in ("provider", "name")} == {""}
    assert settings["moderation"][0]["model"] is None
    assert settings["suggest_after_answer"]["model"]["route"] == "fast"
    plain = parse(chat.ConfigureApp, orjson.dumps({"app": ID, "features": {"moderation": [FILTER]}}))
    assert "route" not in plain.features.settings()["moderation"][0]["model"]


FILTER = {"kind": "model", "model": {"provider": "lab", "name": "small"}}


def found(command: Command) -> list[tuple[str, type[Aggregate], str]]:
    kinds = references(type(command))
    return [(place, kind, id) for path, kind in kinds for place, id in named(command, path, kind)]


def test_references_are_found_wherever_they_are() -> None:
    assert dict(references(chat.ConfigureApp)) == {
        "app": App,
        "model.provider": Provider,
        "model.route": ModelRoute,
        "datasets[]": Dataset,
        "retrieval.rerank.provider": Provider,
        "features.moderation[].model.provider": Provider,
        "features.moderation[].model.route": ModelRoute,
        "features.moderation[].provider": Provider,
        "features.suggest_after_answer.model.provider": Provider,
        "features.suggest_after_answer.model.route": ModelRoute,
    }
    configure = chat.ConfigureApp(app=ID, model=chat.ModelFields(provider="lab", name="small"), datasets=[ID, OTHER])
    assert found(configure) == [
        ("app", App, ID),
        ("model.provider", Provider, "lab"),
        ("datasets.0", Dataset, ID),
        ("datasets.1", Dataset, OTHER),
    ]
    assert found(chat.SendMessage(app=ID, query="?")) == [("app", App, ID)]
    assert found(chat.SendMessage(app=ID, query="?", conversation=OTHER)) == [
        ("app", App, ID),
        ("conversation", Conversation, OTHER),
    ]
    assert found(knowledge.RetryDocument(document=ID)) == [("document", Document, ID)]
    assert found(models.RemoveProvider(provider="lab")) == [("provider", Provider, "lab")]


def test_the_builtin_provider_is_no_reference() -> None:
    assert found(chat.ConfigureApp(app=ID)) == [("app", App, ID)]
