"""Chunks of a streamed answer, in the dialects of servers that speak the OpenAI protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from adapters.models.token_usage import usage_in
from adapters.models.tool_calls import CallPiece
from handlers.ports.models import ChatUsage

LONGEST_NAME = 255
"""Maximum length of a name from a server, in characters."""

REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thought", "reasoning_details")
"""Fields with the reasoning of a model; the first that holds any counts, since servers repeat it under two names."""

ERRORS = ("message", "detail", "error_message", "error_msg", "status_msg")
"""Fields with a server's error in an object that is no part of an answer."""

UNNAMED = frozenset({"", "error", "message"})
"""Names of events that hold an answer or an error; others, such as `ping`, may hold anything."""

BROKEN_OFF = frozenset(
    [
        "error",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "failed",
        "model_error",
        "network_error",
        "insufficient_system_resource",
    ]
)
"""Reasons for the end of an answer that is not whole."""


class Chunk(NamedTuple):
    """A part of an answer. `id` and `model` are the server's own names of the answer and of the model.

    `done`: it is the last; only tokens may follow.
    """

    text: str = ""
    reasoning: str = ""
    finish: str | None = None
    usage: ChatUsage | None = None
    id: str | None = None
    model: str | None = None
    calls: Sequence[CallPiece] = ()
    logprobs: Sequence[dict[str, Any]] = ()
    done: bool = False

    @classmethod
    def of(cls, data: object) -> Chunk:
        """Raises: ValueError for another structure."""
        try:
            return cls._read(data)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError("a chunk has an unknown shape.") from None

    @classmethod
    def _read(cls, data: Any) -> Chunk:
        said = usage_in(data), name_of(data.get("id")), name_of(data.get("model"))
        if not data.get("choices"):
            return cls("", "", None, *said)
        choice = data["choices"][0]
        delta = delta_of(choice)
        text, reasoning = _parts(delta.get("content") or delta.get("refusal"))
        own = next((found for name in REASONING if (found := _words(delta.get(name)))), "")
        return cls(
            storable(text),
            storable(own or reasoning),
            _finish(choice.get("finish_reason")),
            *said,
            _calls(delta),
            logprobs_in(choice.get("logprobs")),
        )


def delta_of(choice: Any) -> Any:
    """The part of a message in a choice, which may be streamed, whole, or of a completion."""
    shapes = choice.get("delta"), choice.get("message"), {"content": choice.get("text")}
    return next(shape for shape in shapes if shape is not None)


def _calls(delta: Any) -> list[CallPiece]:
    calls = delta.get("tool_calls") or []
    if old := delta.get("function_call"):
        calls = [{"index": 0, "function": old}]
    return [_call(call) for call in ([calls] if isinstance(calls, dict) else calls)]


def _call(call: Any) -> CallPiece:
    function = call.get("function") or {}
    index, arguments = call.get("index"), function.get("arguments")
    return CallPiece(
        index if isinstance(index, int) else None,
        name_of(call.get("id")) or "",
        name_of(function.get("name")) or "",
        storable(arguments) if isinstance(arguments, str) else arguments,
        {name: value for name, value in call.items() if name == "extra_content"},
    )


def logprobs_in(found: object) -> list[dict[str, Any]]:
    """Log probabilities of tokens in the form of OpenAI, without their bytes; malformed ones are left out."""
    tokens = found.get("content") if isinstance(found, dict) else found
    return [token for each in (tokens if isinstance(tokens, list) else []) if (token := _token(each))]


def _token(each: object) -> dict[str, Any] | None:
    if not isinstance(each, dict) or not isinstance(each.get("token"), str):
        return None
    logprob = each.get("logprob")
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    others = [token for other in each.get("top_logprobs") or [] if (token := _token(other))]
    return {"token": storable(each["token"]), "logprob": logprob, **({"top_logprobs": others} if others else {})}


def error_in(data: object, name: str = "") -> Any:
    """The error that an event holds, None for a part of an answer; `name` is the event's."""
    if not isinstance(data, dict):
        return data if name == "error" else None
    if error := data.get("error"):
        return error
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict) and first.get("error"):
        return first["error"]
    if name == "error" or "error" in (data.get("object"), data.get("type")):
        return data
    if first is None and name in UNNAMED and any(isinstance(data.get(field), str) and data[field] for field in ERRORS):
        return data
    failed = data.get("base_resp")  # MiniMax
    return failed if first is None and isinstance(failed, dict) and failed.get("status_code") else None


def _finish(reason: object) -> str | None:
    found = name_of(str(reason or ""))
    return None if found in ("null", "None") else found


def _parts(content: object) -> tuple[str, str]:
    """The text and the reasoning of a content, which may be a list of parts. Raises: TypeError."""
    if content is None or isinstance(content, str):
        return content or "", ""
    text = reasoning = ""
    for part in [content] if isinstance(content, dict) else content:  # type: ignore[attr-defined]
        if not isinstance(part, dict):
            if not isinstance(part, str):
                raise TypeError
            text += part
        elif (kind := str(part.get("type") or "text")).startswith(("thinking", "reasoning", "thought")):
            reasoning += _words(part)
        elif kind in ("text", "output_text", "text_delta", "refusal"):
            text += _words(part)
    return text, reasoning


def _words(value: object) -> str:
    """The words in a text, in a part of a content, or in a list of them."""
    if isinstance(value, list):
        return "".join(map(_words, value))
    if isinstance(value, dict):
        names = ("text", "thinking", "reasoning", "summary", "refusal", "value", "content")
        return next((found for name in names if (found := _words(value.get(name)))), "")
    return value if isinstance(value, str) else ""


def name_of(value: object) -> str | None:
    """A name from a server in storable form; None for anything else."""
    return storable(value[:LONGEST_NAME]) if value and isinstance(value, str) else None


def storable_json(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """JSON from a server as it can be recorded; None where it cannot."""
    try:
        found: dict[str, Any] | None = orjson.loads(storable(json.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None
    return found


def storable(text: str) -> str:
    """Replace lone surrogates, which JSON can hold, by question marks."""
    return text if text.isascii() else text.encode(errors="replace").decode()
