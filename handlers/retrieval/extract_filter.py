"""Extraction of conditions on documents' metadata from a question, by a chat model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from pydantic import Field, ValidationError

from domain.builtin import BUILTIN
from domain.chat.app import MetadataFilter, ModelSettings
from handlers.cause import Cause
from handlers.commands.fields import Part
from handlers.commands.retrieval import ConditionFields
from handlers.models.choose import Choose
from handlers.models.model_calls import ModelCalls
from handlers.models.prompt import Record, literal
from handlers.ports.models import ChatMessage, ChatModel, ChatRequest, ModelError

PATIENCE_S = 20.0
"""Time limit of the extraction, in seconds: the question can be answered without conditions."""

LONGEST_ANSWER = 16 * 1024
"""Maximum length of the model's answer, in characters; a longer one is invalid."""

Type = Literal["string", "number", "time"]
"""Type of the values of a metadata field."""

OPERATORS: dict[Type, tuple[str, ...]] = {
    "string": (
        *("contains", "not contains", "start with", "end with"),
        *("is", "is not", "in", "not in", "empty", "not empty"),
    ),
    "number": ("=", "≠", ">", "<", "≥", "≤", "empty", "not empty"),
    "time": ("before", "after", "empty", "not empty"),
}
"""Comparison operators by type of the field."""

INSTRUCTIONS = """\
Documents have the metadata fields below. Say which documents a question is about, as conditions on these fields. Use \
only what the question itself says about them; take no condition from what you know or guess. Most questions have none.

Fields, each with the operators that compare it:
{fields}

The operators in and not in take a list of texts, empty and not empty take null. \
A time is written like 2026-05-31 or 2026-05-31T12:00:00+00:00.

Answer with one JSON object and nothing else:
{{"logical_operator": "and" or "or", "conditions": [{{"name": …, "comparison_operator": …, "value": …}}, …]}}
"""


@dataclass(frozen=True, slots=True)
class Extracted:
    """The conditions in a question; None for none, or on a failure, with `code` and `reason`."""

    filter: MetadataFilter | None
    code: str | None = None
    reason: str | None = None


class ExtractFilter:
    def __init__(self, calls: ModelCalls, choose: Choose[ChatModel], *, patience_s: float = PATIENCE_S) -> None:
        self._calls = calls
        self._choose = choose
        self._patience = patience_s

    async def __call__(self, cause: Cause, model: ModelSettings, fields: Mapping[str, Type], query: str) -> Extracted:
        """Ask the model, by a recorded call. Raises: Unavailable, when the call could not be recorded."""
        if not fields:
            return Extracted(None)
        if model["provider"] == BUILTIN:
            return Extracted(None, "not_found", "The built-in model makes no filters; the app needs a chat model.")
        try:
            async with asyncio.timeout(self._patience):
                return Extracted(_read(await self._ask(cause, model, fields, query), fields))
        except ModelError as error:
            return Extracted(None, error.code, error.reason)
        except TimeoutError:
            return Extracted(None, "timeout", f"The model did not name its conditions within {self._patience:g} s.")
        except ValueError as error:
            reason = f"The model did not answer with a filter: {error}."
            return Extracted(None, code="invalid_filter", reason=reason[:1000])

    async def _ask(self, cause: Cause, model: ModelSettings, fields: Mapping[str, Type], query: str) -> str:
        """The answer of the model. Raises: ModelError; ValueError when it is incomplete."""
        messages = [ChatMessage("system", _instructions(fields)), ChatMessage("user", query)]
        request = ChatRequest(
            model["name"],
            messages,
            model["max_tokens"],
            model["parameters"],
            context_window=model["context_window"],
        )
        origins = [{}, {"from": "query", "message_id": cause.id}]
        record = Record([literal(*pair) for pair in zip(messages, origins, strict=True)], {})
        course = self._choose(cause.metadata.tenant, model, request)
        chat = self._calls.chat(cause, course, request, record, step="filter")
        said = await chat.up_to(LONGEST_ANSWER)
        if len(said) > LONGEST_ANSWER:
            raise ValueError(f"it said more than {LONGEST_ANSWER:,} characters")
        return said


def _instructions(fields: Mapping[str, Type]) -> str:
    lines = [
        f"- {json.dumps(name, ensure_ascii=False)} ({kind}): {', '.join(OPERATORS[kind])}"
        for name, kind in fields.items()
    ]
    return INSTRUCTIONS.format(fields="\n".join(lines))


class _Conditions(Part):
    logical_operator: Literal["and", "or"]
    conditions: Annotated[list[ConditionFields], Field(max_length=32)]


def _read(answer: str, fields: Mapping[str, Type]) -> MetadataFilter | None:
    """The filter in an answer, which may follow reasoning and be fenced as code. Raises: ValueError without one."""
    said = answer.rpartition("</think>")[2].strip()
    bare = said[3:-3].removeprefix("json") if said.startswith("```") and said.endswith("```") else said
    try:
        found = _Conditions.model_validate_json(bare)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'its answer'}: {first['msg']}") from None
    for condition in found.conditions:
        kind = fields.get(condition.name)
        if kind is None:
            raise ValueError(f"there is no metadata field {condition.name!r}")
        if condition.comparison_operator not in OPERATORS[kind]:
            raise ValueError(f"{condition.name} is a {kind}, which {condition.comparison_operator!r} does not compare")
    if not found.conditions:
        return None
    return cast("MetadataFilter", {"mode": "automatic", **found.model_dump()})
