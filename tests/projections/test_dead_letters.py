from __future__ import annotations

from typing import Any

from domain.aggregate import new_id
from domain.work.dead_letter import DeadLetter
from projections.dead_letters import dead_letters
from tests.projections.history import History

DIED: dict[str, Any] = {"reason": "KeyError: 'x'", "where": "x.py:run:7", "stack": "ab", "failures": 5, "deaths": 0}
KILLED: dict[str, Any] = {"reason": "It killed.", "where": "", "stack": "", "failures": 0, "deaths": 10}


def buried(history: History) -> DeadLetter:
    of: dict[str, Any] = {
        "consumer": "commands",
        "stream": "COMMANDS",
        "subject": "cmd.default.anon.app.create",
        "message": "the-command",
    }
    letter = DeadLetter.begin(DeadLetter.Buried, new_id(), history.now, sequence=12, **of, **DIED)
    history.record(letter)
    return letter


def test_given_nothing_when_a_message_is_buried_then_its_row_says_why() -> None:
    history = History()
    letter = buried(history)
    [row] = history.rows(dead_letters)
    assert row == dead_letters.blank | {
        "tenant_id": "default",
        "id": letter.id,
        "status": "buried",
        "consumer": "commands",
        "stream": "COMMANDS",
        "sequence": 12,
        "subject": "cmd.default.anon.app.create",
        "message_id": "the-command",
        "reason": "KeyError: 'x'",
        "place": "x.py:run:7",
        "stack": "ab",
        "failures": 5,
        "deaths": 0,
        "retries": 0,
        "correlation_id": "the-correlation",
        "created_at": letter.created_on,
        "updated_at": letter.created_on,
        "log_position": 1,
    }


def test_given_a_letter_when_it_is_retried_and_comes_back_then_the_row_says_what_it_died_of_last() -> None:
    history = History()
    letter = buried(history)
    letter.retry(history.now)
    history.record(letter)
    [row] = history.rows(dead_letters)
    assert (row["status"], row["retries"], row["decided_by"]) == ("retried", 1, "ada")
    letter.come_back(history.now, sequence=20, **KILLED)
    at = history.record(letter)
    [row] = history.rows(dead_letters)
    assert (row["status"], row["reason"], row["deaths"], row["sequence"]) == ("returned", "It killed.", 10, 12)
    assert row["updated_at"] == at


def test_given_a_letter_when_it_is_discarded_then_the_row_stays() -> None:
    history = History()
    letter = buried(history)
    letter.discard(history.now)
    history.record(letter)
    [row] = history.rows(dead_letters)
    assert (row["status"], row["retries"], row["decided_by"]) == ("discarded", 0, "ada")
