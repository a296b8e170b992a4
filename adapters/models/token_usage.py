"""Token usage of a call, in the dialects of servers that speak the OpenAI protocol."""

from __future__ import annotations

from typing import Any

import orjson

from handlers.ports.models import ChatUsage

MOST = 10**12
"""Maximum plausible count; larger ones are ignored."""

LARGEST = 16 * 1024
"""Maximum size of a server's raw usage, in bytes of JSON; a larger one is dropped."""


def usage_of(counted: object) -> ChatUsage | None:
    """Usage as reported by OpenAI, DeepSeek, OpenRouter or Anthropic; None without counts. Never raises."""
    if not isinstance(counted, dict):
        return None
    prompt, completion = _details(counted, "prompt"), _details(counted, "completion")
    cached = _count(
        prompt.get("cached_tokens"), counted.get("prompt_cache_hit_tokens"), counted.get("cache_read_input_tokens")
    )
    written = _count(prompt.get("cache_write_tokens"), counted.get("cache_creation_input_tokens"))
    sent, answered = _count(counted.get("prompt_tokens")), _count(counted.get("completion_tokens"))
    # Anthropic counts the cache separately.
    if sent is None and (sent := _count(counted.get("input_tokens"))) is not None:
        sent += (_count(counted.get("cache_read_input_tokens")) or 0) + (written or 0)
    if answered is None:
        answered = _count(counted.get("output_tokens"))
    if sent is None or answered is None:
        return None
    return ChatUsage(
        prompt_tokens=sent,
        completion_tokens=answered,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=_count(completion.get("reasoning_tokens"), counted.get("reasoning_tokens")),
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


def _details(counted: dict[str, Any], of: str) -> dict[str, Any]:
    return _object(counted.get(f"{of}_tokens_details"))


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
