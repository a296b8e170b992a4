from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.models.token_usage import LARGEST, MOST, usage_of
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


@pytest.mark.parametrize(
    ("counted", "numbers"),
    [
        (OPENAI, (2006, 300, 1920, None, 256)),
        (DEEPSEEK, (100, 20, 64, None, 7)),
        (ANTHROPIC, (1250, 9, 1000, 200, None)),
        (GATEWAY, (1250, 9, None, 200, None)),
        (LOCAL, (7, 2, None, None, None)),
        ({"prompt_tokens": "7", "completion_tokens": 2.0}, (7, 2, None, None, None)),
        (LOCAL | {"prompt_tokens_details": {"cached_tokens": "many"}}, (7, 2, None, None, None)),
    ],
)
def test_the_words_of_several_servers(
    counted: dict[str, Any], numbers: tuple[int, int, int | None, int | None, int | None]
) -> None:
    assert usage_of(counted) == ChatUsage(*numbers, raw=counted)


@pytest.mark.parametrize("counted", [None, 7, "many", [], {}, {"prompt_tokens": 7}, {"prompt_tokens": True}])
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
        assert 0 <= usage.completion_tokens <= MOST
