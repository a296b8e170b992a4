"""Runs a role: until it is told to stop, it does its part of the work."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
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
from ops.roles import READS_ONLY, wanted
from ops.settings import Settings
from ops.tracing import infrastructure
from ops.wiring import Wiring

log = structlog.get_logger(__name__)

OUTAGES = (Unavailable, TimeoutError, NoRespondersError, ServiceUnavailableError)
"""What passes when a server is back."""

PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 1.0, 30.0, 60.0
"""Before what could not begin tries again; a role of `all` doubles its pause, unless it ran for so long."""

ALL = "all"
"""All roles in one process."""


async def run(role: str, settings: Settings) -> None:
    """Run a role, or `all` that there is work for, until SIGTERM or SIGINT. Raises: what ends a role by itself.

    Told to stop, it takes nothing more and lets answers in hand come to their end, for as long as the settings allow.
    Of `all`, a role that ends by itself is begun again after a pause, and the others go on.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with infrastructure(settings, role):
        if role == ALL:
            await _all(settings, stopping)
        else:
            await _one(role, settings, stopping)
    log.info("stopped", role=role)


async def _all(settings: Settings, stopping: asyncio.Event) -> None:
    """Each role has a house of its own, so that one can end without the others."""
    begun = {role: asyncio.Event() for role in wanted(settings)}
    roles = [asyncio.create_task(_again(role, settings, stopping, event)) for role, event in begun.items()]
    beginning = asyncio.create_task(_all_begun(begun.values()))
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait((beginning, told), return_when=asyncio.FIRST_COMPLETED)
    _cancel([beginning, told])
    if stopping.is_set():
        await asyncio.gather(*roles)
        return
    async with Wiring(settings, ALL) as wiring:
        card = await _announce(wiring.nc, ALL)
        log.info("ready", role=ALL, pid=os.getpid())
        await stopping.wait()
        await card.unsubscribe()
        await asyncio.gather(*roles)


async def _all_begun(begun: Iterable[asyncio.Event]) -> None:
    for event in begun:
        await event.wait()


async def _again(role: str, settings: Settings, stopping: asyncio.Event, begun: asyncio.Event) -> None:
    """Run a role until it is told to stop, and begin it again when it ends by itself."""
    pause = PAUSE_S
    while not stopping.is_set():
        since = asyncio.get_running_loop().time()
        try:
            await _one(role, settings, stopping, begun)
        except Exception as error:
            begun.set()  # or not: the others are not kept waiting
            if asyncio.get_running_loop().time() - since > STEADY_S:
                pause = PAUSE_S
            log.exception("failed", role=role, reason=str(error) or repr(error), again_in_s=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


async def _one(role: str, settings: Settings, stopping: asyncio.Event, begun: asyncio.Event | None = None) -> None:
    told = asyncio.create_task(stopping.wait())
    async with AsyncExitStack() as stack:
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
        if begun:
            begun.set()
        tasks.append(told)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            await card.unsubscribe()
            if not wiring.reads_only:
                await drain(wiring.broker, settings.grace_s)
        _cancel(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


async def _begin(stack: AsyncExitStack, settings: Settings, role: str) -> tuple[Wiring, list[asyncio.Future[Any]]]:
    """The house, and what the role does in there; a server that is away is waited for."""
    while True:
        async with AsyncExitStack() as attempt:
            wiring, tasks = Wiring(settings, role, reads_only=role in READS_ONLY), list[asyncio.Future[Any]]()
            attempt.push_async_callback(wiring.open.aclose)
            attempt.callback(_cancel, tasks)
            try:
                await wiring.__aenter__()
                if not wiring.reads_only:
                    await wiring.keys.start()
                if work := await import_module(f"ops.roles.{role}").begin(wiring):
                    tasks.append(asyncio.ensure_future(work))
                if not wiring.reads_only and wiring.broker.subscribers:
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
