"""Removes the words of an erased person from messages stored as they came: dead letters and commands."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.message import Message
from adapters.jetstream.raw import RawStream
from adapters.jetstream.streams import COMMANDS, DEAD
from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Position
from handlers.commands.fields import is_uuid
from handlers.ports.log import Unavailable
from handlers.repository import Repository

log = structlog.get_logger(__name__)

PATIENCE_S = 5.0
"""Maximum wait, in seconds, for a moment in which no command is in progress."""

LOOKS_S = 0.02


class JetStreamScrub:
    """`ours`: the server is the embedded one; on another, only its administrator may purge a stream."""

    def __init__(self, nc: Client, repository: Repository, keys: JetStreamKeys, *, ours: bool) -> None:
        self._nc = nc
        self._keys = keys
        self._ours = ours
        self._js = nc.jetstream()
        self._repository = repository

    async def dead_letters(self, tenant: str, person: str, erased: Position) -> None:
        """Remove the dead letters with words of the person, as far as they can be identified. Raises: Unavailable."""
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
        """Delete handled commands from the disk: acknowledged messages stay in their file until it is removed.

        Raises: Unavailable, when commands are always in progress.
        """
        if not self._ours:
            log.warning("not scrubbed", reason="the NATS server is not ours", advice="see docs/privacy.md")
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self._freed():
                    await asyncio.sleep(LOOKS_S)
        except TimeoutError as error:
            raise Unavailable("Commands are always in progress: files of COMMANDS cannot be removed yet.") from error
        except nats.errors.Error as error:
            raise Unavailable(f"COMMANDS cannot be freed: {error!r}") from error

    async def _freed(self) -> bool:
        state = (await self._js.stream_info(COMMANDS)).state
        if state.messages:
            return False
        # Messages that arrived since the check have a greater sequence, and stay.
        await self._js.purge_stream(COMMANDS, seq=state.last_seq + 1)
        return True

    async def _is_of(self, message: Message, tenant: str, person: str) -> bool:
        headers = message.headers
        if headers.get("Headrace-Letter-Subject", "").split(".")[1:2] != [tenant]:
            return False
        if headers.get("Headrace-Person") == person:
            return True
        fields = _fields(message.body)
        user = fields.get("user", "anonymous" if "query" in fields else None)
        if isinstance(user, str):
            return await self._keys.is_person(tenant, user, person)
        for noun in (Conversation, Document):
            id = str(fields.get(noun.TOPIC))
            if is_uuid(id):
                first = await self._repository.first(noun, tenant, id)
                if first and first.metadata.person == person:
                    return True
        return False


def _fields(body: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        if isinstance(found := orjson.loads(body), dict):
            return found
    return {}
