from __future__ import annotations

from typing import Any

import orjson
import pytest

from domain.aggregate import Rejection, new_id
from domain.chat.app import App, settings
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.models.provider import Provider
from handlers import commands
from handlers.commands.fields import MAX_DEPTH, MAX_PAYLOAD, MAX_TEXT, Command, parse, references
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
    """The field at fault, which the sentence names first."""
    rejection = refused(command, fields)
    assert rejection.code == "invalid"
    assert rejection.message.startswith(f"{rejection.field or 'payload'}: ")
    return rejection.field


def test_defaults_are_filled_in() -> None:
    command = parse(commands.ConfigureApp, orjson.dumps({"app": ID}))
    assert command.model_dump() == {
        "app": ID,
        "model": {
            "provider": "builtin",
            "name": "extractive",
            "max_tokens": 512,
            "context_window": 8192,
            "parameters": {},
        },
        "prompt": "",
        "variables": [],
        "datasets": [],
        "retrieval": settings({"mode": "hybrid", "top_k": 4, "score_threshold": None}),
    }


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
    rejection = refused(commands.CreateApp, payload)
    assert (rejection.code, rejection.field) == ("broken_json", None)
    assert says in rejection.message


def test_a_large_payload_is_refused_before_it_is_read() -> None:
    rejection = refused(commands.CreateApp, b"{" * (MAX_PAYLOAD + 1))
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
        (commands.CreateApp, {"name": "x", "extra": 1}, "extra"),
        (commands.CreateApp, {"name": 1}, "name"),
        (commands.CreateApp, {"name": None}, "name"),
        (commands.CreateApp, {"name": ["x"]}, "name"),
        (commands.CreateApp, {"name": " \t\n"}, "name"),
        (commands.CreateApp, {"name": ""}, "name"),
        (commands.CreateApp, {"name": "x" * 256}, "name"),
        (commands.CreateApp, {"name": "a\0b"}, "name"),
        (commands.CreateApp, {"name": "x", "description": "x" * 2001}, "description"),
        (commands.CreateApp, {"name": "x", "na\0me": "x"}, "na�me"),
        (commands.DeleteApp, {"app": "x"}, "app"),
        (commands.DeleteApp, {"app": ID.upper()}, "app"),
        (commands.DeleteApp, {"app": ID.replace("-", "")}, "app"),
        (commands.DeleteApp, {"app": f"{{{ID}}}"}, "app"),
        (commands.DeleteApp, {"app": f"{ID}\n"}, "app"),
        (commands.ConfigureApp, {"app": ID, "model": {"max_tokens": "512"}}, "model.max_tokens"),
        (commands.ConfigureApp, {"app": ID, "model": {"max_tokens": True}}, "model.max_tokens"),
        (commands.ConfigureApp, {"app": ID, "model": {"max_tokens": 0}}, "model.max_tokens"),
        (commands.ConfigureApp, {"app": ID, "model": {"max_tokens": 8192}}, "model"),
        (commands.ConfigureApp, {"app": ID, "model": {"name": "gpt"}}, "model"),
        (commands.ConfigureApp, {"app": ID, "model": {"provider": "Lab"}}, "model.provider"),
        (commands.ConfigureApp, {"app": ID, "model": {"parameters": {"x": "y" * 17_000}}}, "model"),
        (commands.ConfigureApp, {"app": ID, "model": {"parameters": {"x": NESTED}}}, "model"),
        (commands.ConfigureApp, {"app": ID, "model": {"parameters": {"x": ["a\0"]}}}, "model.parameters.x.0"),
        (commands.ConfigureApp, {"app": ID, "prompt": "x" * 100_001}, "prompt"),
        (commands.ConfigureApp, {"app": ID, "variables": [{"name": "1st"}]}, "variables.0.name"),
        (commands.ConfigureApp, {"app": ID, "variables": [{"name": "x"}] * 65}, "variables"),
        (commands.ConfigureApp, {"app": ID, "datasets": [ID, "x"]}, "datasets.1"),
        (commands.ConfigureApp, {"app": ID, "datasets": [ID] * 33}, "datasets"),
        (commands.ConfigureApp, {"app": ID, "datasets": ID}, "datasets"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"mode": "fuzzy"}}, "retrieval.mode"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"top_k": 51}}, "retrieval.top_k"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"top_k": 4.0}}, "retrieval.top_k"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"score_threshold": 1.1}}, "retrieval.score_threshold"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"provider": "lab"}}}, "retrieval.rerank"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"top_n": 0}}}, "retrieval.rerank.top_n"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"top_n": 201}}}, "retrieval.rerank.top_n"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"top_n": 3}}}, "retrieval"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"rerank": {"model": ""}}}, "retrieval.rerank.model"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"rerank": "builtin"}}, "retrieval.rerank"),
        (commands.ConfigureApp, {"app": ID, "retrieval": {"metadata_filter": {"mode": "automatic"}}}, "retrieval"),
        (commands.UploadDocument, {"dataset": ID, "name": "a.txt"}, "digest"),
        (commands.UploadDocument, {**UPLOAD, "digest": DIGEST}, "digest"),
        (commands.UploadDocument, {**UPLOAD, "text": "é" * (MAX_TEXT // 2 + 1)}, "text"),
        (commands.UploadDocument, {**UPLOAD, "text": "a\0b"}, "text"),
        (commands.UploadDocument, {**UPLOAD, "media_type": "text"}, "media_type"),
        (commands.UploadDocument, {**UPLOAD, "text": None, "digest": "AB" * 32}, "digest"),
        (commands.UploadDocument, {**UPLOAD, "text": None, "digest": f"{DIGEST}\n"}, "digest"),
        (commands.UploadDocument, {**UPLOAD, "metadata": {"x": "y" * 17_000}}, "metadata"),
        (commands.UploadDocument, {**UPLOAD, "metadata": {"x": {"y": 1}}}, "metadata.x"),
        (commands.SendMessage, {**SEND, "query": "  "}, "query"),
        (commands.SendMessage, {**SEND, "query": "x" * 100_001}, "query"),
        (commands.SendMessage, {**SEND, "inputs": {"city": 1}}, "inputs.city"),
        (commands.SendMessage, {**SEND, "user": ""}, "user"),
        (commands.SendMessage, {**SEND, "conversation": "x"}, "conversation"),
        (commands.RateMessage, {"conversation": ID, "message": ID}, "rating"),
        (commands.RateMessage, {"conversation": ID, "message": ID, "rating": "love"}, "rating"),
        (commands.RegisterProvider, {**REGISTER, "name": "builtin"}, "name"),
        (commands.RegisterProvider, {**REGISTER, "name": "Lab 1"}, "name"),
        (commands.RegisterProvider, {**REGISTER, "name": "a.b"}, "name"),
        (commands.RegisterProvider, {**REGISTER, "base_url": "ftp://models.example.com"}, "base_url"),
        (commands.RegisterProvider, {**REGISTER, "base_url": "https://ada:secret@example.com"}, "base_url"),
        (commands.RegisterProvider, {**REGISTER, "key": "x" * 10_001}, "key"),
    ],
)
def test_a_rejection_names_the_field(command: type[Command], fields: dict[str, Any], field: str) -> None:
    assert invalid(command, fields) == field


def test_a_rejection_does_not_repeat_the_key() -> None:
    for fields in ({"key": "sk-secret" * 2000}, {"key": ["sk-secret"]}, {"key": "sk-secret\0"}, {"base_url": 1}):
        rejection = refused(commands.RegisterProvider, {**REGISTER, "key": "sk-secret", **fields})
        assert "sk-secret" not in rejection.message


def test_nesting_is_allowed_where_it_can_be_stored() -> None:
    inner: Any = NESTED
    for _ in range(4):
        [inner] = inner
    parsed = parse(commands.ConfigureApp, orjson.dumps({"app": ID, "model": {"parameters": {"x": inner}}}))
    assert orjson.dumps(parsed.model_dump())


@pytest.mark.parametrize("text", ["שלום עולם", "水门几点开？", "مرحبا", "🚢" * 100, "a\u202eb", "\u0001"])
def test_texts_are_in_every_script(text: str) -> None:
    assert parse(commands.CreateApp, orjson.dumps({"name": text})).model_dump()["name"] == text


def test_references_are_found_wherever_they_are() -> None:
    configure = commands.ConfigureApp(app=ID, model=commands.Model(provider="lab", name="small"), datasets=[ID, OTHER])
    assert references(configure) == [
        ("app", App, ID),
        ("model.provider", Provider, "lab"),
        ("datasets.0", Dataset, ID),
        ("datasets.1", Dataset, OTHER),
    ]
    assert references(commands.SendMessage(app=ID, query="?")) == [("app", App, ID)]
    assert references(commands.SendMessage(app=ID, query="?", conversation=OTHER)) == [
        ("app", App, ID),
        ("conversation", Conversation, OTHER),
    ]
    assert references(commands.RetryDocument(document=ID)) == [("document", Document, ID)]
    assert references(commands.RemoveProvider(provider="lab")) == [("provider", Provider, "lab")]


def test_the_builtin_provider_is_no_reference() -> None:
    assert references(commands.ConfigureApp(app=ID)) == [("app", App, ID)]
