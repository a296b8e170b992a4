"""Runs a role: until it is told to stop, it does its part of the work."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import NoRespondersError
from nats.js.errors import ServiceUnavailableError

from adapters.jetstream.workers.drain import drain
from handlers.ports.log import Unavailable
from ops.roles import wanted
from ops.settings import Settings
from ops.tracing import infrastructure
from ops.wiring import Wiring

log = structlog.get_logger(__name__)

OUTAGES = (Unavailable, TimeoutError, NoRespondersError, ServiceUnavailableError)
"""What passes when a server is back."""

PAUSE_S = 1.0
"""Before a worker that could not begin tries again."""


async def run(role: str, settings: Settings) -> None:
    """Run a role, or `all` that there is work for, until SIGTERM or SIGINT. Raises: what ends a role by itself.

    Told to stop, it takes nothing more and lets answers in hand come to their end, for as long as the settings allow.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    told = asyncio.create_task(stopping.wait())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(infrastructure(settings, role))
        beginning = asyncio.create_task(_begin(stack, settings, role))
        await asyncio.wait((beginning, told), return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            beginning.cancel()
            await asyncio.wait((beginning,))
            return
        wiring, tasks = beginning.result()
        _spare_the_collector()
        card = await _announce(wiring.nc, role)
        log.info("ready", role=role, pid=os.getpid())
        tasks.append(told)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            await card.unsubscribe()
            await drain(wiring.broker, settings.grace_s)
        _cancel(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
    log.info("stopped", role=role)


async def _begin(stack: AsyncExitStack, settings: Settings, role: str) -> tuple[Wiring, list[asyncio.Future[Any]]]:
    """The house, and what its roles do in there; a server that is away is waited for."""
    while True:
        async with AsyncExitStack() as attempt:
            wiring, tasks = Wiring(settings, role), list[asyncio.Future[Any]]()
            attempt.push_async_callback(wiring.open.aclose)
            attempt.callback(_cancel, tasks)
            try:
                await wiring.__aenter__()
                await wiring.keys.start()
                for name in wanted(settings) if role == "all" else [role]:
                    if work := await import_module(f"ops.roles.{name}").begin(wiring):
                        tasks.append(asyncio.ensure_future(work))
                if wiring.broker.subscribers:
                    await wiring.broker.start()
            except OUTAGES as error:
                log.warning("waiting", reason=str(error) or repr(error))
            else:
                stack.push_async_callback(attempt.pop_all().aclose)
                return wiring, tasks
        await asyncio.sleep(PAUSE_S)


def _cancel(tasks: list[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()


def _spare_the_collector() -> None:
    """What was imported stays for good, and messages leave few cycles: looking for them took a third of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _announce(nc: Client, role: str) -> Subscription:
    """Answer on `worker.<role>`, so that others can tell that the role is there."""
    since = datetime.now(UTC).isoformat()
    who = {"role": role, "host": socket.gethostname(), "pid": os.getpid()}
    card = json.dumps({**who, "since": since, "version": version("headrace")}).encode()

    async def answer(message: Msg) -> None:
        await message.respond(card)

    return await nc.subscribe(f"worker.{role}", cb=answer)
