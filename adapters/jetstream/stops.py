"""Hears of requests to stop an answer as they are committed: the log's messages also pass by on plain NATS."""

from __future__ import annotations

import asyncio

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.conversation import Conversation

_STOP = Conversation.StopRequested.TOPIC


class NatsStops:
    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._watched: dict[tuple[str, str, str], asyncio.Event] = {}

    async def start(self) -> None:
        await self._nc.subscribe("evt.*.conversation.*", cb=self._hear)

    def watch(self, tenant: str, conversation: str, message: str) -> asyncio.Event:
        return self._watched.setdefault((tenant, conversation, message), asyncio.Event())

    def unwatch(self, tenant: str, conversation: str, message: str) -> None:
        self._watched.pop((tenant, conversation, message), None)

    async def _hear(self, message: Msg) -> None:
        if not self._watched or _STOP not in (message.headers or {}).get("Headrace-Types", ""):
            return
        _, tenant, _, conversation = message.subject.split(".")
        for event in orjson.loads(message.data):
            stop = self._watched.get((tenant, conversation, event["state"].get("message")))
            if stop and event["type"] == _STOP:
                stop.set()
