"""Token usage of a call, in the dialects of servers that speak the OpenAI protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from handlers.ports.models import ChatUsage

MOST = 10**12
"""Maximum plausible count; larger ones are ignored."""

LARGEST = 16 * 1024
"""Maximum size of a server's raw usage, in bytes of JSON; a larger one is dropped."""


def usage_in(chunk: Mapping[str, Any]) -> ChatUsage | None:
    """Usage in a chunk of an answer, wherever the server puts it; None without counts. Never raises."""
    choices = chunk.get("choices")
    choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
    places = (
        chunk.get("usage"),
        choice.get("usage"),  # Moonshot
        _object(choice.get("delta")).get("usage"),
        _object(chunk.get("x_groq")).get("usage"),
        chunk.get("usageMetadata"),
        chunk.get("usage_metadata"),
        _object(chunk.get("message")).get("usage"),
        chunk.get("timings"),
        chunk if "prompt_eval_count" in chunk else None,  # Ollama
    )
    return next((usage for place in places if (usage := usage_of(place))), None)


def usage_of(counted: object) -> ChatUsage | None:
    """Usage as reported by OpenAI, DeepSeek, xAI, OpenRouter, Anthropic, Gemini, Ollama or llama.cpp.

    None without counts. Tokens that only the total has are those of the cache, or of reasoning. Never raises.
    """
    if not isinstance(counted, dict):
        return None
    prompt, completion = _details(counted, "prompt", "input"), _details(counted, "completion", "output")
    cached = _count(
        prompt.get("cached_tokens"),
        counted.get("prompt_cache_hit_tokens"),
        counted.get("cache_read_input_tokens"),
        counted.get("cached_tokens"),
        counted.get("cachedContentTokenCount"),
        counted.get("cache_n"),
    )
    written = _count(prompt.get("cache_write_tokens"), counted.get("cache_creation_input_tokens"))
    reasoning = _count(
        completion.get("reasoning_tokens"), counted.get("reasoning_tokens"), counted.get("thoughtsTokenCount")
    )
    sent = _count(*map(counted.get, ("prompt_tokens", "promptTokenCount", "prompt_eval_count")))
    # Anthropic counts the cache separately, and so does llama.cpp.
    apart = (_count(counted.get("cache_read_input_tokens"), counted.get("cache_n")) or 0) + (written or 0)
    if sent is None and (sent := _count(counted.get("input_tokens"), counted.get("prompt_n"))) is not None:
        sent += apart
    answered = _count(
        *map(
            counted.get,
            ("completion_tokens", "output_tokens", "candidatesTokenCount", "eval_count", "predicted_n"),
        )
    )
    total = _count(counted.get("total_tokens"), counted.get("totalTokenCount"))
    if sent is None and answered is not None and total is not None and total > answered:
        sent = total - answered
    if sent is not None and answered is None and total is not None and total >= sent:
        answered = total - sent
    if sent is None or answered is None or not sent + answered:
        return None
    if total is not None and (more := total - sent - answered) > 0:
        if more == apart:
            sent += more
        else:
            answered += more
    elif total is None and reasoning and (reasoning > answered or "thoughtsTokenCount" in counted):
        answered += reasoning
    return ChatUsage(
        prompt_tokens=sent,
        completion_tokens=answered,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        raw=_raw(counted),
    )


def read_by(answer: dict[str, Any]) -> ChatUsage | None:
    """Number of tokens read, as reported by Jina, vLLM, Infinity or Cohere; None without a count. Never raises."""
    usage, meta = _object(answer.get("usage")), _object(answer.get("meta"))
    tokens = _count(
        usage.get("total_tokens"), usage.get("prompt_tokens"), _object(meta.get("tokens")).get("input_tokens")
    )
    return None if tokens is None else ChatUsage(tokens, 0, raw=_raw(usage or meta))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _details(counted: dict[str, Any], *of: str) -> dict[str, Any]:
    return next((found for name in of if (found := _object(counted.get(f"{name}_tokens_details")))), {})


def _count(*values: object) -> int | None:
    """The first value that is a number of tokens."""
    for value in values:
        try:
            number = int(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1
        except (ValueError, OverflowError):
            continue
        if 0 <= number <= MOST:
            return number
    return None


def _raw(counted: dict[str, Any]) -> dict[str, Any]:
    """The value as storable JSON; empty when it cannot be stored."""
    try:
        written = orjson.dumps(counted)
    except TypeError:
        return {}
    read: dict[str, Any] = orjson.loads(written) if len(written) <= LARGEST else {}
    return read
