"""The table of works: every reaction to the log, an entry each.

A consumer of the same name delivers the commits of `noun`. Consumers, dead letters, recovery, audit, `verify`, the SQL
of what is overdue and the worker roles all read this table: a new kind of work is one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.access.account import Account
from domain.access.api_key import ApiKey
from domain.access.bus_login import BusLogin
from domain.access.end_user import EndUser
from domain.access.sql_login import SqlLogin
from domain.aggregate import Aggregate, Event, Rejection
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.chat.speech import Speech
from domain.chat.transcription import Transcription
from domain.knowledge.dataset import Dataset
from domain.knowledge.dataset_query import DatasetQuery
from domain.knowledge.document import Document
from domain.log import Commit
from domain.models.provider import Provider
from domain.models.replay import Replay
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Toolset
from domain.work.dead_letter import DeadLetter
from domain.workflows.run import Run

TRIES = 5
"""Failures of its own after which a message is given up; a server that is down does not count."""

STALLS = 3
"""Number of times that work without a worker is retried automatically."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a read table that are under way: `status` is one of `open`, and the SQL condition `also` holds.

    The first of `open` is the state in which the next attempt has not begun.

    `aggregate`, `attempt`, `correlation` and `person` are SQL expressions over such a row.
    """

    table: str
    status: str
    open: tuple[str, ...]
    also: str = "true"
    aggregate: str = "id"
    attempt: str = "attempt"
    correlation: str = "trace_id"
    person: str = "NULL"

    @property
    def is_whole(self) -> bool:
        """True if a row stands for an aggregate, false if for one of several items in it."""
        return self.aggregate == "id"


@dataclass(frozen=True, slots=True)
class Pending:
    """Functions that follow work that ends later.

    An item is what the work is on: an aggregate, or a message of a conversation. `attempts` is the number of attempts
    so far, `waits` says that the next has not begun, `stalls` is the number of attempts whose worker was lost. `fail`
    takes a code and a reason, and changes only what is open; `retry` is for what `failed`.
    """

    rows: Rows
    is_open: Callable[[Any, str], bool]
    attempts: Callable[[Any, str], int]
    waits: Callable[[Any, str], bool]
    failed: Callable[[Any, str], bool]
    stalls: Callable[[Any, str], int]
    fail: Callable[[Any, str, datetime, str, str], None]
    retry: Callable[[Any, str, datetime], None]
    item: Callable[[Event], str | None] = lambda event: event.originator_id

    def attempt(self, aggregate: Any, item: str) -> int:
        """The number of the attempt in progress, from 1; 0 where none is."""
        return 0 if self.waits(aggregate, item) else self.attempts(aggregate, item)

    def reopen(self, aggregate: Any, item: str, at: datetime) -> None:
        """Retry it if it failed. Raises: Rejection when it cannot be retried any more."""
        if self.failed(aggregate, item) and not aggregate.deleted:
            self.retry(aggregate, item, at)

    def stall(self, aggregate: Any, item: str, at: datetime, reason: str) -> None:
        """It has no worker: retry it, or leave it failed after `STALLS` retries or when it cannot be retried."""
        if self.is_open(aggregate, item):
            self.fail(aggregate, item, at, "stalled", reason)
            if self.stalls(aggregate, item) <= STALLS:
                with suppress(Rejection):
                    self.reopen(aggregate, item, at)


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work.

    `begins`: the events after which there is something to do.
    `role`: the worker role that does it. `slots`: messages that one worker handles at a time, `share`: those of one
    tenant.
    `tries`: failures after which a message is given up; 1 where a try costs money or reaches the outside.
    `calls`: the noun that its model calls name as their cause.
    `watched`: a person waits for it: its end is published as a live frame, and a worker that shuts down finishes what
    it has in flight.
    """

    noun: type[Aggregate]
    begins: tuple[type[Event], ...]
    role: str
    slots: int = 4
    share: int = 1
    tries: int = TRIES
    pending: Pending | None = None
    calls: str | None = None
    watched: bool = False

    def is_begun_by(self, commit: Commit) -> bool:
        """Return whether there is something to do after this commit."""
        return any(isinstance(event, self.begins) for event in commit.events)

    def items(self, commit: Commit) -> Iterator[str]:
        """The items on which this commit begins work."""
        for event in commit.events:
            if self.pending and isinstance(event, self.begins) and (item := self.pending.item(event)):
                yield item


def _message(event: Event) -> str | None:
    return getattr(event, "message", None) if not isinstance(event, Conversation.Forked) else None


INGEST = Pending(
    Rows("documents", "indexing_status", ("waiting", "parsing", "splitting", "indexing")),
    is_open=lambda document, _: not document.ended,
    attempts=lambda document, _: document.attempt,
    waits=lambda document, _: document.status == "waiting",
    fail=lambda document, _, at, code, reason: document.fail(at, stage=document.stage, code=code, reason=reason),
    failed=lambda document, _: document.status == "error",
    stalls=lambda document, _: document.stalls,
    retry=lambda document, _, at: document.retry(at),
)

SYNC = Pending(
    Rows("documents", "index_status", ("changing",), also="indexing_status IN ('completed', 'error')"),
    is_open=lambda document, _: document.ended and document.needs_sync and not document.sync["failed"],
    attempts=lambda document, _: document.sync["changed"],
    waits=lambda document, _: False,
    fail=lambda document, _, at, code, reason: document.fail_sync(at, code=code, reason=reason),
    failed=lambda document, _: document.sync["failed"],
    stalls=lambda document, _: document.stalls,
    retry=lambda document, _, at: document.resume_sync(at),
)

ANSWER = Pending(
    Rows("messages", "status", ("asked", "answering"), aggregate="conversation_id", person="person_id"),
    is_open=lambda conversation, message: not conversation.ended(message) and not conversation.is_held(message),
    attempts=lambda conversation, message: conversation.messages[message]["attempt"],
    waits=lambda conversation, message: conversation.messages[message]["status"] == "asked",
    fail=lambda conversation, message, at, code, reason: conversation.fail(
        at, message=message, code=code, reason=reason, answer=""
    ),
    failed=lambda conversation, message: conversation.messages[message]["status"] == "failed",
    stalls=lambda conversation, message: conversation.messages[message].get("stalls", 0),
    retry=lambda conversation, message, at: conversation.retry(at, message=message),
    item=_message,
)


RUN = Pending(
    Rows("workflow_runs", "status", ("scheduled", "running"), correlation="correlation_id", person="person_id"),
    is_open=lambda run, _: run.status in ("scheduled", "running"),
    attempts=lambda run, _: run.attempt,
    waits=lambda run, _: run.status == "scheduled",
    fail=lambda run, _, at, code, reason: run.fail(at, code=code, reason=reason),
    failed=lambda run, _: run.interrupted,
    stalls=lambda run, _: run.stalls,
    retry=lambda run, _, at: run.retry(at),
)


def _whole(table: str) -> Pending:
    """The functions of an aggregate that is requested, and completes or fails as a whole."""
    return Pending(
        Rows(table, "status", ("requested",), attempt="0", correlation="correlation_id", person="person_id"),
        is_open=lambda noun, _: not noun.ended,
        attempts=lambda noun, _: noun.attempt,
        waits=lambda noun, _: False,
        fail=lambda noun, _, at, code, reason: noun.fail(at, code=code, reason=reason),
        failed=lambda noun, _: noun.status == "failed",
        stalls=lambda noun, _: noun.stalls,
        retry=lambda noun, _, at: noun.retry(at),
    )


CHECK = Pending(
    Rows("providers", "check_status", ("requested",), attempt="0", correlation="check_trace_id"),
    is_open=lambda provider, _: provider.checking,
    attempts=lambda provider, _: 1,
    waits=lambda provider, _: False,
    fail=lambda provider, _, at, code, reason: provider.fail_check(at, code=code, reason=reason),
    failed=lambda provider, _: provider.check_failed,
    stalls=lambda provider, _: provider.check_stalls,
    retry=lambda provider, _, at: provider.retry_check(at),
)


REFRESH = Pending(
    Rows("toolsets", "refresh_status", ("requested",), attempt="0", correlation="refresh_trace_id"),
    is_open=lambda toolset, _: toolset.refreshing,
    attempts=lambda toolset, _: 1,
    waits=lambda toolset, _: False,
    fail=lambda toolset, _, at, code, reason: toolset.fail_refresh(at, code=code, reason=reason),
    failed=lambda toolset, _: toolset.failed,
    stalls=lambda toolset, _: toolset.stalls,
    retry=lambda toolset, _, at: toolset.retry_refresh(at),
)

WORKS: dict[str, Work] = {
    "ingest": Work(
        Document,
        (Document.Uploaded, Document.Retried, Document.Reprocessed),
        role="ingest",
        slots=12,
        share=8,
        pending=INGEST,
        calls="document",
    ),
    "sync": Work(Document, Document.SYNC_BEGINS, role="ingest", slots=12, share=8, pending=SYNC, calls="document"),
    "forget_documents": Work(Document, (Document.Deleted, Document.Replaced), role="ingest", slots=12, share=8),
    "forget_datasets": Work(Dataset, (Dataset.Deleted,), role="ingest"),
    "reindex": Work(Dataset, (Dataset.Configured,), role="ingest", calls="document"),
    "reprocess": Work(Dataset, (Dataset.Reprocessed,), role="ingest"),
    "answer": Work(
        Conversation,
        (Conversation.Asked, Conversation.Retried, Conversation.Resumed),
        role="answer",
        slots=1024,
        share=64,
        tries=1,
        pending=ANSWER,
        calls="message",
        watched=True,
    ),
    "run": Work(
        Run,
        (Run.Started, Run.Answered, Run.TimedOut, Run.Retried, Run.StopRequested),
        role="answer",
        slots=1024,
        share=64,
        tries=1,
        pending=RUN,
        calls="run",
        watched=True,
    ),
    "end_message": Work(Run, (Run.Finished,), role="answer", slots=64, share=8),
    "stop_run": Work(Conversation, (Conversation.StopRequested,), role="answer", slots=64, share=8),
    "resume": Work(
        ToolCall, (ToolCall.Released, ToolCall.Refused, ToolCall.Answered), role="answer", slots=64, share=8
    ),
    "refresh": Work(Toolset, (Toolset.RefreshRequested,), role="answer", slots=16, share=4, tries=1, pending=REFRESH),
    "name": Work(
        Conversation, (Conversation.NamingRequested,), role="answer", slots=64, share=8, tries=1, calls="message"
    ),
    "suggest": Work(
        Conversation,
        (Conversation.SuggestionsRequested,),
        role="answer",
        slots=64,
        share=8,
        tries=1,
        calls="suggestion",
    ),
    "annotate": Work(
        Annotation, (Annotation.Created, Annotation.Edited), role="ingest", slots=8, share=4, calls="annotation"
    ),
    "annotate_all": Work(App, (App.AnnotationReplySet,), role="ingest", calls="annotation"),
    "query_datasets": Work(
        DatasetQuery, (DatasetQuery.Requested,), role="answer", slots=32, share=8, tries=1, calls="dataset"
    ),
    "replay": Work(
        Replay,
        (Replay.Requested, Replay.Retried),
        role="answer",
        slots=64,
        share=8,
        tries=1,
        pending=_whole("replays"),
        calls="replay",
    ),
    "transcribe": Work(
        Transcription,
        (Transcription.Requested, Transcription.Retried),
        role="answer",
        slots=64,
        share=8,
        tries=1,
        pending=_whole("transcriptions"),
        calls="transcription",
        watched=True,
    ),
    "speak": Work(
        Speech,
        (Speech.Requested, Speech.Retried),
        role="answer",
        slots=64,
        share=8,
        tries=1,
        pending=_whole("speeches"),
        calls="speech",
        watched=True,
    ),
    "check": Work(
        Provider,
        (Provider.CheckRequested,),
        role="answer",
        slots=16,
        share=4,
        tries=1,
        pending=CHECK,
        calls="provider",
    ),
    "admit": Work(BusLogin, (BusLogin.Opened, BusLogin.Issued, BusLogin.Closed), role="commands"),
    "admit_key": Work(ApiKey, (ApiKey.Created,), role="commands"),
    "admit_sql": Work(SqlLogin, (SqlLogin.Created, SqlLogin.Revoked), role="project"),
    "erase_account": Work(Account, (Account.Erased,), role="commands"),
    "end_sessions": Work(Account, Account.ENDS_SESSIONS, role="commands"),
    "erase": Work(EndUser, (EndUser.Erased,), role="project"),
    "retry_dead_letters": Work(DeadLetter, (DeadLetter.Retried, DeadLetter.Discarded), role="commands"),
}
"""By the name of the durable consumer."""

PENDING: dict[str, Pending] = {name: work.pending for name, work in WORKS.items() if work.pending}
"""The works that end later, by name."""

WAITING: Mapping[str, str] = {"messages": "answer", "documents": "ingest", "replays": "replay"}
"""The work that begins for one of a quantity that may wait, by quantity."""


def callers(cause: str) -> list[str]:
    """The works whose model calls name this noun as their cause."""
    return [name for name, work in WORKS.items() if work.calls == cause]
