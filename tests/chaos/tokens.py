"""Watches the tokens of all answers: each of an attempt is sent once, whichever process was killed meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from nats.aio.msg import Msg

from adapters.jetstream.client import Client
from tests.chaos.account import Finding


class Tokens:
    """Some may be missed, since they are not stored; none comes twice."""

    def __init__(self) -> None:
        self.count = 0
        self.findings: list[Finding] = []
        self._seen: dict[tuple[str, int], set[int]] = {}

    @classmethod
    @asynccontextmanager
    async def watched(cls, client: Client) -> AsyncIterator[Tokens]:
        tokens = cls()
        subscription = await client.connection.subscribe(f"live.{client.tenant}.>", cb=tokens._hear)
        yield tokens
        await subscription.unsubscribe()

    async def _hear(self, message: Msg) -> None:
        frame = orjson.loads(message.data)
        if frame["type"] == "token":
            self.take(message.subject.rpartition(".")[2], frame["attempt"], frame["index"])

    def take(self, message: str, attempt: int, index: int) -> None:
        """The next token of an attempt to answer a message."""
        self.count += 1
        seen = self._seen.setdefault((message, attempt), set())
        if index in seen:
            what = f"token {index} of attempt {attempt} at message {message} was sent again"
            self.findings.append(Finding("doubled", what))
        seen.add(index)
