"""Messages of a durable consumer as they come: a worker asks for many at a time, and again when it has them.

nats-py does not parse them: most concern another worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from adapters.jetstream import nats_py
from adapters.jetstream.bulk import request_bytes
from adapters.jetstream.nats_py import Raw

BATCH = 256
"""Messages that are asked for at a time, at most."""

EXPIRES_S = 30.0
"""Time after which the server ends a request that it could not fill, in seconds."""

HEARTBEAT_S = 2.0
"""Interval of the server's signs of life, in seconds; without two of them, the request is lost, and is made again."""

CHECK_S = 0.5
"""Interval of looking whether the request is lost, in seconds."""

PAUSE_S = 0.5
"""Pause after the server has refused a request, such as while a consumer has no leader, in seconds."""

HEARTBEAT, EMPTY, EXPIRED, ENDED = "100", "404", "408", "409"
"""Statuses from the server; all but the first end a request."""

FULL = (b"Batch Completed", b"MaxBytes")
"""Parts of the descriptions with which the server ends a request that has got all that it asked for."""


class Pull:
    """Pulls messages of the consumer `name` of a stream, and gives each to `take`, which must not wait."""

    def __init__(self, nc: Client, stream: str, name: str, take: Callable[[Raw], None]) -> None:
        self._nc = nc
        self._subject = f"{nats_py.api(nc)}.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._take = take
        self._inbox = nc.new_inbox().encode()
        self._subscription: Subscription | None = None
        self._asking: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._left = 0
        self._number = 0
        self._heard = 0.0
        self._refused = False

    async def start(self) -> None:
        self._subscription = await self._nc.subscribe(f"{self._inbox.decode()}.*")
        nats_py.divert(self._subscription, self._hear)
        self._asking = asyncio.create_task(self._ask_again_and_again())

    async def end(self) -> None:
        """Ask for nothing more, and give what the server has sent already. Raises: nats.errors.Error."""
        if self._asking:
            self._asking.cancel()
        if self._subscription:
            await self._subscription.drain()  # type: ignore[no-untyped-call]

    def _hear(self, parts: Raw) -> None:
        self._heard = time.monotonic()
        subject, *_, headers = parts
        if not subject.startswith(self._inbox):
            self._left -= 1
            if not self._left:
                self._over.set()
            self._take(parts)
        elif subject.endswith(b".%d" % self._number) and (status := nats_py.status(parts)) != HEARTBEAT:
            full = status == ENDED and any(it in headers for it in FULL)
            self._refused = not full and status not in (EMPTY, EXPIRED)
            self._over.set()

    async def _ask_again_and_again(self) -> None:
        while True:
            connections = self._nc.stats["reconnects"]
            await self._ask()
            while self._is_open() and connections == self._nc.stats["reconnects"]:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_S):
                        await self._over.wait()
            if self._refused:
                await asyncio.sleep(PAUSE_S)

    def _is_open(self) -> bool:
        return not self._over.is_set() and time.monotonic() - self._heard < 2.5 * HEARTBEAT_S

    async def _ask(self) -> None:
        self._number += 1
        self._left, self._heard, self._refused = BATCH, time.monotonic(), False
        self._over.clear()
        request = {
            "batch": BATCH,
            "max_bytes": request_bytes(self._nc),
            "expires": int(EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        with suppress(nats.errors.Error):  # the connection is away: it is asked again
            await self._nc.publish(self._subject, orjson.dumps(request), reply=f"{self._inbox.decode()}.{self._number}")
