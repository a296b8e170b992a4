"""Structured answers: the check of an answer by a JSON Schema, and the request for another one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from handlers.models.arguments import bare
from handlers.models.prompt import Record, literal
from handlers.ports.models import ChatMessage, ChatRequest

STEP = "chat:again"
"""Step of the call that asks for the answer again."""

LONGEST = 256 * 1024
"""Maximum length of an answer that is checked, in characters."""

LONGEST_FAULT = 500
"""Maximum length of the fault of an answer, in characters."""


def fault(schema: dict[str, Any], answer: str) -> str | None:
    """The first fault of an answer by a schema that may be set; None for a valid one. It runs patterns of strangers."""
    if len(answer) > LONGEST:
        return f"It has {len(answer):,} characters, at most {LONGEST:,} are allowed"
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing import Registry

    try:
        value = json.loads(bare(answer), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return f"It is not JSON: {error}"[:LONGEST_FAULT]
    validator = Draft202012Validator(schema, registry=Registry())
    if (worst := best_match(validator.iter_errors(value))) is None:
        return None
    return f"{'.'.join(map(str, worst.absolute_path)) or 'It'}: {worst.message}"[:LONGEST_FAULT]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def ask_again(request: ChatRequest, record: Record, answer: str, fault: str) -> tuple[ChatRequest, Record]:
    """The request for another answer, and its record: the invalid answer is repeated with its fault."""
    correction = (
        f"Your answer does not keep to the JSON Schema: {fault}. Answer again, with one JSON object that does and "
        f"nothing else. The schema: {json.dumps(request.schema, ensure_ascii=False)}"
    )
    further = [ChatMessage("assistant", answer or "{}"), ChatMessage("user", correction)]
    messages = [*record.messages, *(literal(message, {}) for message in further)]
    return replace(request, messages=[*request.messages, *further]), Record(messages, record.passages)
