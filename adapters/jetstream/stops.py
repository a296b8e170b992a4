"""Notices of requests to stop an answer, of changes to runs, and of erased people, as they are committed.

The log's messages also pass on plain NATS.
"""

from __future__ import annotations

import asyncio

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream.nats_py import Raw, divert
from domain.chat.conversation import Conversation
from domain.workflows.run import Run

_STOP = Conversation.StopRequested.TOPIC
_STATED = _STOP.encode()

_CHANGES = tuple(event.TOPIC.encode() for event in (Run.StopRequested, Run.Answered, Run.TimedOut))


class NatsStops:
    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._watched: dict[tuple[str, str, str], tuple[asyncio.Event, str | None]] = {}

    async def start(self) -> None:
        divert(await self._nc.subscribe("evt.*.conversation.*"), self._hear)
        divert(await self._nc.subscribe("evt.*.run.*"), self._hear_of_run)
        await self._nc.subscribe("evt.*.end_user.*", cb=self._hear_of_erased)

    def watch(self, tenant: str, conversation: str, message: str, *, person: str | None = None) -> asyncio.Event:
        return self._watched.setdefault((tenant, conversation, message), (asyncio.Event(), person))[0]

    def unwatch(self, tenant: str, conversation: str, message: str) -> None:
        self._watched.pop((tenant, conversation, message), None)

    def _hear(self, parts: Raw) -> None:
        subject, _, data, headers = parts
        if not self._watched or _STATED not in headers:
            return
        _, tenant, _, conversation = subject.decode().split(".")
        for event in orjson.loads(data):
            watched = self._watched.get((tenant, conversation, event["state"].get("message")))
            if watched and event["type"] == _STOP:
                watched[0].set()

    def _hear_of_run(self, parts: Raw) -> None:
        subject, _, _, headers = parts
        if self._watched and any(topic in headers for topic in _CHANGES):
            _, tenant, _, run = subject.decode().split(".")
            if watched := self._watched.get((tenant, run, run)):
                watched[0].set()

    async def _hear_of_erased(self, message: Msg) -> None:
        _, tenant, _, erased = message.subject.split(".")
        for (whose, _, _), (stop, person) in self._watched.items():
            if (whose, person) == (tenant, erased):
                stop.set()
