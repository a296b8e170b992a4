"""The account of a recorded history, and of the same with something taken out or put in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from domain.aggregate import new_id
from domain.log import commit_id
from tests.chaos.account import Account, Finding, Sent, journal

APP, CHANGE, WRONG, ASKED, STOP = (new_id() for _ in range(5))
AGAIN, NEVER = new_id(), new_id()


class Message(NamedTuple):
    subject: str
    headers: dict[str, str]
    body: Any


def commit(noun: str, id: str, cause: str, *events: tuple[str, int], message: str = "") -> Message:
    subject = f"evt.t.{noun}.{id}"
    body = [{"type": name, "version": version, "state": {"message": message}} for name, version in events]
    return Message(subject, {"Nats-Msg-Id": commit_id(cause, subject), "Headrace-Causation": cause}, body)


def swept(message: Message) -> Message:
    """As the sweeper does it: on account of a command, under an id of its own."""
    return message._replace(headers={**message.headers, "Nats-Msg-Id": new_id()})


def outcome(command: str, name: str, sequence: int | None, code: str | None = None) -> Message:
    status = "accepted" if sequence else "rejected"
    body = {"status": status, "name": name, "sequence": sequence, "code": code}
    return Message(f"out.t.{command}", {}, body)


class History:
    """Commands that publishers sent, and the log that resulted."""

    def __init__(self) -> None:
        self.sent = {
            APP: Sent("app.create", {}, acknowledged=True),
            CHANGE: Sent("app.configure", {}, acknowledged=True, again=2),
            WRONG: Sent("app.create", {}, acknowledged=True),
            ASKED: Sent("message.send", {}, acknowledged=False),
            STOP: Sent("message.stop", {}, acknowledged=True),
            NEVER: Sent("app.create", {}, acknowledged=False),
        }
        self.commits = [
            commit("app", APP, APP, ("app.created.v1", 1)),
            commit("app", APP, CHANGE, ("app.configured.v1", 2)),
            commit("conversation", ASKED, ASKED, ("conversation.started.v1", 1), ("message.asked.v2", 2)),
            commit("conversation", ASKED, new_id(), ("message.answered.v3", 3), message=ASKED),
            swept(commit("model_call", new_id(), APP, ("model_call.failed.v2", 1))),
        ]
        self.outcomes = [
            outcome(APP, "app.create", 1),
            outcome(CHANGE, "app.configure", 2),
            outcome(WRONG, "app.create", None, "invalid"),
            outcome(ASKED, "message.send", 3),
            outcome(STOP, "message.stop", 4),
        ]
        self.first = 1

    def findings(self) -> list[Finding]:
        account = Account(self.sent)
        for sequence, message in enumerate(self.commits, self.first):
            account.commit(sequence, message.subject, message.headers, message.body)
        for sequence, message in enumerate(self.outcomes, 1):
            account.outcome(sequence, message.subject, message.body)
        return account.close()


def test_a_history_without_fault_has_no_findings() -> None:
    assert History().findings() == []


def test_what_is_counted() -> None:
    history = History()
    account = Account(history.sent)
    for sequence, message in enumerate(history.outcomes, 1):
        account.outcome(sequence, message.subject, message.body)
    assert (account.count("accepted"), account.count("rejected"), account.messages) == (4, 1, 5)


def no_outcome(history: History) -> None:
    del history.outcomes[0]


def no_commit(history: History) -> None:
    history.commits[1] = commit("app", APP, new_id(), ("app.configured.v1", 2))


def no_outcome_of_what_was_not_acknowledged(history: History) -> None:
    del history.outcomes[3]


def given_up(history: History) -> None:
    history.outcomes[2] = outcome(WRONG, "app.create", None, "internal_error")


def commit_again(history: History) -> None:
    history.commits.append(history.commits[1])


def second_effect(history: History) -> None:
    subject = f"evt.t.app.{AGAIN}"
    headers = {"Nats-Msg-Id": commit_id(APP, subject), "Headrace-Causation": APP}
    history.commits.append(Message(subject, headers, [{"type": "app.created.v1", "version": 1, "state": {}}]))


def second_outcome(history: History) -> None:
    history.outcomes.append(outcome(APP, "app.create", 1))


def second_answer(history: History) -> None:
    history.commits.append(commit("conversation", ASKED, new_id(), ("message.answered.v3", 4), message=ASKED))


def buried(history: History) -> None:
    letter = commit("dead_letter", AGAIN, new_id(), ("dead_letter.buried.v1", 1))
    letter.body[0]["state"]["consumer"] = "ingest"
    history.commits.append(letter)


def version_skipped(history: History) -> None:
    history.commits.append(commit("app", APP, new_id(), ("app.configured.v1", 4)))


def beginning_gone(history: History) -> None:
    history.first = 2
    history.outcomes = [outcome(WRONG, "app.create", None, "invalid")]
    history.sent = {WRONG: history.sent[WRONG]}


def rejected_with_an_effect(history: History) -> None:
    history.outcomes[0] = outcome(APP, "app.create", None, "not_found")


def another_position(history: History) -> None:
    history.outcomes[0] = outcome(APP, "app.create", 2)


def another_commit_id(history: History) -> None:
    history.commits[0].headers["Nats-Msg-Id"] = new_id()


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (no_outcome, "lost", "was acknowledged and has no outcome"),
        (no_commit, "lost", "was accepted and has no commit"),
        (no_outcome_of_what_was_not_acknowledged, "lost", "has a commit at 3 and no outcome"),
        (given_up, "lost", "was given up"),
        (commit_again, "doubled", "is there again at 6"),
        (second_effect, "doubled", "has commits at 1 and 6"),
        (second_outcome, "doubled", "has outcomes at 1 and 6"),
        (second_answer, "doubled", "message.answered.v3"),
        (buried, "stuck", "ingest gave a message up at 6"),
        (version_skipped, "doubled", "has version 4 at 6"),
        (beginning_gone, "gap", "EVENTS goes from 0 to 2"),
        (rejected_with_an_effect, "different", "was rejected and has a commit at 1"),
        (another_position, "different", "was accepted at 2, its commit is at 1"),
        (another_commit_id, "lost", "was accepted and has no commit"),
    ],
)
def test_what_is_wrong_is_found(spoil: Callable[[History], None], kind: str, words: str) -> None:
    history = History()
    spoil(history)
    found = [finding for finding in history.findings() if words in finding.what]
    assert [finding.kind for finding in found] == [kind], history.findings()


def test_a_journal_says_what_was_sent_acknowledged_and_sent_again(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    lines = [
        {"id": APP, "name": "app.create", "payload": {"name": "one"}},
        {"id": CHANGE, "name": "app.configure", "payload": {}},
        {"acknowledged": APP},
        {"again": APP},
        {"acknowledged": APP},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert journal(file) == {
        APP: Sent("app.create", {"name": "one"}, acknowledged=True, again=1),
        CHANGE: Sent("app.configure", {}, acknowledged=False),
    }
