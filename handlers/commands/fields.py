"""The commands, as they come over the wire: what each takes, and what makes it well-formed.

Their JSON Schemas and the AsyncAPI document are made from these classes; a field typed `Ref[…]` must name something
that exists and is not deleted.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, cast
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from domain.aggregate import Aggregate, Rejection
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.models.provider import BUILTIN, Provider
from domain.work.dead_letter import DeadLetter
from handlers.ports.log import Blobs
from handlers.ports.people import People, Vault
from handlers.repository import Repository

MAX_PAYLOAD = 1024 * 1024
"""Bytes of a command; a larger file is put into the object store and named by its digest."""


MAX_TEXT = 256 * 1024
"""Bytes of a document's inline text."""


MAX_DEPTH = 32
"""Levels of arrays and objects in a payload."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Marks a field that names an aggregate of this kind."""

    kind: type[Aggregate]


def _is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False


def _uuid(value: str) -> str:
    if not _is_uuid(value):
        raise ValueError("must be a UUID in lower case with hyphens")
    return value


def not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def at_most_64_kib(value: str) -> str:
    if len(value.encode()) > 64 * 1024:
        raise ValueError("must not exceed 64 KiB in UTF-8")
    return value


Id = Annotated[str, AfterValidator(_uuid), Field(json_schema_extra={"format": "uuid"})]


AppId = Annotated[Id, Ref(App)]


DatasetId = Annotated[Id, Ref(Dataset)]


DocumentId = Annotated[Id, Ref(Document)]


ConversationId = Annotated[Id, Ref(Conversation)]


DeadLetterId = Annotated[Id, Ref(DeadLetter)]


Handle = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A name that someone chose for something, and that is its id."""


ProviderName = Handle


Name = Annotated[str, Field(max_length=255), AfterValidator(not_blank)]


Description = Annotated[str, Field(max_length=2000)]


VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


FieldName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(not_blank)]
Scalar = str | int | float | bool | None


class Part(BaseModel):
    """Strict: no unknown field, no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Command(Part):
    """What someone wants done."""


def one_builtin(provider: str, name: str) -> None:
    if provider == BUILTIN and name != "extractive":
        raise ValueError("provider 'builtin' has one model, 'extractive'")


def at_most_16_kib(parameters: dict[str, JsonValue] | None) -> None:
    if len(orjson.dumps(parameters)) > 16 * 1024:
        raise ValueError("parameters must not exceed 16 KiB")


def parse(command: type[Command], payload: bytes) -> Command:
    """Raises: Rejection `too_large`, `broken_json` or `invalid`, naming the field and the rule."""
    if len(payload) > MAX_PAYLOAD:
        raise Rejection(
            "too_large",
            f"The payload has {len(payload):,} bytes, at most {MAX_PAYLOAD:,} are allowed;"
            " put a large file into the object store and give its digest.",
        )
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Rejection("broken_json", f"The payload is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise Rejection("broken_json", f"The payload must be a JSON object, not {_json_type(fields)}.")
    _storable(fields)
    try:
        return command.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        location = [str(part) for part in first["loc"] if part not in _UNION_BRANCHES]
        path = ".".join(location) or _named_field(command, first["msg"])
        problem = first["msg"].removeprefix("Value error, ")
        raise Rejection("invalid", f"{path or 'payload'}: {problem[0].lower()}{problem[1:]}.", path) from None


_UNION_BRANCHES = {"str", "int", "float", "bool", "none"}


def _named_field(command: type[Command], message: str) -> str | None:
    """The first field that the sentence of a rule over several fields names."""
    words = re.findall(r"\w+", message)
    return next((word for word in words if word in command.model_fields), None)


def _json_type(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _storable(fields: dict[str, Any]) -> None:
    """Refuses NUL characters, which PostgreSQL cannot store, and nesting that JSON writers cannot follow."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), fields)]
    while stack:
        parts, value = stack.pop()
        if len(parts) >= MAX_DEPTH:
            raise Rejection("invalid", f"{parts[0]}: must not be nested deeper than {MAX_DEPTH} levels.", parts[0])
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if "\0" in str(name) or (isinstance(inner, str) and "\0" in inner):
                path = ".".join((*parts, str(name))).replace("\0", "�")
                raise Rejection("invalid", f"{path}: must not contain NUL characters.", path)
            if isinstance(inner, dict | list):
                stack.append(((*parts, str(name)), inner))


def references(part: Part, path: str = "") -> list[tuple[str, type[Aggregate], str]]:
    """Every aggregate that a command names: field path, kind, id."""
    found: list[tuple[str, type[Aggregate], str]] = []
    for name, info in type(part).model_fields.items():
        value, inner = getattr(part, name), f"{path}{name}"
        kinds = [mark.kind for mark in _marks(info.annotation, info.metadata)]
        values = value if isinstance(value, list) else [value]
        for index, item in enumerate(values):
            place = f"{inner}.{index}" if isinstance(value, list) else inner
            if isinstance(item, Part):
                found += references(item, f"{place}.")
            elif kinds and item is not None and (kinds[0], item) != (Provider, BUILTIN):
                found.append((place, kinds[0], cast("str", item)))
    return found


def _marks(annotation: Any, metadata: list[Any]) -> list[Ref]:
    """The `Ref` marks of a field, also those inside of `list[…]` and `… | None`."""
    found = [mark for mark in metadata if isinstance(mark, Ref)]
    found += [mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Ref)]
    for argument in getattr(annotation, "__args__", ()):
        found += _marks(argument, [])
    return found


Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a command may need before it is decided: the ports, and the aggregates that it names, by field."""

    tenant: str
    id: str
    repository: Repository
    blobs: Blobs
    vault: Vault
    named: dict[str, Aggregate]
    embedding_models: Collection[str]
    people: People | None = None
    rerank_model: str = ""


async def plain(command: Command, preparation: Preparation) -> Fields:
    return command.model_dump()


def not_found(noun: type[Aggregate], id: str, field: str) -> Rejection:
    return Rejection("not_found", f"{field}: there is no {noun.TOPIC} {id}.", field)
