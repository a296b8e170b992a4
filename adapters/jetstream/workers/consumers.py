"""The durable consumers of a worker, and the messages that it has: handled ones and those that wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream import nats_py
from adapters.jetstream.nats_py import Raw
from adapters.jetstream.workers.pull import Pull

log = structlog.get_logger(__name__)

CLOSING_S = 5.0
"""Maximum time for giving back messages, and for closing the connection, in seconds."""


class Lease(Protocol):
    """Handles the messages of a consumer."""

    stream: str
    name: str

    def concerns(self, headers: bytes) -> bool:
        """Return whether a message with these headers must be handled; others are acknowledged at once."""
        ...

    async def take(self, message: Msg, begun: Callable[[], None]) -> None:
        """Handle a message, and call `begun` when it is its turn; hand it back when cancelled."""
        ...

    async def hand_back(self, message: Msg) -> None:
        """Return the message to the server for another worker."""
        ...


class Consumers:
    """Durable consumers on a connection of their own.

    When they shut down, they take no more messages, finish those that a person waits for, and hand back the rest.
    """

    def __init__(self, servers: str | list[str], **options: Any) -> None:
        """Options are those of `nats.connect`."""
        self._servers = servers
        self._options = options
        self._leases: list[tuple[Lease, bool]] = []
        self._pulls: list[Pull] = []
        self._nc: Client | None = None
        self._draining = False
        self._messages: dict[asyncio.Task[None], bool] = {}
        self.alone = asyncio.Lock()
        """Held by the one handler of this process that takes a message which may kill it."""

    def add(self, lease: Lease, *, finishes: bool) -> None:
        """Have `lease` handle the messages of its consumer. With `finishes`, those whose turn has come may finish
        within the grace period of a shutdown."""
        self._leases.append((lease, finishes))

    async def start(self) -> None:
        """Connect, and take messages; do nothing where there is no consumer. Raises: errors of `nats.connect`."""
        if not self._leases:
            return
        self._nc = await nats_py.connect(self._servers, **self._options)
        for lease, finishes in self._leases:
            pull = Pull(self._nc, lease.stream, lease.name, self._taking(self._nc, lease, finishes))
            self._pulls.append(pull)
            await pull.start()

    async def drain(self, grace_s: float) -> None:
        """Take no more messages; hand back at once those that need not finish, and after `grace_s` seconds the rest."""
        await self._close()
        await asyncio.sleep(0)  # a task that is cancelled before it begins would hand back nothing
        await self._cancel([task for task, finishes in self._messages.items() if not finishes])
        if self._messages:
            log.info("draining", in_flight=len(self._messages), grace_s=grace_s)
            await asyncio.wait(list(self._messages), timeout=grace_s)
        await self._cancel(list(self._messages))

    async def stop(self) -> None:
        """Hand back all messages, and close the connection."""
        await self.drain(0)
        if self._nc:
            with suppress(nats.errors.Error, TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    await self._nc.flush()
            await self._nc.close()
            self._nc = None

    def _taking(self, nc: Client, lease: Lease, finishes: bool) -> Callable[[Raw], None]:
        def take(parts: Raw) -> None:
            if lease.concerns(parts[3]):
                task = asyncio.create_task(self._handle(lease, nats_py.whole(nc, parts), finishes))
            else:
                task = asyncio.create_task(_acknowledge(nc, parts[1].decode()))
            self._messages[task] = False
            task.add_done_callback(self._messages.pop)

        return take

    async def _handle(self, lease: Lease, message: Msg, finishes: bool) -> None:
        task = asyncio.current_task()
        assert task is not None

        def begun() -> None:
            self._messages[task] = finishes

        try:
            await (lease.hand_back(message) if self._draining else lease.take(message, begun))
        except Exception:  # such as a connection that is closed: the message comes again
            log.exception("message left", consumer=lease.name, subject=message.subject)

    async def _close(self) -> None:
        self._draining = True
        with suppress(nats.errors.Error, TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await asyncio.gather(*(pull.end() for pull in self._pulls))
        self._pulls.clear()

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            log.info("handed back", messages=len(tasks))
            await asyncio.wait(tasks, timeout=CLOSING_S)


async def _acknowledge(nc: Client, reply: str) -> None:
    with suppress(nats.errors.Error):  # a message whose acknowledgement is lost comes again
        await nc.publish(reply)
