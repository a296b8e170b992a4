"""The table of works: each entry is whole, and what ends later is followed by one set of rules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.jetstream.streams import CONSUMERS
from domain.aggregate import Aggregate, Rejection, new_id
from domain.chat.conversation import HISTORY, Conversation
from domain.chat.speech import Speech
from domain.chat.transcription import Transcription
from domain.knowledge import curation
from domain.knowledge.document import Document
from domain.log import Commit, Metadata, Position, Subject
from domain.models.provider import Provider
from domain.models.replay import Replay
from domain.tools.toolset import Toolset
from domain.workflows.run import Run, RunLimits
from handlers.work.work import PENDING, STALLS, WORKS, Work
from ops.roles import ROLES
from projections.catalog import READ_MODELS

NOW = datetime(2026, 5, 4, tzinfo=UTC)
TABLES = {model.table.name: model.table for model in READ_MODELS}


def document() -> Document:
    return Document.upload(
        new_id(), NOW, dataset=new_id(), name="a", media_type="text/plain", digest="d", size=1, metadata={}
    )


def edited() -> Document:
    found = document()
    found.start(NOW, stage="parsing")
    found.parsed(NOW, pages=None, characters=1)
    found.split(NOW, segments="ab", count=1, tokens=1, model="m")
    found.indexed(NOW, first=0, count=1)
    curation.disable(found, NOW)
    return found


def conversation() -> Conversation:
    found = Conversation.begin(Conversation.Started, "m", NOW, app=new_id(), user="ada", name="Talk")
    found.ask(NOW, message="m", app=found.app, configuration=1, query="How long?", inputs={}, user="ada")
    return found


def replay() -> Replay:
    asked: dict[str, Any] = {"call": new_id(), "max_tokens": 1, "parameters": {}, "app": None, "configuration": None}
    return Replay.begin(Replay.Requested, new_id(), NOW, provider="p", model="m", **asked)


def transcription() -> Transcription:
    asked: dict[str, Any] = {"app": new_id(), "digest": "d", "media_type": "audio/wav", "size": 1, "language": ""}
    return Transcription.begin(Transcription.Requested, new_id(), NOW, provider="p", model="m", **asked)


def speech() -> Speech:
    asked: dict[str, Any] = {"app": new_id(), "conversation": None, "message": None, "text": "Hello.", "voice": "v"}
    return Speech.begin(Speech.Requested, new_id(), NOW, provider="p", model="m", autoplay=False, **asked)


def provider() -> Provider:
    found = Provider.begin(
        Provider.Registered, "lab", NOW, kind="openai", base_url="http://127.0.0.1:1", credentials=[]
    )
    found.request_check(NOW, check=new_id(), model=None)
    return found


def toolset() -> Toolset:
    place: dict[str, Any] = {"kind": "mcp", "settings": {}, "secret": None, "timeout_s": 1.0}
    found = Toolset.begin(Toolset.Registered, "mail", NOW, description="", **place)
    found.request_refresh(NOW, refresh=new_id())
    return found


def run() -> Run:
    known: dict[str, Any] = {"source": None, "tool_call": None, "depth": 0, "inputs": {}, "system": {}, "variables": {}}
    limits = RunLimits(steps=1, seconds=1.0)
    found = Run.begin(
        Run.Started,
        new_id(),
        NOW,
        app=new_id(),
        mode="workflow",
        entry=None,
        trigger="app",
        graph="ab" * 32,
        version=1,
        engine=1,
        user="ada",
        conversation=None,
        message=None,
        limits=limits,
        **known,
    )
    found.take(NOW, by="first")
    return found


OPEN: dict[str, Callable[[], Aggregate]] = {
    "ingest": document,
    "sync": edited,
    "answer": conversation,
    "replay": replay,
    "transcribe": transcription,
    "speak": speech,
    "check": provider,
    "refresh": toolset,
    "run": run,
}
"""For each work that ends later, an aggregate on which it has begun."""


def opened(name: str) -> tuple[Aggregate, str]:
    """An aggregate on which the work has begun, and its item."""
    aggregate = OPEN[name]()
    subject = Subject("acme", aggregate.TOPIC, aggregate.id)
    commit = Commit(subject, aggregate.pending(), Metadata(new_id(), "acme", new_id()), Position("EVENTS", 1), NOW)
    [item] = set(WORKS[name].items(commit))
    assert PENDING[name].is_open(aggregate, item)
    return aggregate, item


@pytest.mark.parametrize(("name", "work"), WORKS.items())
def test_an_entry_is_whole(name: str, work: Work) -> None:
    assert work.role in ROLES
    assert name in CONSUMERS
    assert all(issubclass(event, work.noun.Event) for event in work.begins)  # type: ignore[attr-defined]
    if work.pending:
        table = TABLES[work.pending.rows.table]
        assert {work.pending.rows.status, "tenant_id", "id", "updated_at", "log_position"} <= set(table.columns.keys())


def test_works_that_cost_money_are_tried_once() -> None:
    costly = {"answer", "name", "suggest", "query_datasets", "replay", "check", "transcribe", "speak", "refresh", "run"}
    assert {name for name, work in WORKS.items() if work.tries == 1} == costly


def test_every_pending_work_has_an_example() -> None:
    assert OPEN.keys() == PENDING.keys()


@pytest.mark.parametrize("name", PENDING)
def test_what_is_open_fails_and_is_retried_once(name: str) -> None:
    aggregate, item = opened(name)
    pending = PENDING[name]
    pending.fail(aggregate, item, NOW, "internal_error", "It broke.")
    assert not pending.is_open(aggregate, item)
    pending.fail(aggregate, item, NOW, "internal_error", "It broke.")
    assert len(aggregate.pending()) == 1, "nothing is failed twice"
    pending.reopen(aggregate, item, NOW)
    assert pending.is_open(aggregate, item)
    assert aggregate.pending()
    pending.reopen(aggregate, item, NOW)
    assert not aggregate.pending(), "only what failed is retried"


@pytest.mark.parametrize("name", PENDING)
def test_what_has_no_worker_is_retried_three_times_and_then_stays_failed(name: str) -> None:
    aggregate, item = opened(name)
    pending = PENDING[name]
    for _ in range(STALLS):
        pending.stall(aggregate, item, NOW, "No worker has it.")
        assert pending.is_open(aggregate, item)
        failed, _ = aggregate.pending()
        assert (vars(failed)["code"], vars(failed)["reason"]) == ("stalled", "No worker has it.")
    pending.stall(aggregate, item, NOW, "No worker has it.")
    assert not pending.is_open(aggregate, item)
    assert len(aggregate.pending()) == 1
    pending.stall(aggregate, item, NOW, "No worker has it.")
    assert not aggregate.pending(), "what has ended does not stall"
    pending.reopen(aggregate, item, NOW)
    assert pending.is_open(aggregate, item)


def test_a_document_that_is_reprocessed_after_its_run_is_not_retried_as_well() -> None:
    aggregate = document()
    aggregate.start(NOW, stage="parsing")
    aggregate.reprocess(NOW)
    aggregate.pending()
    PENDING["ingest"].stall(aggregate, aggregate.id, NOW, "No worker has it.")
    failed, reprocessed = aggregate.pending()
    assert isinstance(failed, Document.Failed)
    assert failed.stage == "parsing"
    assert isinstance(reprocessed, Document.Reprocessed)


def test_a_message_that_is_too_old_to_be_retried_stays_failed() -> None:
    aggregate = conversation()
    for number in range(HISTORY):
        question: dict[str, Any] = {
            "message": f"m{number}",
            "app": aggregate.app,
            "configuration": 1,
            "query": "How long?",
        }
        aggregate.ask(NOW, **question, inputs={}, user="ada")
    aggregate.pending()
    PENDING["answer"].stall(aggregate, "m", NOW, "No worker has it.")
    [failed] = aggregate.pending()
    assert isinstance(failed, Conversation.Failed)
    with pytest.raises(Rejection):
        PENDING["answer"].reopen(aggregate, "m", NOW)


@pytest.mark.parametrize("name", PENDING)
def test_nothing_of_what_was_deleted_is_reopened(name: str) -> None:
    aggregate, item = opened(name)
    PENDING[name].fail(aggregate, item, NOW, "internal_error", "It broke.")
    aggregate.deleted = True
    aggregate.pending()
    PENDING[name].reopen(aggregate, item, NOW)
    assert not aggregate.pending()
