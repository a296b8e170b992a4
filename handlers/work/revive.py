"""Revives a dead letter, or lets it go."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Commit, Metadata, commit_id
from domain.models.replay import Replay
from domain.work.dead_letter import DeadLetter
from handlers.ports.log import DeadLetters
from handlers.repository import Repository


class Revive:
    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def __call__(self, commit: Commit) -> None:
        """React to a letter that is to be retried or discarded. Raises: Unavailable, to be called again."""
        letter = commit.subject.id
        for event in commit.events:
            if isinstance(event, DeadLetter.Retried) and event.consumer == "commands":
                await self._letters.send_again(event.consumer, letter, commit_id(commit.metadata.id, "again"))
            if isinstance(event, DeadLetter.Retried | DeadLetter.Discarded):
                await self._letters.remove(event.consumer, letter, commit.at)


async def reopen(repository: Repository, consumer: str, commit: Commit, cause: Metadata) -> bool:
    """Whether work on something began with this commit: then that is to be done again, if it failed.

    Raises: Unavailable.
    """
    id, at, began = commit.subject.id, datetime.now(UTC), False
    metadata = cause.caused(commit_id(cause.id, f"{id}:reopened"))
    for event in commit.events:
        match consumer, event:
            case "ingest", Document.Uploaded() | Document.Retried() | Document.Reprocessed():
                began = True
                await repository.change(Document, id, metadata, partial(_retry_document, at=at))
            case "settle", _:
                began = True
                await repository.change(Document, id, metadata, partial(_resume_document, at=at))
            case "answer", Conversation.Asked() | Conversation.Retried():
                began = True
                retry = partial(_retry_message, at=at, message=event.message)
                await repository.change(Conversation, id, metadata, retry)
            case "replay", Replay.Requested() | Replay.Retried():
                began = True
                await repository.change(Replay, id, metadata, partial(_retry_replay, at=at))
    return began


def _retry_document(document: Document | None, at: datetime) -> Document:
    assert document is not None
    if document.status == "error" and not document.deleted:
        document.retry(at)
    return document


def _resume_document(document: Document | None, at: datetime) -> Document:
    assert document is not None
    document.resume_sync(at)
    return document


def _retry_replay(replay: Replay | None, at: datetime) -> Replay:
    assert replay is not None
    if replay.status == "failed":
        replay.retry(at)
    return replay


def _retry_message(conversation: Conversation | None, at: datetime, message: str) -> Conversation:
    assert conversation is not None
    if conversation.messages[message]["status"] == "failed" and not conversation.deleted:
        conversation.retry(at, message=message)
    return conversation
