from __future__ import annotations

from tests.chaos.tokens import Tokens


def test_an_answer_that_begins_again_doubles_nothing() -> None:
    tokens = Tokens()
    for attempt, index in ((1, 0), (1, 1), (2, 0), (1, 2), (2, 1)):
        tokens.take("a", attempt, index)
    tokens.take("b", 1, 0)
    assert (tokens.count, tokens.findings) == (6, [])


def test_a_token_that_comes_twice_is_found() -> None:
    tokens = Tokens()
    for index in (0, 1, 1):
        tokens.take("a", 2, index)
    [finding] = tokens.findings
    assert finding.kind == "doubled"
    assert "token 1 of attempt 2 at message a" in finding.what
