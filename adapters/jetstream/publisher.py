"""Acknowledged publishes to a stream, in two thirds of the time that nats-py takes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from adapters.jetstream.nats_py import Raw, divert

_EXPECTED = "Nats-Expected-Stream"


class Ack(NamedTuple):
    """The sequence of the stored message; `duplicate` where the stream had one with its id already."""

    sequence: int
    duplicate: bool


class Publisher:
    def __init__(self, nc: Client, stream: str, *, timeout_s: float) -> None:
        self._nc = nc
        self._stream = stream
        self._timeout = timeout_s
        self._inbox = nc.new_inbox()
        self._tokens = itertools.count()
        self._open: dict[bytes, asyncio.Future[bytes]] = {}
        self._subscribed = False

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str]) -> Ack:
        """Store a message. Raises: nats.errors.Error, of which APIError is a refusal of the server."""
        if not self._subscribed:
            self._subscribed = True
            divert(await self._nc.subscribe(f"{self._inbox}.*"), self._hear)
        reply = f"{self._inbox}.{next(self._tokens)}"
        answer = self._open[reply.encode()] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout):
                await self._nc.publish(subject, body, reply, {**headers, _EXPECTED: self._stream})
                found = await answer
        except TimeoutError:
            raise nats.errors.TimeoutError from None
        finally:
            del self._open[reply.encode()]
        if not found:  # the status for no responders
            raise NoStreamResponseError
        fields = orjson.loads(found)
        if error := fields.get("error"):
            raise APIError.from_error(error)
        return Ack(fields["seq"], fields.get("duplicate", False))

    def _hear(self, parts: Raw) -> None:
        answer = self._open.get(parts[0])
        if answer and not answer.done():
            answer.set_result(parts[2])
