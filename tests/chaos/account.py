"""The account of a storm: what publishers sent and saw acknowledged, against what the log holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from domain.log import commit_id

MAY_CHANGE_NOTHING = {"message.stop"}
"""Commands that are accepted without a commit when what they ask for is so already."""

ENDS = {"message.answered.v3", "document.completed.v1"}
"""Events that an aggregate has once for each message, or once at all."""

BURIED = "dead_letter.buried.v1"


@dataclass(slots=True)
class Sent:
    """A command of a publisher, with what it said of it."""

    name: str
    payload: Any
    acknowledged: bool = False
    again: int = 0


Kind = Literal["lost", "doubled", "gap", "stuck", "different"]


class Finding(NamedTuple):
    """A broken promise, and where."""

    kind: Kind
    what: str


def journal(file: Path) -> dict[str, Sent]:
    """The commands that publishers have written down, by id."""
    sent: dict[str, Sent] = {}
    with file.open() as lines:
        for line in map(json.loads, lines):
            if "name" in line:
                sent[line["id"]] = Sent(line["name"], line["payload"])
            elif "again" in line:
                sent[line["again"]].again += 1
            else:
                sent[line["acknowledged"]].acknowledged = True
    return sent


@dataclass(slots=True)
class _Done:
    """Outcome of a command, by the log."""

    sequence: int
    status: str
    name: str
    position: int | None
    code: str | None


@dataclass
class Account:
    """Takes every message of the log in order, and then finds what is wrong."""

    sent: Mapping[str, Sent]
    findings: list[Finding] = field(default_factory=list)
    _done: dict[str, _Done] = field(default_factory=dict)
    _last: Counter[str] = field(default_factory=Counter)
    _versions: Counter[str] = field(default_factory=Counter)
    _ids: set[str] = field(default_factory=set)
    _effects: dict[str, int] = field(default_factory=dict)
    _ended: set[tuple[str, ...]] = field(default_factory=set)

    def outcome(self, sequence: int, subject: str, body: Mapping[str, Any]) -> None:
        """The next message of `OUTCOMES`."""
        self._in_order("OUTCOMES", sequence)
        command = subject.rpartition(".")[2]
        if command in self._done:
            self._found("doubled", f"command {command} has outcomes at {self._done[command].sequence} and {sequence}")
        else:
            self._done[command] = _Done(sequence, body["status"], body["name"], body["sequence"], body["code"])

    def commit(
        self, sequence: int, subject: str, headers: Mapping[str, str], events: Iterable[Mapping[str, Any]]
    ) -> None:
        """The next message of `EVENTS`."""
        self._in_order("EVENTS", sequence)
        id, cause = headers["Nats-Msg-Id"], headers.get("Headrace-Causation", "")
        if id in self._ids:
            self._found("doubled", f"commit {id} is there again at {sequence}")
        self._ids.add(id)
        if cause in self.sent and id == commit_id(cause, subject):  # and not what came of it later
            if cause in self._effects:
                self._found("doubled", f"command {cause} has commits at {self._effects[cause]} and {sequence}")
            self._effects[cause] = sequence
        for event in events:
            self._event(sequence, subject, event)

    def _event(self, sequence: int, subject: str, event: Mapping[str, Any]) -> None:
        self._versions[subject] += 1
        if event["version"] != self._versions[subject]:
            self._found("doubled", f"{subject} has version {event['version']} at {sequence} as its next")
            self._versions[subject] = event["version"]
        if event["type"] == BURIED:
            self._found("stuck", f"{event['state']['consumer']} gave a message up at {sequence}: {event['state']}")
        if event["type"] in ENDS:
            end = (subject, event["type"], event["state"].get("message", ""))
            if end in self._ended:
                self._found("doubled", f"{' '.join(end)} happened again at {sequence}")
            self._ended.add(end)

    def _in_order(self, stream: str, sequence: int) -> None:
        if sequence != self._last[stream] + 1:
            self._found("gap", f"{stream} goes from {self._last[stream]} to {sequence}")
        self._last[stream] = sequence

    def close(self) -> list[Finding]:
        """Return what is wrong, after the last message of the log."""
        for id, sent in self.sent.items():
            self._settle(id, sent)
        return self.findings

    def _settle(self, id: str, sent: Sent) -> None:
        done = self._done.get(id)
        if done is None:
            if sent.acknowledged:
                self._found("lost", f"{sent.name} {id} was acknowledged and has no outcome")
            if id in self._effects:
                self._found("lost", f"{sent.name} {id} has a commit at {self._effects[id]} and no outcome")
        elif done.status == "rejected" and id in self._effects:
            self._found("different", f"{sent.name} {id} was rejected and has a commit at {self._effects[id]}")
        elif done.status == "rejected" and done.code == "internal_error":
            self._found("lost", f"{sent.name} {id} was given up")
        elif done.status == "accepted":
            self._settle_accepted(id, sent, done)

    def _settle_accepted(self, id: str, sent: Sent, done: _Done) -> None:
        if id not in self._effects:
            if sent.name not in MAY_CHANGE_NOTHING:
                self._found("lost", f"{sent.name} {id} was accepted and has no commit")
            return
        sequence = self._effects[id]
        if sequence != done.position:
            self._found("different", f"{sent.name} {id} was accepted at {done.position}, its commit is at {sequence}")

    def _found(self, kind: Kind, what: str) -> None:
        self.findings.append(Finding(kind, what))

    def count(self, status: str) -> int:
        """Commands of the publishers that were accepted, or rejected."""
        return sum(id in self.sent and done.status == status for id, done in self._done.items())

    @property
    def messages(self) -> int:
        """Number of commits and outcomes so far."""
        return self._last.total()
