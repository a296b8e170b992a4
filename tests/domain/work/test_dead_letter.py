from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.work.dead_letter import DeadLetter, dead_letter_id
from tests.domain.scenario import NOW, given, made

COMMAND = new_id()
DIED: dict[str, Any] = {
    "sequence": 12,
    "reason": "KeyError: 'gate'",
    "where": "routes.py:fill_in:93",
    "stack": "0123456789abcdef",
    "failures": 5,
    "deaths": 0,
}
KILLED = {"sequence": 20, "reason": "It killed.", "where": "", "stack": "", "failures": 0, "deaths": 10}

Decision = Callable[[DeadLetter], None]


def letter() -> DeadLetter:
    id = dead_letter_id("commands", "acme", COMMAND)
    of: dict[str, Any] = {
        "consumer": "commands",
        "stream": "COMMANDS",
        "subject": "cmd.acme.anon.app.create",
        "message": COMMAND,
    }
    return DeadLetter.begin(DeadLetter.Buried, id, NOW, **of, **DIED)


def retry(letter: DeadLetter) -> None:
    letter.retry(NOW)


def come_back(letter: DeadLetter) -> None:
    letter.come_back(NOW, **KILLED)


def discard(letter: DeadLetter) -> None:
    letter.discard(NOW)


def test_is_buried_with_all_that_is_known() -> None:
    made(letter()).then(DeadLetter.Buried).whole(
        consumer="commands", stream="COMMANDS", subject="cmd.acme.anon.app.create", message=COMMAND, **DIED
    )


def test_a_message_has_one_letter_for_each_consumer_and_tenant() -> None:
    ids = {dead_letter_id(consumer, tenant, COMMAND) for consumer in ("commands", "ingest") for tenant in ("a", "b")}
    assert len(ids) == 4
    assert dead_letter_id("commands", "a", COMMAND) in ids


@pytest.mark.parametrize("before", [(), (retry, come_back), (discard, come_back)])
def test_what_waits_can_be_tried_again(before: tuple[Decision, ...]) -> None:
    """The message of the first sequence, however often it came back."""
    scenario = given(letter(), *before).when(retry).then(DeadLetter.Retried, consumer="commands", sequence=12)
    assert scenario.aggregate.status == "retried"


@pytest.mark.parametrize("before", [(), (retry, come_back)])
def test_what_waits_can_be_discarded(before: tuple[Decision, ...]) -> None:
    scenario = given(letter(), *before).when(discard).then(DeadLetter.Discarded, consumer="commands")
    assert scenario.aggregate.status == "discarded"


@pytest.mark.parametrize("before", [(retry,), (discard,)])
@pytest.mark.parametrize("decision", [retry, discard])
def test_what_does_not_wait_cannot(before: tuple[Decision, ...], decision: Decision) -> None:
    given(letter(), *before).when(decision).rejects("not_waiting", "dead_letter")


@pytest.mark.parametrize("before", [(retry,), (discard,)])
def test_what_dies_again_comes_back_with_the_new_reason(before: tuple[Decision, ...]) -> None:
    scenario = given(letter(), *before).once(come_back, DeadLetter.Returned)
    assert scenario.aggregate.status == "returned"
    assert scenario.aggregate.sequence == 12


def test_what_waits_does_not_come_back() -> None:
    given(letter()).when(come_back).nothing()
