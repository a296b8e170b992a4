"""Takes words of a person who was erased out of where they lie as they came: dead letters, and commands."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from adapters.jetstream.message import Message
from adapters.jetstream.raw import RawStream
from adapters.jetstream.streams import COMMANDS, DEAD
from domain.access.end_user import person_id
from domain.chat.conversation import Conversation
from domain.log import Position
from handlers.ports.log import Unavailable
from handlers.repository import Repository

log = structlog.get_logger(__name__)

PATIENCE_S = 5.0
"""For so long a moment is waited for in which no command is under way."""

LOOKS_S = 0.02

ERASURES = 100
"""So many people of one name are told apart in what was never understood."""


class JetStreamScrub:
    """`ours` says that the server is: files of another are left to its administrator, who alone may purge a stream."""

    def __init__(self, nc: Client, repository: Repository, *, ours: bool) -> None:
        self._nc = nc
        self._ours = ours
        self._js = nc.jetstream()
        self._repository = repository

    async def dead_letters(self, tenant: str, person: str, erased: Position) -> None:
        """Remove the dead letters with words of the person, as far as it can be known. Raises: Unavailable."""
        stream = RawStream(self._nc, DEAD, "dead.>")
        found: list[int] = []
        async with aclosing(stream.read(0, await stream.last())) as chunks:
            async for messages in chunks:
                found += [message.sequence for message in messages if await self._is_of(message, tenant, person)]
        for sequence in found:
            try:
                with suppress(NotFoundError):
                    await self._js.delete_msg(DEAD, sequence)
            except nats.errors.Error as error:
                raise Unavailable(f"The dead letters cannot be removed: {error!r}") from error

    async def commands(self, tenant: str, person: str, erased: Position) -> None:
        """Free the disk of commands that were handled: what is acknowledged stays in its file until that is removed.

        Raises: Unavailable, when commands are always under way.
        """
        if not self._ours:
            log.warning("not scrubbed", reason="the NATS server is not ours", advice="see docs/privacy.md")
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self._freed():
                    await asyncio.sleep(LOOKS_S)
        except TimeoutError as error:
            raise Unavailable("There are always commands under way: files of COMMANDS cannot be freed yet.") from error
        except nats.errors.Error as error:
            raise Unavailable(f"COMMANDS cannot be freed: {error!r}") from error

    async def _freed(self) -> bool:
        state = (await self._js.stream_info(COMMANDS)).state
        if state.messages:
            return False
        # What has come since the look has a greater sequence, and stays.
        await self._js.purge_stream(COMMANDS, seq=state.last_seq + 1)
        return True

    async def _is_of(self, message: Message, tenant: str, person: str) -> bool:
        told = message.headers
        if told.get("Headrace-Letter-Subject", "").split(".")[1:2] != [tenant]:
            return False
        if told.get("Headrace-Person") == person:
            return True
        fields = _fields(message.body)
        if isinstance(user := fields.get("user", "anonymous"), str) and "query" in fields:
            return person in (person_id(user, erasures) for erasures in range(ERASURES))
        if isinstance(conversation := fields.get("conversation"), str):
            first = await self._repository.first(Conversation, tenant, conversation)
            return first is not None and first.metadata.person == person
        return False


def _fields(body: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        if isinstance(found := orjson.loads(body), dict):
            return found
    return {}
