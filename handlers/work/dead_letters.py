"""Buries a message that nobody could handle: puts it on record, and ends what waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog

from domain.aggregate import Aggregate
from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Commit, Metadata, Position, commit_id
from domain.models.replay import Replay
from domain.work.dead_letter import DeadLetter, Failure, dead_letter_id
from handlers.dispatch import TENANT
from handlers.ports.log import Unavailable
from handlers.repository import Repository

log = structlog.get_logger(__name__)

A = TypeVar("A", bound=Aggregate)


@dataclass(frozen=True, slots=True)
class Death:
    """What a message of a consumer died of, where it stood in its stream; `where` and `stack` are of the last failure,
    empty when its workers died."""

    consumer: str
    position: Position
    subject: str
    reason: str
    where: str
    stack: str
    failures: int
    deaths: int


class Bury:
    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def __call__(self, message: Metadata, death: Death, commit: Commit | None = None) -> None:
        """Bury the message that is described by its metadata; `commit` is what it says, if it is one.

        Raises: Unavailable, to be called again.
        """
        if TENANT.fullmatch(message.tenant):
            await self._put_on_record(message, death)
        if commit:
            try:
                await self._end(commit, death)
            except Unavailable:
                raise
            except Exception:
                log.exception("what waits cannot be ended", subject=str(commit.subject))

    async def _put_on_record(self, message: Metadata, death: Death) -> None:
        id, at = dead_letter_id(death.consumer, message.tenant, message.id), datetime.now(UTC)
        stream, sequence = death.position
        failure = Failure(
            sequence=sequence,
            reason=death.reason,
            where=death.where,
            stack=death.stack,
            failures=death.failures,
            deaths=death.deaths,
        )

        def decide(letter: DeadLetter | None) -> DeadLetter:
            if letter is None:
                letter = DeadLetter.begin(
                    DeadLetter.Buried,
                    id,
                    at,
                    consumer=death.consumer,
                    stream=stream,
                    subject=death.subject,
                    message=message.id,
                    **failure,
                )
            else:
                letter.come_back(at, **failure)
            return letter

        cause = message.caused(commit_id(message.id, f"{id}:{sequence}"))
        await self._repository.change(DeadLetter, id, cause, decide)

    async def _end(self, commit: Commit, death: Death) -> None:
        """Let what waits for the commit fail."""
        reason = death.reason
        for event in commit.events:
            match death.consumer, event:
                case "ingest", Document.Uploaded() | Document.Retried() | Document.Reprocessed():
                    await self._change(Document, commit, partial(_fail_document, reason=reason))
                case "settle", _:
                    fail_sync = partial(Document.fail_sync, code="internal_error", reason=reason)
                    await self._change(Document, commit, fail_sync)
                case "answer", Conversation.Asked() | Conversation.Retried():
                    fail = partial(
                        Conversation.fail, message=event.message, code="internal_error", reason=reason, answer=""
                    )
                    await self._change(Conversation, commit, fail)
                case "replay", Replay.Requested() | Replay.Retried():
                    await self._change(Replay, commit, partial(Replay.fail, code="internal_error", reason=reason))

    async def _change(self, kind: type[A], commit: Commit, verb: Callable[[A, datetime], None]) -> None:
        cause = commit.metadata.caused(commit_id(commit.metadata.id, f"{commit.subject.id}:buried"))
        at = datetime.now(UTC)

        def decide(known: A | None) -> A:
            assert known is not None
            verb(known, at)
            return known

        await self._repository.change(kind, commit.subject.id, cause, decide)


def _fail_document(document: Document, at: datetime, *, reason: str) -> None:
    document.fail(at, stage=document.stage, code="internal_error", reason=reason)
