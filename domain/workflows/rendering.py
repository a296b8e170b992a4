"""Templates of the form `{{#node.name#}}`: where references stand, and how values are written there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from domain.workflows import values
from domain.workflows.values import File, Value

REFERENCE: Final = re.compile(r"\{\{#([a-zA-Z0-9_]{1,50}(?:\.[a-zA-Z_][a-zA-Z0-9_]{0,29}){1,10})#\}\}")

Selector = tuple[str, ...]
Find = Callable[[Selector], Value | None]
"""The value that a selector reaches; None where it is missing."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Reference:
    selector: Selector

    @property
    def name(self) -> str:
        return ".".join(self.selector)


def parse(template: str) -> list[Text | Reference]:
    """The parts of a template, without empty ones."""
    parts: list[Text | Reference] = []
    for number, part in enumerate(REFERENCE.split(template)):
        if number % 2:
            parts.append(Reference(tuple(part.split("."))))
        elif part:
            parts.append(Text(part))
    return parts


def references(template: str) -> list[Selector]:
    """The selectors in a template."""
    return [part.selector for part in parse(template) if isinstance(part, Reference)]


def render(template: str, find: Find, write: Callable[[Value], str] | None = None) -> str:
    """A template with its values; a missing one leaves its bare name."""
    write = write or as_text
    written = []
    for part in parse(template):
        if isinstance(part, Text):
            written.append(part.text)
        else:
            value = find(part.selector)
            written.append(part.name if value is None else write(value))
    return "".join(written)


def as_text(value: Value) -> str:
    """A value within a text."""
    data = value.data
    if data is None or value.type in (values.FILE, values.array(values.FILE)) or (value.is_array and not data):
        return ""
    if value.type == values.array(values.STRING) or value.type == values.OBJECT:
        return as_json(data)
    return str(values.as_objects(data))


def as_markdown(value: Value) -> str:
    """A value within an answer."""
    data = value.data
    if data is None:
        return ""
    if value.type == values.FILE:
        return link(data)
    if value.type == values.array(values.FILE):
        return "\n".join(link(each) for each in data)
    if value.is_array:
        return "\n".join(f"- {values.as_objects(each)}" for each in data)
    return as_json(data, indent=2) if value.type == values.OBJECT else str(data)


def as_json(data: Any, indent: int | None = None) -> str:
    return json.dumps(values.as_objects(data), ensure_ascii=False, indent=indent)


def link(file: File) -> str:
    """A file in Markdown."""
    mark = "!" if file.type == "image" else ""
    return f"{mark}[{file.filename or ''}]({file.url or file.remote_url or ''})"
