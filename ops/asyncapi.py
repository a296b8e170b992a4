"""The contract of the bus: the AsyncAPI 3 document and the JSON Schemas, generated from the classes in use."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from faststream import FastStream
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, Field, create_model

from domain.access.actor import ACTOR, ANON
from domain.aggregate import Event
from domain.nouns import NOUNS
from handlers.knowledge.preview import PreviewSegments
from handlers.routes import ROUTES

_ENVELOPE = {"originator_id", "originator_version"}


class OutcomeMessage(BaseModel):
    """The outcome of a command."""

    command: str = Field(description="Id of the command")
    name: str = Field(description="Name of the command, <noun>.<verb>")
    status: Literal["accepted", "rejected"]
    at: datetime = Field(description="Time at which the log took the command")
    stream: str | None = Field(description="Stream of the commit, when accepted")
    sequence: int | None = Field(description="Sequence of the commit in the stream, when accepted")
    version: int | None = Field(description="Version of the aggregate after it, when accepted")
    ids: dict[str, str] = Field(
        description="Ids of the aggregates that the command made or changed, by noun; rejected: of its target"
    )
    code: str | None = Field(description="Code of the broken rule")
    message: str | None = Field(description="The rule, for people, without the field")
    field: str | None = Field(description="Path of the field at fault")
    excerpt: str | None = Field(description="Beginning of a rejected payload; null where it may be private")
    details: dict[str, str | int] | None = Field(
        None, description="Figures of the rule, by code; left out where there are none"
    )
    correlation: str = Field(description="Id of the first command of the chain")
    actor: str = Field(description="Who sent the command, by its subject")
    door: Literal["bus", "operator", "viewer"] | None = Field(None, description="Door that the command came through")


class LiveFrame(BaseModel):
    """A step of a growing answer: lost without a subscriber."""

    type: Literal[
        "restarted",
        "retrieved",
        "thought",
        "tool",
        "question",
        "observation",
        "held",
        "token",
        "replaced",
        "answered",
        "failed",
        "stopped",
        "suggested",
        "audio",
        "spoken",
        "transcribed",
    ]
    hits: int | None = Field(None, description="retrieved: number of segments")
    index: int | None = Field(None, description="token, audio: its number from 0, a gap is a loss")
    text: str | None = Field(
        None,
        description="token: the text to append, of one or more tokens; transcribed, thought: the whole text; "
        "observation: the result of a call of a tool; question: what the server of a tool asks",
    )
    attempt: int | None = Field(None, description="restarted, token: when it grows, the answer restarts")
    round: int | None = Field(None, description="thought, tool, question, observation: round of the agent, from 1")
    fault: str | None = Field(None, description="thought: why it keeps to no form; left out where it does")
    name: str | None = Field(None, description="tool, question, observation: name of the tool")
    arguments: str | None = Field(None, description="tool: arguments, as the model wrote them")
    id: str | None = Field(None, description="tool: id of the call, as the model knows it")
    call: str | None = Field(None, description="question, observation: tool call")
    form: dict[str, Any] | None = Field(None, description="question: JSON Schema of the answer")
    status: str | None = Field(None, description="observation: state of the tool call")
    calls: list[str] | None = Field(None, description="held: tool calls that wait for a person")
    answer: str | None = Field(
        None, description="answered: the whole text; replaced: the text so far; stopped: the part shown"
    )
    citations: list[dict[str, Any]] | None = Field(None, description="answered: as in message.answered")
    usage: dict[str, Any] | None = Field(None, description="answered: tokens")
    finish_reason: str | None = Field(None, description="answered: reason for the end, as the model's server gives it")
    questions: list[str] | None = Field(None, description="suggested: questions that the user may ask next")
    audio: str | None = Field(None, description="audio: bytes to append, in base64")
    media_type: str | None = Field(None, description="audio, spoken: media type of the audio")
    digest: str | None = Field(None, description="spoken: blob with the whole audio, as in speech.completed")
    size: int | None = Field(None, description="spoken: size of the audio in bytes")
    code: str | None = Field(None, description="failed: error code; suggested: likewise, null on success")
    reason: str | None = Field(None, description="failed: error message")


class PreviewAnswer(BaseModel):
    """The segments of a text, as a preview."""

    status: Literal["ok", "rejected", "unavailable"]
    embedding_model: str | None = Field(None, description="ok: embedding model whose tokens count")
    segmentation: dict[str, Any] | None = Field(None, description="ok: segmentation rules")
    pages: int | None = Field(None, description="ok: pages of the file; null where the format has none")
    characters: int | None = Field(None, description="ok: characters of the text")
    previewed_characters: int | None = Field(None, description="ok: characters of the segmented beginning")
    total_segments: int | None = Field(None, description="ok: number of segments of that beginning")
    tokens: int | None = Field(None, description="ok: tokens of these segments, without parents")
    segments: list[dict[str, Any]] | None = Field(None, description="ok: requested segments, at most 4 MiB")
    code: str | None = Field(None, description="rejected: error code; unavailable: busy, if too many wait")
    message: str | None = Field(None, description="rejected, unavailable: error message")
    field: str | None = Field(None, description="rejected: path of the field at fault")


_OTHERS: dict[str, type[BaseModel]] = {
    "outcome": OutcomeMessage,
    "live": LiveFrame,
    "preview.answer": PreviewAnswer,
}


_PARAMETERS = {
    "actor": {
        "description": "Who sends the command: s_<name of the bus login>, or by a door or the operator a_<account>, "
        f"k_<key> or {ANON}; matches {ACTOR.pattern}"
    }
}


def events() -> dict[str, tuple[str, type[Event]]]:
    """The noun and the newest class of every event, by its stored name."""
    return {
        member.TOPIC: (noun, member)
        for noun, aggregate in NOUNS.items()
        for member in vars(aggregate).values()
        if inspect.isclass(member) and issubclass(member, Event) and "TOPIC" in vars(member)
    }


_BLOBS = (
    "JSON Pointers into the state, of texts of more than 16 KiB: in the place of each is a reference, an object with "
    "`blob` (the SHA-256 in hex of its UTF-8) and `bytes`"
)


class Reference(BaseModel):
    """A value of more than 16 KiB, which is in a blob."""

    blob: str = Field(description="SHA-256 of the blob in hex")
    bytes: int = Field(description="Size of the blob")


def event_model(event: type[Event]) -> type[BaseModel]:
    """The stored form of an event: `type`, `version` of its aggregate, and `state`."""
    hints = get_type_hints(event, include_extras=True)
    title = event.__qualname__.replace(".", "")
    state: dict[str, Any] = {
        field.name: (_described(hints[field.name]), ...)
        for field in fields(cast("Any", event))
        if field.name not in _ENVELOPE
    }
    whole: dict[str, Any] = {
        "type": (cast("Any", Literal)[event.TOPIC], ...),
        "version": (int, Field(ge=1, description="Version of the aggregate")),
        "state": (create_model(f"{title}State", **state), ...),
        "blobs": (list[str], Field([], description=_BLOBS)),
    }
    if event.PACKED:
        names = ", ".join(sorted(event.PACKED))
        description = f"What is empty in the state of {names}: in base64 a zlib stream of a JSON object"
        whole["packed"] = (str, Field("", description=description))
    if event.PERSONAL:
        names = ", ".join(sorted(event.PERSONAL))
        description = f"Of a person's event: what is empty in the state of {names}, under the person's key"
        whole["sealed"] = (str | Reference, Field("", description=description))
    return create_model(title, __doc__=inspect.getdoc(event), **whole)


def _described(hint: Any) -> Any:
    """A type with its descriptions as pydantic's, and its TypedDicts as models, which pydantic wants on Python 3.11."""
    if get_origin(hint) is Annotated:
        inner, description = get_args(hint)
        return Annotated[_described(inner), Field(description=description)]
    if get_origin(hint) is NotRequired:
        return _described(get_args(hint)[0])
    if is_typeddict(hint):
        members: dict[str, Any] = {
            name: (_described(inner), ... if name in hint.__required_keys__ else Field(default_factory=lambda: None))
            for name, inner in get_type_hints(hint, include_extras=True).items()
        }
        return create_model(hint.__name__, __doc__=inspect.getdoc(hint), **members)
    if get_origin(hint) is list:
        return list[_described(get_args(hint)[0])]  # type: ignore[misc]
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_described, get_args(hint)))]  # noqa: UP007  # there is no other way to make one
    return hint


def document(version: str) -> dict[str, Any]:
    """The AsyncAPI 3 document of this version of Headrace: FastStream's, in a stable order."""
    broker = NatsBroker()
    addresses: dict[str, str | None] = {
        "outcome": "out.{tenant}.{command}",
        "live": "live.{tenant}.{conversation}.{message}",
        "preview": "preview.{tenant}",
        "preview.answer": None,
    }
    for name, route in ROUTES.items():
        addresses[name] = f"cmd.{{tenant}}.{{actor}}.{name}"
        subscriber = broker.subscriber(name, title=name, description=inspect.getdoc(route.command))
        subscriber(_taking(name, route.command))
    asking = broker.subscriber("preview", title="preview", description=inspect.getdoc(PreviewSegments))
    asking(_taking("preview", PreviewSegments))
    for name, (noun, event) in events().items():
        addresses[name] = f"evt.{{tenant}}.{noun}.{{id}}"
        broker.publisher(name, title=name, description=inspect.getdoc(event), schema=event_model(event))
    for name, frame in _OTHERS.items():
        broker.publisher(name, title=name, description=inspect.getdoc(frame), schema=frame)
    specification = AsyncAPI(
        title="Headrace",
        version=version,
        description="Commands in, outcomes, events and live tokens out; previews on request."
        " An event's message is an array of such events.",
    )
    written = json.loads(FastStream(broker, specification=specification).schema.to_specification().to_json())
    for name, channel in written["channels"].items():
        channel["address"] = addresses[name]
        if address := addresses[name]:
            channel["bindings"]["nats"]["subject"] = address
            channel["parameters"] = {part: _PARAMETERS.get(part, {}) for part in re.findall(r"{(\w+)}", address)}
        else:
            del channel["bindings"]
    for name, message in written["components"]["messages"].items():
        if not name.startswith("preview"):
            message["correlationId"] = {"location": "$message.header#/Headrace-Correlation"}
    del written["servers"], written["operations"]["preview.answer"]
    written["operations"]["preview"]["reply"] = {
        "address": {"location": "$message.header#/replyTo"},
        "channel": {"$ref": "#/channels/preview.answer"},
    }
    for channel in written["channels"].values():
        channel.pop("servers", None)
    return cast("dict[str, Any]", json.loads(json.dumps(written, sort_keys=True)))


def _taking(name: str, payload: type[BaseModel]) -> Callable[..., Any]:
    async def take(command: Any) -> None: ...

    take.__name__ = name.replace(".", "_")
    take.__annotations__ = {"command": payload, "return": None}
    return take


def write_schemas(folder: Path) -> list[Path]:
    """Write a JSON Schema for every command and event; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    models: dict[str, type[BaseModel]] = {name: route.command for name, route in ROUTES.items()}
    models |= {name: event_model(event) for name, (_, event) in events().items()}
    models |= _OTHERS | {"preview": PreviewSegments}
    written = []
    for name, model in models.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(model.model_json_schema(), indent=2, ensure_ascii=False) + "\n", "utf-8")
        written.append(path)
    return written
