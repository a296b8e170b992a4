from __future__ import annotations

from typing import Any

import pytest

from domain.access.limits import MOST, Counted, Limits, counted, least, name, parsed
from tests.domain.scenario import NOW, given

A_MINUTE = Counted("messages", "minute", "user")
A_DAY = Counted("tokens", "day")


def begun() -> Limits:
    limits = Limits.begin(Limits.Begun, "tenant", NOW)
    limits.pending()
    return limits


def limit(limits: Limits) -> None:
    limits.limit(NOW, A_MINUTE, "ada", most=60)


def lower(limits: Limits) -> None:
    limits.limit(NOW, A_MINUTE, "ada", most=6)


def remove(limits: Limits) -> None:
    limits.remove(NOW, A_MINUTE, "ada")


def test_begins_with_its_first_limit() -> None:
    limits = Limits.begin(Limits.Begun, "tenant", NOW)
    limit(limits)
    assert [type(event) for event in limits.pending()] == [Limits.Begun, Limits.Set]


def test_is_set_and_changed() -> None:
    fields: dict[str, Any] = {"quantity": "messages", "period": "minute", "scope": "user", "subject": "ada"}
    scenario = given(begun()).once(limit, Limits.Set, **fields, most=60)
    assert scenario.when(lower).then(Limits.Set).whole(**fields, most=6).aggregate.most == {
        "messages/minute/user/ada": 6
    }


def test_is_removed_once() -> None:
    scenario = given(begun(), limit).when(remove).then(Limits.Removed)
    assert scenario.aggregate.most == {}
    scenario.when(remove).rejects("not_found", None)


def test_there_are_not_too_many_but_those_there_are_may_change() -> None:
    limits = begun()
    for number in range(MOST):
        limits.limit(NOW, A_MINUTE, f"user {number}", most=1)
    limits.pending()
    given(limits).when(limit).rejects("too_many", None)
    given(limits).when(lambda it: it.limit(NOW, A_MINUTE, "user 7", most=2)).then(Limits.Set, most=2)


@pytest.mark.parametrize("subject", ["", "ada", "a/b/c"])
def test_a_name_says_what_it_counts(subject: str) -> None:
    assert counted(name(A_MINUTE, subject)) == (A_MINUTE, subject)


EACH, ADA, EVE = "messages/minute/user", "messages/minute/user/ada", "messages/minute/user/eve"


@pytest.mark.parametrize(
    ("operator", "own", "most"),
    [
        ({}, {}, None),
        ({EACH: 10}, {}, 10),
        ({EACH: 10, ADA: 20}, {}, 20),
        ({EACH: 10, EVE: 20}, {}, 10),
        ({EVE: 20}, {}, None),
        ({EACH: 10}, {ADA: 20}, 10),
        ({EACH: 10, ADA: 30}, {ADA: 20}, 20),
        ({EACH: 10}, {EACH: 0}, 0),
    ],
)
def test_the_closest_limit_of_each_side_holds_and_the_smaller_of_both(
    operator: dict[str, int], own: dict[str, int], most: int | None
) -> None:
    assert least((operator, own), A_MINUTE, "ada") == most


def test_limits_are_read_from_a_setting() -> None:
    text = " messages/minute/user=60,tokens/day=1000000, documents/waiting = 5,"
    assert parsed(text) == {"messages/minute/user": 60, "tokens/day/tenant": 1_000_000, "documents/waiting/tenant": 5}
    assert parsed("") == {}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("messages", "is not like"),
        ("messages/minute", "is not like"),
        ("messages/minute=", "is not like"),
        ("messages/minute=-1", "is not like"),
        ("messages/minute=1.5", "is not like"),
        ("messages/minute=²", "is not like"),
        ("messages/minute/user/ada=1", "is not like"),
        ("letters/minute=1", "quantity must be one of"),
        ("messages/hour=1", "period of messages must be one of"),
        ("tokens/waiting=1", "period of tokens must be one of"),
        ("bytes/day/user=1", "scope of bytes"),
        ("messages/waiting/user=1", "scope of messages"),
    ],
)
def test_what_cannot_be_counted_is_no_limit(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        parsed(text)


def test_a_part_of_the_name_may_be_left_out() -> None:
    assert str(A_DAY) == "tokens/day/tenant"
