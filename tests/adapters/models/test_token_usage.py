from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.models.token_usage import LARGEST, MOST, usage_in, usage_of
from handlers.ports.models import ChatUsage

OPENAI = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 256, "accepted_prediction_tokens": 0},
}
DEEPSEEK = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "prompt_cache_hit_tokens": 64,
    "prompt_cache_miss_tokens": 36,
    "completion_tokens_details": {"reasoning_tokens": 7},
}
ANTHROPIC = {
    "input_tokens": 50,
    "output_tokens": 9,
    "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 200,
}
GATEWAY = {
    "prompt_tokens": 1250,
    "completion_tokens": 9,
    "cache_creation_input_tokens": 200,
    "prompt_tokens_details": None,
}
LOCAL = {"prompt_tokens": 7, "completion_tokens": 2}
APART = {"completion_tokens_details": {"reasoning_tokens": 400}}
XAI = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 415}
GEMINI = {"promptTokenCount": 12, "candidatesTokenCount": 3, "thoughtsTokenCount": 400, "totalTokenCount": 415}
LLAMA = {"prompt_n": 10, "cache_n": 90, "predicted_n": 5, "predicted_ms": 80.5}
OLLAMA = {"prompt_eval_count": 26, "eval_count": 298}


@pytest.mark.parametrize(
    ("counted", "numbers"),
    [
        (OPENAI, (2006, 300, 1920, None, 256)),
        (DEEPSEEK, (100, 20, 64, None, 7)),
        (ANTHROPIC, (1250, 9, 1000, 200, None)),
        (GATEWAY, (1250, 9, None, 200, None)),
        (LOCAL, (7, 2, None, None, None)),
        ({"prompt_tokens": "7", "completion_tokens": 2.0}, (7, 2, None, None, None)),
        (XAI | APART, (12, 403, None, None, 400)),
        (XAI, (12, 403, None, None, None)),
        (LOCAL | APART, (7, 402, None, None, 400)),
        (LOCAL | APART | {"total_tokens": 9}, (7, 2, None, None, 400)),
        (LOCAL | {"total_tokens": 5}, (7, 2, None, None, None)),
        (GEMINI, (12, 403, None, None, 400)),
        (GEMINI | {"totalTokenCount": None}, (12, 403, None, None, 400)),
        (GEMINI | {"thoughtsTokenCount": 2, "totalTokenCount": None}, (12, 5, None, None, 2)),
        (LOCAL | {"cache_read_input_tokens": 1000, "total_tokens": 1009}, (1007, 2, 1000, None, None)),
        ({"prompt_tokens": 12, "total_tokens": 15}, (12, 3, None, None, None)),
        ({"completion_tokens": 3, "total_tokens": 15}, (12, 3, None, None, None)),
        (LLAMA, (100, 5, 90, None, None)),
        (OLLAMA, (26, 298, None, None, None)),
        (
            {"input_tokens": 9, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 5}},
            (9, 7, None, None, 5),
        ),
        (LOCAL | {"prompt_tokens_details": {"cached_tokens": "many"}}, (7, 2, None, None, None)),
    ],
)
def test_the_words_of_several_servers(
    counted: dict[str, Any], numbers: tuple[int, int, int | None, int | None, int | None]
) -> None:
    assert usage_of(counted) == ChatUsage(*numbers, raw=counted)


@pytest.mark.parametrize(
    "chunk",
    [
        {"usage": LOCAL},
        {"usage": None, "choices": [{"usage": LOCAL}]},
        {"choices": [{"delta": {"usage": LOCAL}}]},
        {"x_groq": {"id": "r", "usage": LOCAL}},
        {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2}},
        {"message": {"usage": {"input_tokens": 7, "output_tokens": 2}}},
        {"usage": {}, "timings": {"prompt_n": 7, "predicted_n": 2}},
        {"done": True, "prompt_eval_count": 7, "eval_count": 2},
    ],
)
def test_the_places_of_several_servers(chunk: dict[str, Any]) -> None:
    usage = usage_in(chunk)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 2)


NONE_COUNTED = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(
    "counted", [NONE_COUNTED, None, 7, "many", [], {}, {"prompt_tokens": 7}, {"prompt_tokens": True}]
)
def test_what_does_not_say_how_many(counted: object) -> None:
    assert usage_of(counted) is None


def test_what_cannot_be_stored_is_not_kept_and_the_numbers_are() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"deep": deep}
    for odd in ("\ud800", 2**70, "x" * LARGEST, deep):
        assert usage_of(LOCAL | {"odd": odd}) == ChatUsage(7, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*OPENAI, *DEEPSEEK, *ANTHROPIC]), JSON, max_size=9))
def test_nothing_that_a_server_may_send_is_an_error(counted: dict[str, Any]) -> None:
    usage = usage_of(counted)
    if usage is not None:
        assert orjson.loads(orjson.dumps(usage.raw)) == usage.raw
        for number in (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens):
            assert number is None or 0 <= number <= MOST
        assert 0 <= usage.prompt_tokens <= 3 * MOST
        assert 0 <= usage.completion_tokens <= 2 * MOST
