"""Dead letters: gives up messages that keep failing, and retries or discards them when an operator asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from domain.access.tenant import TENANT
from domain.aggregate import Aggregate
from domain.log import Commit, Metadata, Position, commit_id
from domain.work.dead_letter import DeadLetter, FailureFields, dead_letter_id
from handlers.ports.log import DeadLetters, Live, Unavailable
from handlers.repository import Repository
from handlers.work.work import WORKS, Work

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a consumer gives up a message, which is at `position` of its stream.

    `failures` counts its own errors, `deaths` the workers that died with it. `where` is the last line of code of the
    last error and `stack` a digest of all lines; both are empty after a death.
    """

    consumer: str
    position: Position
    subject: str
    reason: str
    where: str
    stack: str
    failures: int
    deaths: int


class GiveUp:
    def __init__(self, repository: Repository, live: Live) -> None:
        self._repository = repository
        self._live = live

    async def __call__(self, message: Metadata, failure: Failure, commit: Commit | None = None) -> None:
        """Record a message as a dead letter, and fail the work that `commit`, its content, has begun.

        Those who watch the work get the frame `failed`. Raises: Unavailable.
        """
        if TENANT.fullmatch(message.tenant):
            await self._record(message, failure)
        if commit and (work := WORKS.get(failure.consumer)):
            await self._fail(work, commit, failure)

    async def _fail(self, work: Work, commit: Commit, failure: Failure) -> None:
        failed = False

        def fail(aggregate: Aggregate, item: str, at: datetime) -> None:
            nonlocal failed
            assert work.pending
            failed = work.pending.is_open(aggregate, item)
            work.pending.fail(aggregate, item, at, "internal_error", failure.reason)

        for item in work.items(commit):
            failed = False
            try:
                await _change(self._repository, work.noun, commit, commit.metadata, "buried", item, fail)
            except Unavailable:
                raise
            except Exception:
                log.exception("work not failed", work=failure.consumer, subject=str(commit.subject))
            else:
                if failed and work.watched:
                    frame = {"type": "failed", "code": "internal_error", "reason": failure.reason}
                    await self._live.publish(commit.subject.tenant, commit.subject.id, item, frame)

    async def _record(self, message: Metadata, failure: Failure) -> None:
        id, at = dead_letter_id(failure.consumer, message.tenant, message.id), datetime.now(UTC)
        stream, sequence = failure.position
        fields = FailureFields(
            sequence=sequence,
            reason=failure.reason,
            where=failure.where,
            stack=failure.stack,
            failures=failure.failures,
            deaths=failure.deaths,
        )

        def decide(letter: DeadLetter | None) -> DeadLetter:
            if letter is None:
                return DeadLetter.begin(
                    DeadLetter.Buried,
                    id,
                    at,
                    consumer=failure.consumer,
                    stream=stream,
                    subject=failure.subject,
                    message=message.id,
                    **fields,
                )
            letter.come_back(at, **fields)
            return letter

        cause = message.caused(commit_id(message.id, f"{id}:{sequence}"))
        await self._repository.change(DeadLetter, id, cause, decide)


class RetryDeadLetters:
    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def __call__(self, commit: Commit) -> None:
        """Send a command again whose dead letter is retried, and drop what is kept of it. Raises: Unavailable.

        Other consumers get the commit of their dead letter again by `reopen`.
        """
        letter = commit.subject.id
        for event in commit.events:
            if isinstance(event, DeadLetter.Retried) and event.consumer == "commands":
                await self._letters.send_again(event.consumer, letter)
            if isinstance(event, DeadLetter.Retried | DeadLetter.Discarded):
                await self._letters.remove(event.consumer, letter, commit.at)


async def reopen(repository: Repository, consumer: str, commit: Commit, cause: Metadata) -> bool:
    """Retry the work that this commit has begun, if it failed; return whether it had begun any. Raises: Unavailable."""
    work = WORKS[consumer]
    items = list(work.items(commit))
    for item in items:
        assert work.pending
        await _change(repository, work.noun, commit, cause, "reopened", item, work.pending.reopen)
    return bool(items)


async def _change(
    repository: Repository,
    kind: type[Aggregate],
    commit: Commit,
    cause: Metadata,
    step: str,
    item: str,
    verb: Callable[[Any, str, datetime], None],
) -> None:
    at = datetime.now(UTC)

    def decide(aggregate: Aggregate | None) -> Aggregate:
        assert aggregate is not None
        verb(aggregate, item, at)
        return aggregate

    id = commit.subject.id
    metadata = cause.caused(commit_id(cause.id, f"{id}:{step}"))
    await repository.change(kind, id, metadata, decide)
