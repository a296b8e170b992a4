"""How many tokens a call took, in the words of the servers that speak the OpenAI protocol, each in its own way."""

from __future__ import annotations

from typing import Any

import orjson

from handlers.ports.models import ChatUsage

MOST = 10**12
"""A count above this is none."""

LARGEST = 16 * 1024
"""Bytes of JSON that are kept of what a server says about usage; of more, nothing is."""


def usage_of(counted: object) -> ChatUsage | None:
    """What a server says about tokens, in the words of OpenAI, DeepSeek, OpenRouter or Anthropic; None when it does not
    say how many there were. Whatever it sends is no error."""
    if not isinstance(counted, dict):
        return None
    prompt, completion = _details(counted, "prompt"), _details(counted, "completion")
    cached = _count(
        prompt.get("cached_tokens"), counted.get("prompt_cache_hit_tokens"), counted.get("cache_read_input_tokens")
    )
    written = _count(prompt.get("cache_write_tokens"), counted.get("cache_creation_input_tokens"))
    sent, answered = _count(counted.get("prompt_tokens")), _count(counted.get("completion_tokens"))
    if sent is None and (sent := _count(counted.get("input_tokens"))) is not None:  # Anthropic counts the cache apart
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
    """What a reranker's answer says about the tokens that it read, in the words of Jina, vLLM, Infinity or Cohere; None
    when it does not say how many. Whatever it sends is no error."""
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
    """The first of the values that is a number of tokens."""
    for value in values:
        try:
            number = int(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1
        except (ValueError, OverflowError):
            continue
        if 0 <= number <= MOST:
            return number
    return None


def _raw(counted: dict[str, Any]) -> dict[str, Any]:
    """It as JSON that can be stored anywhere; nothing when it cannot be."""
    try:
        written = orjson.dumps(counted)
    except TypeError:
        return {}
    read: dict[str, Any] = orjson.loads(written) if len(written) <= LARGEST else {}
    return read
