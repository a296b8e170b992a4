from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.aggregate import Aggregate, new_id
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import EVENTS, OUTCOMES, Commit, Metadata, Outcome, Position, Recorded, Subject, Verdict, commit_id
from domain.models.model_call import ModelCall, TokenUsage
from domain.models.passage import Passage, passage_id
from domain.models.replay import Replay
from domain.tools.plugin import Package, Plugin, PluginRun
from handlers.work.audit import FIRST, Audit, Check

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TENANT = "acme"


class Past:
    """A log that keeps every promise; `audited` says what is found in it, with or without some of its messages."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.verdicts: list[Verdict] = []

    def command(self, name: str, aggregate: Aggregate) -> str:
        """A command that did what is pending, and its outcome."""
        command = new_id()
        subject = Subject(TENANT, aggregate.TOPIC, aggregate.id)
        self._commit(aggregate, Metadata(commit_id(command, str(subject)), TENANT, command, command))
        self.decide(name, command, "accepted", position=Position(EVENTS, len(self.commits)), version=aggregate.version)
        return command

    def step(self, aggregate: Aggregate) -> None:
        """A commit that a reaction made."""
        self._commit(aggregate, Metadata(new_id(), TENANT, new_id(), self.commits[-1].metadata.id))

    def _commit(self, aggregate: Aggregate, metadata: Metadata) -> None:
        subject = Subject(TENANT, aggregate.TOPIC, aggregate.id)
        position = Position(EVENTS, len(self.commits) + 1)
        self.commits.append(Commit(subject, aggregate.pending(), metadata, position, NOW))

    def decide(self, name: str, command: str, status: Any, **fields: Any) -> None:
        position = fields.get("position")
        ids = {"aggregate": self.commits[position.sequence - 1].subject.id} if position else {}
        metadata = Metadata(command, TENANT, command)
        outcome = Outcome(command, name, status, metadata, NOW, ids=ids, **fields)
        place = Position(OUTCOMES, len(self.verdicts) + 1)
        self.verdicts.append(Verdict(Subject(TENANT, "command", command), (outcome,), metadata, place, NOW))

    def audited(
        self, keep: Callable[[Recorded], bool] = lambda message: True, last: Mapping[str, int] | None = None
    ) -> Audit:
        audit = Audit()
        for commit in filter(keep, self.commits):
            audit.commit(commit)
        for verdict in filter(keep, self.verdicts):
            audit.verdict(verdict)
        audit.finish(last or {})
        return audit


@pytest.fixture
def past() -> Past:
    past = Past()
    app = App.begin(App.Created, new_id(), NOW, name="Porter", description="")
    past.command("app.create", app)
    app.delete(NOW)
    past.command("app.delete", app)
    past.decide("app.delete", new_id(), "rejected", code="not_found")
    return past


def faults(audit: Audit) -> dict[str, list[str]]:
    return {check.name: check.first for check in audit.checks if check.faults}


def test_a_log_that_keeps_its_promises(past: Past) -> None:
    audit = past.audited()
    assert faults(audit) == {}
    assert audit.undecided == {}
    assert [check.checked for check in audit.checks] == [5, 2, 2, 3, 0, 0]


def asking(*messages: Any) -> ModelCall:
    return ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        NOW,
        kind="chat",
        provider="lab",
        model="small",
        cause_noun="replay",
        cause_id=new_id(),
        request={"messages": list(messages)},
    )


def test_a_prompt_that_quotes_what_is_not_recorded_is_named(past: Past) -> None:
    text, message = "The lock opens at six.", new_id()
    talk = Conversation.begin(Conversation.Started, new_id(), NOW, app=new_id(), user="ada", name="Hours")
    talk.ask(NOW, message=message, app=talk.app, configuration=1, query="When?", inputs={}, user="ada")
    past.command("message.send", talk)
    quoting = asking(
        {"role": "system", "pieces": [{"quotes": f"passage/{passage_id(text)}"}]},
        {"conversation": talk.id, "first": message, "last": message},
        {"role": "user", "pieces": [{"quotes": f"question/{message}"}]},
    )
    past.step(quoting)
    past.step(Passage.begin(Passage.Recorded, passage_id(text), NOW, text=text))
    past.step(asking({"role": "system", "pieces": [{"quotes": f"passage/{passage_id(text)}"}]}))
    past.step(asking({"conversation": talk.id, "first": message, "last": "m2"}))
    check = past.audited().prompts
    assert (check.checked, check.faults) == (3, 2)
    assert check.first == [
        f"EVENTS 4: {past.commits[3].subject} quotes passage/{passage_id(text)}, which is missing",
        f"EVENTS 7: {past.commits[6].subject} quotes {talk.id}/m2, which is missing",
    ]


def test_a_missing_message_is_named(past: Past) -> None:
    audit = past.audited(lambda message: message.position != (EVENTS, 1))
    assert audit.sequence.first == ["EVENTS 1: missing"]
    assert "does not fold" in audit.folded.first[0]
    assert "and its commit is not at EVENTS 1" in audit.decided.first[0]


def test_the_end_of_a_stream_that_is_missing(past: Past) -> None:
    audit = past.audited(
        lambda message: message.position.sequence < 2 or message.position.stream == OUTCOMES, last={EVENTS: 2}
    )
    assert audit.sequence.first == ["EVENTS 2: missing, up to 2"]


def test_streams_that_are_read_side_by_side(past: Past) -> None:
    audit = Audit()
    for verdict in past.verdicts:
        audit.verdict(verdict)
    for commit in past.commits:
        audit.commit(commit)
    audit.finish({EVENTS: 2, OUTCOMES: 3})
    assert (faults(audit), audit.undecided) == ({}, {})


def test_a_commit_that_is_there_twice(past: Past) -> None:
    past.commits.append(replace(past.commits[1], position=Position(EVENTS, 3)))
    audit = past.audited()
    assert (
        audit.folded.first[0]
        == f"EVENTS 3: commit {past.commits[1].metadata.id} of {past.commits[1].subject} is there twice"
    )
    assert "does not fold" in audit.folded.first[1]


def test_a_version_that_is_missing(past: Past) -> None:
    del past.commits[0]
    past.commits[0] = replace(past.commits[0], position=Position(EVENTS, 1))
    assert "does not fold" in past.audited().folded.first[0]


def test_what_cannot_be_read_is_named(past: Past) -> None:
    audit = Audit()
    audit.commit(past.commits[0])
    audit.unreadable(Position(EVENTS, 2), "UnknownEvent: app.sold.v1")
    audit.finish({})
    assert faults(audit) == {"events": ["EVENTS 2: UnknownEvent: app.sold.v1"]}


def test_a_commit_without_an_outcome_is_undecided(past: Past) -> None:
    audit = past.audited(lambda message: message.position != (OUTCOMES, 2))
    assert audit.undecided == {(TENANT, past.verdicts[1].subject.id): 2}


def test_a_second_outcome(past: Past) -> None:
    past.verdicts.append(replace(past.verdicts[0], position=Position(OUTCOMES, 4)))
    assert faults(past.audited()) == {
        "commands": [f"OUTCOMES 4: command {past.verdicts[0].subject.id} has another outcome"]
    }


def test_an_internal_error_may_be_followed_by_another_outcome(past: Past) -> None:
    command = new_id()
    past.decide("app.create", command, "rejected", code="internal_error")
    app = App.begin(App.Created, command, NOW, name="Porter", description="")
    subject = Subject(TENANT, "app", command)
    past._commit(app, Metadata(commit_id(command, str(subject)), TENANT, command, command))
    past.decide("app.create", command, "accepted", position=Position(EVENTS, 3), version=1)
    assert faults(past.audited()) == {}


def test_an_accepted_command_whose_commit_is_another(past: Past) -> None:
    past.decide("app.create", new_id(), "accepted", position=Position(EVENTS, 1), version=7)
    assert "and EVENTS 1 is another" in past.audited().decided.first[0]


def test_a_rejected_command_that_has_changed_something(past: Past) -> None:
    command = past.verdicts[1].subject.id
    del past.verdicts[1:]
    past.decide("app.delete", command, "rejected", code="not_found")
    assert faults(past.audited()) == {
        "commands": [f"EVENTS 2: command {command} was rejected, and has changed something"]
    }


def test_an_outcome_of_what_came_after_the_audit_began_is_left_alone(past: Past) -> None:
    past.decide("app.create", new_id(), "accepted", position=Position(EVENTS, 1), version=1)
    later = replace(past.verdicts[-1].events[0], position=Position(EVENTS, 99))
    past.verdicts[-1] = replace(past.verdicts[-1], events=(later,))
    assert faults(past.audited()) == {}


def opened(past: Past) -> dict[tuple[str, str, str], int]:
    """The open work, and the sequence of the commit that began each."""
    works = [work for items in past.audited().open.values() for work in items.values()]
    return {(work.work, work.tenant, work.item): work.opened for work in works}


def document() -> Document:
    return Document.upload(
        new_id(), NOW, dataset=new_id(), name="a.txt", media_type="text/plain", digest="d", size=1, metadata={}
    )


def test_a_document_waits_until_it_has_ended(past: Past) -> None:
    waiting = document()
    past.command("document.upload", waiting)
    waiting.start(NOW, stage="parsing")
    past.step(waiting)
    key = "ingest", TENANT, waiting.id
    assert opened(past)[key] == 3
    assert past.audited().blobs == {(TENANT, "d"): 3}
    waiting.fail(NOW, stage="parsing", code="no_text", reason="The file holds no text.")
    past.step(waiting)
    assert opened(past) == {}
    waiting.retry(NOW)
    past.command("document.retry", waiting)
    assert opened(past)[key] == 6
    waiting.delete(NOW)
    past.command("document.delete", waiting)
    assert opened(past) == {}


@pytest.fixture
def conversation(past: Past) -> Conversation:
    conversation = Conversation.begin(Conversation.Started, new_id(), NOW, app=new_id(), user="ada", name="Talk")
    conversation.ask(NOW, message="m", app=conversation.app, configuration=1, query="How long?", inputs={}, user="ada")
    past.command("message.send", conversation)
    return conversation


def test_a_message_waits_until_it_has_ended(past: Past, conversation: Conversation) -> None:
    assert opened(past)["answer", TENANT, "m"] == 3
    conversation.answering(NOW, message="m")
    past.step(conversation)
    assert opened(past)["answer", TENANT, "m"] == 3
    conversation.fail(NOW, message="m", code="timeout", reason="Too long.", answer="")
    past.step(conversation)
    assert opened(past) == {}


def test_a_message_of_a_deleted_conversation_waits_no_longer(past: Past, conversation: Conversation) -> None:
    conversation.delete(NOW)
    past.command("conversation.delete", conversation)
    assert opened(past) == {}


def test_a_call_is_an_orphan_when_what_it_was_made_for_is_over(past: Past, conversation: Conversation) -> None:
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        NOW,
        kind="chat",
        provider="p",
        model="m",
        cause_noun="message",
        cause_id="m",
        request={},
    )
    past.step(call)
    assert past.audited().orphans() == []
    conversation.fail(NOW, message="m", code="timeout", reason="Too long.", answer="")
    past.step(conversation)
    [(subject, _)] = past.audited().orphans()
    assert subject.id == call.id
    usage = TokenUsage(
        prompt_tokens=1,
        completion_tokens=1,
        estimated=True,
        cached_tokens=None,
        cache_write_tokens=None,
        reasoning_tokens=None,
        raw={},
    )
    call.complete(NOW, response="", finish_reason=None, usage=usage, first_token_ms=None, duration_ms=1.0)
    past.step(call)
    assert past.audited().orphans() == []
    assert past.audited().requested == 1


def test_a_replay_waits_until_it_has_ended(past: Past) -> None:
    asked: dict[str, Any] = {"call": new_id(), "max_tokens": 1, "parameters": {}, "app": None, "configuration": None}
    replay = Replay.begin(Replay.Requested, new_id(), NOW, provider="p", model="m", **asked)
    past.command("replay.request", replay)
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        NOW,
        kind="chat",
        provider="p",
        model="m",
        cause_noun="replay",
        cause_id=replay.id,
        request={},
    )
    past.step(call)
    assert opened(past)["replay", TENANT, replay.id] == 3
    assert past.audited().orphans() == []
    replay.fail(NOW, code="timeout", reason="Too long.")
    past.step(replay)
    assert opened(past) == {}
    assert [subject.id for subject, _ in past.audited().orphans()] == [call.id]
    replay.retry(NOW)
    past.step(replay)
    assert opened(past)["replay", TENANT, replay.id] == 6


def test_a_fork_waits_for_nothing(past: Past, conversation: Conversation) -> None:
    conversation.stopped(NOW, message="m", answer="Lo")
    past.step(conversation)
    fork = Conversation.fork(new_id(), NOW, source=conversation, message="m", name=None)
    past.command("conversation.fork", fork)
    assert opened(past) == {}
    assert faults(past.audited()) == {}


def test_of_many_faults_the_first_are_kept_and_all_are_counted() -> None:
    check = Check("name", "promise", "repair")
    for number in range(FIRST + 5):
        check.fault(f"fault {number}")
    assert (check.faults, len(check.first), check.first[0]) == (FIRST + 5, FIRST, "fault 0")


def test_a_package_that_a_call_names_was_installed_before_it() -> None:
    past = Past()
    manifest: Any = {"name": "mask", "kind": "filter"}
    package = Package(package_version="1.0.0", digest="a" * 64, manifest=manifest, content="none")
    past.command("plugin.install", Plugin.begin(Plugin.Installed, "mask", NOW, **package))
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        NOW,
        kind="chat",
        provider="lab",
        model="small",
        cause_noun="message",
        cause_id=new_id(),
        request={},
    )
    run = PluginRun(
        name="mask",
        version="1.0.0",
        digest="a" * 64,
        hook="before_invoke",
        action="continue",
        changed=False,
        ms=0.1,
        code=None,
    )
    call.filter(NOW, plugins=[run], original=None)
    past.step(call)
    assert past.audited().plugins.first == []
    call.filter(NOW, plugins=[{**run, "digest": "b" * 64}], original=None)
    past.step(call)
    [fault] = past.audited().plugins.first
    assert fault.endswith(f"names package {'b' * 64} of plugin mask, which was not installed")
