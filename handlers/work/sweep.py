"""Sweeps: what waits and is in nobody's hands is put back to work, or brought to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Metadata, commit_id
from domain.models.model_call import ModelCall
from domain.models.replay import Replay
from handlers.ports.log import Unavailable, Wait
from handlers.repository import Repository

log = structlog.get_logger(__name__)

PERIOD_S = 10.0
"""Between two sweeps."""

DEADLINE_S = 60.0
"""For so long nothing has to happen to what is in nobody's hands."""


def forsaken(waits: Sequence[Wait], done: Mapping[str, int]) -> list[Wait]:
    """The waits that no consumer will move any more: all who might are done with what came up to `done`."""
    return [wait for wait in waits if all(wait.position <= done.get(consumer, 0) for consumer in wait.consumers)]


class Sweep:
    def __init__(
        self,
        repository: Repository,
        overdue: Callable[[], Awaitable[Sequence[Wait]]],
        done: Callable[[], Awaitable[Mapping[str, int]]],
    ) -> None:
        self._repository = repository
        self._overdue = overdue
        self._done = done

    async def __call__(self) -> list[Wait]:
        """Sweep once; gives what was put back to work or ended. Raises: Unavailable."""
        done = await self._done()  # before the tables: what comes later is in someone's hands
        waits = forsaken(await self._overdue(), done)
        for wait in waits:
            log.warning("sweep", noun=wait.noun, tenant=wait.tenant, id=wait.id, status=wait.status)
            try:
                await self._end(wait)
            except Unavailable:
                raise
            except Exception:
                log.exception("sweep failed", noun=wait.noun, tenant=wait.tenant, id=wait.id)
        return waits

    async def _end(self, wait: Wait) -> None:
        at = datetime.now(UTC)
        cause = Metadata(
            commit_id(wait.id, f"swept:{wait.position}"),
            wait.tenant,
            wait.correlation,
            wait.correlation,
            "sweeper",
            person=wait.person,
        )
        reason = f"Nobody has worked at it since {wait.since.isoformat(timespec='seconds')}."
        match wait.noun:
            case "document":
                await self._repository.change(
                    Document, wait.id, cause, lambda known: _stall_document(known, wait, at, reason)
                )
            case "settling":
                await self._repository.change(
                    Document, wait.id, cause, lambda known: _stall_settling(known, wait, at, reason)
                )
            case "message":
                await self._repository.change(
                    Conversation, str(wait.conversation), cause, lambda known: _stall_message(known, wait, at, reason)
                )
            case "replay":
                await self._repository.change(
                    Replay, wait.id, cause, lambda known: _stall_replay(known, wait, at, reason)
                )
            case "model_call":
                await self._repository.change(ModelCall, wait.id, cause, lambda known: _lose(known, at))


def _stall_document(document: Document | None, wait: Wait, at: datetime, reason: str) -> Document:
    assert document is not None
    if document.modified_on <= wait.since:
        document.stall(at, reason=reason)
    return document


def _stall_settling(document: Document | None, wait: Wait, at: datetime, reason: str) -> Document:
    assert document is not None
    if document.modified_on <= wait.since:
        document.stall_sync(at, reason=reason)
    return document


def _stall_message(conversation: Conversation | None, wait: Wait, at: datetime, reason: str) -> Conversation:
    assert conversation is not None
    known = conversation.messages[wait.id]
    if (known["status"], known["attempt"]) == (wait.status, wait.attempt):
        conversation.stall(at, message=wait.id, reason=reason)
    return conversation


def _stall_replay(replay: Replay | None, wait: Wait, at: datetime, reason: str) -> Replay:
    assert replay is not None
    if replay.modified_on <= wait.since:
        replay.stall(at, reason=reason)
    return replay


def _lose(call: ModelCall | None, at: datetime) -> ModelCall:
    assert call is not None
    reason = "The worker died with the call in flight, and what it was made for has ended."
    call.fail(at, code="lost", reason=reason, response="", duration_ms=None)
    return call
