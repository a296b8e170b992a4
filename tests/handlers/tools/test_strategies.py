"""The forms in which models call tools and answer, and how their answers are read."""

from __future__ import annotations

import json

import pytest

from handlers.tools.strategies import STRATEGIES

WHOLE = {"step": {"answer": 'It is "six" 🛶\nand green.'}}


@pytest.mark.parametrize("ascii", [True, False])
def test_an_answer_by_a_schema_that_breaks_off_is_the_answer_as_far_as_it_came(ascii: bool) -> None:
    """At the maximum of tokens a server stops within the JSON."""
    text, read = json.dumps(WHOLE, ensure_ascii=ascii), STRATEGIES["schema"].read
    first = text.index("It is")
    for end in range(first + 2, len(text)):
        found = read(text[:end], ())
        assert WHOLE["step"]["answer"].startswith(found.said), text[:end]
        assert (found.calls, found.fault) == ((), ""), text[:end]


@pytest.mark.parametrize(
    "said",
    [
        '{"step": {"tool": "weather", "arguments": {"city": "Pa',
        '{"step": {"ans',
        '{"answer": "so" or "not"',
        "It rains.",
    ],
)
def test_what_breaks_off_without_an_answer_is_a_fault(said: str) -> None:
    found = STRATEGIES["schema"].read(said, ())
    assert (bool(found.fault), found.calls) == (True, ())
