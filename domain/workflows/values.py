"""Values of a run: their types, what a selector reaches, and what is missing.

A value that is not there is None here; a null is a `Value` of the type `none`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

STRING: Final = "string"
NUMBER: Final = "number"
BOOLEAN: Final = "boolean"
OBJECT: Final = "object"
SECRET: Final = "secret"
FILE: Final = "file"
NONE: Final = "none"
ANY: Final = "any"

ATTRIBUTES: Final = {
    "type": "type",
    "size": "size",
    "name": "filename",
    "mime_type": "mime_type",
    "transfer_method": "transfer_method",
    "url": "url",
    "extension": "extension",
    "related_id": "related_id",
}
"""Attributes of files that selectors reach, and their fields."""

FILE_MARK: Final = "$file"
INTEGER_MARK: Final = "$integer"
OBJECT_MARK: Final = "$object"
MARKS: Final = frozenset({FILE_MARK, INTEGER_MARK, OBJECT_MARK})
"""Keys that mark files, integers of more than 64 bits, and objects with such keys of their own, in recorded values."""


class WrongType(ValueError):
    """A value that does not have the type that was declared for it."""


@dataclass(frozen=True)
class File:
    """A file of a run: what is known of it, and where its bytes are."""

    type: str = "document"
    transfer_method: str = "local_file"
    filename: str | None = None
    extension: str | None = None
    mime_type: str | None = None
    size: int = -1
    remote_url: str | None = None
    related_id: str | None = None
    """The name of its bytes here; None for a file elsewhere."""
    url: str | None = None
    """Where it can be fetched."""


@dataclass(frozen=True, slots=True)
class Value:
    type: str
    data: Any

    @property
    def is_array(self) -> bool:
        return self.type.startswith("array[")


NULL: Final = Value(NONE, None)


def array(of: str) -> str:
    return f"array[{of}]"


def infer(data: object) -> Value:
    """The value of plain data, with the type that it shows."""
    if isinstance(data, Value):
        return data
    if isinstance(data, list | tuple):
        kinds = {_kind(each) for each in data}
        [kind] = kinds if len(kinds) == 1 else [ANY]
        return Value(array(ANY if kind.startswith("array") or kind == NONE else kind), list(data))
    return Value(_kind(data), data)


def _kind(data: object) -> str:
    if data is None:
        return NONE
    if isinstance(data, str):
        return STRING
    if isinstance(data, bool):
        return BOOLEAN
    if isinstance(data, int | float):
        return NUMBER
    if isinstance(data, File):
        return FILE
    if isinstance(data, Mapping):
        return OBJECT
    if isinstance(data, list | tuple):
        return array(ANY)
    raise WrongType(f"{type(data).__name__} is no value of a workflow")


def declared(type: str, data: object) -> Value:
    """A value of a declared type. Raises: WrongType."""
    if type == SECRET and isinstance(data, str):
        return Value(SECRET, data)
    found = infer(data)
    if type in (found.type, ANY) or (type.startswith("array[") and fits(type, found)):
        return Value(type if type != ANY else found.type, found.data)
    if type == array(FILE) and data is None:
        return Value(type, [])
    raise WrongType(f"The value is {found.type}, not {type}.")


def fits(type: str, value: Value) -> bool:
    """Test for a value that may stand where this type is declared."""
    if value.type == type or (type == STRING and value.type == SECRET):
        return True
    if not type.startswith("array[") or not value.is_array:
        return False
    return type == array(ANY) or not value.data


def within(value: Value, path: Sequence[str]) -> Value | None:
    """The value that a selector reaches inside of a value; None where it is missing."""
    for name in path:
        if value.type == OBJECT:
            if name not in value.data:
                return None
            value = infer(value.data[name])
        elif value.type == FILE and name in ATTRIBUTES:
            value = infer(getattr(value.data, ATTRIBUTES[name]))
        else:
            return None
    return value


def as_objects(data: object) -> Any:
    """Data with its files as objects, as code and templates get them."""
    if isinstance(data, File):
        return {**_fields(data), "name": data.filename}
    if isinstance(data, list | tuple):
        return [as_objects(each) for each in data]
    if isinstance(data, Mapping):
        return {str(key): as_objects(each) for key, each in data.items()}
    return data


def to_json(value: Value) -> dict[str, Any]:
    """A value as it is recorded."""
    return {"type": value.type, "data": _encoded(value.data)}


def from_json(spec: Mapping[str, Any]) -> Value:
    """A recorded value."""
    return Value(spec["type"], _decoded(spec["data"]))


def _encoded(data: object) -> Any:
    if isinstance(data, File):
        return {FILE_MARK: _fields(data)}
    if isinstance(data, list | tuple):
        return [_encoded(each) for each in data]
    if isinstance(data, Mapping):
        spec = {str(key): _encoded(each) for key, each in data.items()}
        return {OBJECT_MARK: spec} if spec.keys() & MARKS else spec
    if isinstance(data, int) and not -(2**63) <= data < 2**63:
        return {INTEGER_MARK: str(data)}
    return data


def _decoded(data: object) -> Any:
    if isinstance(data, list):
        return [_decoded(each) for each in data]
    if not isinstance(data, Mapping):
        return data
    if FILE_MARK in data:
        return File(**data[FILE_MARK])
    if INTEGER_MARK in data:
        return int(data[INTEGER_MARK])
    spec = data.get(OBJECT_MARK, data)
    return {key: _decoded(each) for key, each in spec.items()}


def _fields(file: File) -> dict[str, Any]:
    return {each.name: getattr(file, each.name) for each in fields(file)}


def to_number(text: str) -> int | float:
    """The number that a text writes. Raises: ValueError."""
    text = text.strip()
    if len(text) > 4_000:
        raise ValueError("The number is too long.")
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("It is no finite number.") from None
        return number
