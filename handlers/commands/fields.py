"""The parts that commands are made of, and their parsing.

The JSON Schemas and the AsyncAPI document are generated from the commands' classes. A field with a `Ref` must name an
aggregate that exists and is not deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from domain.aggregate import Aggregate, Rejection
from domain.builtin import BUILTIN
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.models.provider import Provider
from domain.work.dead_letter import DeadLetter

C = TypeVar("C", bound="Command")
T = TypeVar("T")

MAX_PAYLOAD = 1024 * 1024
"""Maximum bytes of a command; a larger file goes into the object store and is named by its digest."""

MAX_TEXT = 256 * 1024
"""Maximum bytes of a document's inline text."""

MAX_DEPTH = 32
"""Maximum levels of arrays and objects in a payload."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Marks a field that names an aggregate of this kind."""

    kind: type[Aggregate]


def is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False


def _uuid(value: str) -> str:
    if not is_uuid(value):
        raise ValueError("Must be a UUID in lower case with hyphens")
    return value


def not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("Must not be blank")
    return value


def instant(text: str) -> datetime:
    """The time of an `Instant`."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _instant(text: str) -> str:
    try:
        aware = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise ValueError("Must be a time like 2027-01-31T12:00:00Z, with a time zone")
    return text


Instant = Annotated[str, AfterValidator(_instant), Field(max_length=40, json_schema_extra={"format": "date-time"})]


def at_most(kib: int) -> AfterValidator:
    """Limits a text in UTF-8, or a value as JSON."""

    def check(value: T) -> T:
        if len(value.encode() if isinstance(value, str) else orjson.dumps(value)) > kib * 1024:
            raise ValueError(f"Must not exceed {kib} KiB")
        return value

    return AfterValidator(check)


Id = Annotated[str, AfterValidator(_uuid), Field(json_schema_extra={"format": "uuid"})]


AppId = Annotated[Id, Ref(App), Field(description="App")]
AnnotationId = Annotated[Id, Ref(Annotation), Field(description="Annotation")]
DatasetId = Annotated[Id, Ref(Dataset), Field(description="Knowledge base")]
DocumentId = Annotated[Id, Ref(Document), Field(description="Document")]
SegmentId = Annotated[Id, Field(description="Segment")]
ConversationId = Annotated[Id, Ref(Conversation), Field(description="Conversation")]
MessageId = Annotated[Id, Field(description="Message")]
DeadLetterId = Annotated[Id, Ref(DeadLetter), Field(description="Dead letter")]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

BlobKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""The key of a blob that its sender has encrypted, in base64."""

Handle = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A name that is also the id."""

ProviderName = Annotated[Handle, Ref(Provider), Field(description="`builtin`, or the name of a registered provider")]

Name = Annotated[str, Field(max_length=255, description="Name, for people"), AfterValidator(not_blank)]

Description = Annotated[str, Field(max_length=2000, description="Description, for people")]

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]

FieldName = Annotated[
    str, Field(min_length=1, max_length=64, description="Name of the field"), AfterValidator(not_blank)
]

Scalar = str | int | float | bool | None


class Part(BaseModel):
    """Strict: no unknown field, no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Command(Part):
    """A request to change something."""


Parameters = Annotated[dict[str, JsonValue], at_most(kib=16)]
"""Of a chat model: temperature, top_p, stop, …"""


def one_builtin(provider: str, name: str) -> None:
    if provider == BUILTIN and name != "extractive":
        raise ValueError("Provider 'builtin' has one model, 'extractive'")


def parse(command: type[C], payload: bytes) -> C:
    """The command in a payload. Raises: Rejection `too_large`, `broken_json` or `invalid`, with the field at fault."""
    if len(payload) > MAX_PAYLOAD:
        raise Rejection(
            "too_large",
            f"The payload has {len(payload):,} bytes, at most {MAX_PAYLOAD:,} are allowed: put a large file into the "
            "object store and give its digest.",
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
        raise Rejection("invalid", f"{problem}.", path) from None


_UNION_BRANCHES = {"str", "int", "float", "bool", "none"}


def _named_field(command: type[Command], message: str) -> str | None:
    """The first field named in the sentence of a rule about several fields."""
    words = re.findall(r"\w+", message)
    return next((word for word in words if word in command.model_fields), None)


def _json_type(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _storable(fields: dict[str, Any]) -> None:
    """Reject NUL characters, which PostgreSQL cannot store, and nesting too deep for JSON writers."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), fields)]
    while stack:
        parts, value = stack.pop()
        if len(parts) >= MAX_DEPTH:
            raise Rejection("invalid", f"Must not be nested deeper than {MAX_DEPTH} levels.", parts[0])
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if "\0" in str(name) or (isinstance(inner, str) and "\0" in inner):
                path = ".".join((*parts, str(name))).replace("\0", "�")
                raise Rejection("invalid", "Must not contain NUL characters.", path)
            if isinstance(inner, dict | list):
                stack.append(((*parts, str(name)), inner))


def references(part: type[Part], path: str = "") -> Iterator[tuple[str, type[Aggregate]]]:
    """The fields that name an aggregate, as `app`, `model.provider` or `datasets[]`, and its kind."""
    for name, hint in get_type_hints(part, include_extras=True).items():
        yield from _marked(hint, f"{path}{name}")


def _marked(hint: Any, path: str) -> Iterator[tuple[str, type[Aggregate]]]:
    if isinstance(hint, Ref):
        yield path, hint.kind
    elif isinstance(hint, type) and issubclass(hint, Part):
        yield from references(hint, f"{path}.")
    else:
        for argument in get_args(hint):
            yield from _marked(argument, f"{path}[]" if get_origin(hint) is list else path)


def named(part: Part, path: str, kind: type[Aggregate]) -> list[tuple[str, str]]:
    """The place (`datasets.0`) and the id of each aggregate that a command names in a field of `references`."""
    found = _values(part, path.split("."), "")
    return [(place, id) for place, id in found if (kind, id) != (Provider, BUILTIN)]


def _values(value: Any, path: Sequence[str], place: str) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    if not path:
        yield place.removeprefix("."), cast("str", value)
        return
    name = path[0].removesuffix("[]")
    inner = getattr(value, name)
    if path[0] == name:
        yield from _values(inner, path[1:], f"{place}.{name}")
    else:
        for index, item in enumerate(inner):
            yield from _values(item, path[1:], f"{place}.{name}.{index}")
