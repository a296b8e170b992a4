"""Run a role until it is stopped."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
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

from adapters.jetstream.reply import respond
from adapters.privacy.vault import UnknownKey
from handlers.ports.log import Unavailable
from ops.roles import ABOUT_CODE, GUESTS, WITHOUT_SECRET, wanted
from ops.settings import InvalidSetting, Settings
from ops.tracing import infrastructure
from ops.wiring import Wiring

log = structlog.get_logger(__name__)

OUTAGES = (Unavailable, TimeoutError, NoRespondersError, ServiceUnavailableError)
"""Errors that pass when a server is back."""

PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 1.0, 30.0, 60.0
"""Seconds. A role that could not begin tries again after a pause. A role of `all` that fails doubles it up to the
longest, unless it was steady before."""

ALL = "all"
"""All roles in one process."""


async def run(role: str, settings: Settings) -> None:
    """Run a role, or `all` that there is work for, until SIGTERM or SIGINT. Raises: the error that ends a role.

    When stopped, it takes no more messages and finishes the answers in flight, within the grace period of the settings.
    Of `all`, a role that fails is restarted after a pause, and the others continue.
    """
    allow_connections()
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
    """Run each role with a wiring of its own, so that one can end without the others."""
    begun = {role: asyncio.Event() for role in wanted(settings)}
    roles = [asyncio.create_task(_again(role, settings, stopping, event)) for role, event in begun.items()]
    beginning = asyncio.create_task(_all_begun(begun.values()))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((beginning, stop), return_when=asyncio.FIRST_COMPLETED)
    _cancel([beginning, stop])
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
    """Run a role until it is stopped; restart it when it fails."""
    pause = PAUSE_S
    while not stopping.is_set():
        since = asyncio.get_running_loop().time()
        try:
            await _one(role, settings, stopping, begun)
        except Exception as error:
            begun.set()  # although it failed: the others must not wait for it
            if asyncio.get_running_loop().time() - since > STEADY_S:
                pause = PAUSE_S
            log.exception("failed", role=role, reason=str(error) or repr(error), again_in_s=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


async def _one(role: str, settings: Settings, stopping: asyncio.Event, begun: asyncio.Event | None = None) -> None:
    stop = asyncio.create_task(stopping.wait())
    async with AsyncExitStack() as stack:
        beginning = asyncio.create_task(_begin(stack, settings, role))
        await asyncio.wait((beginning, stop), return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            beginning.cancel()
            await asyncio.wait((beginning,))
            return
        wiring, tasks = beginning.result()
        _spare_the_collector()
        card = await _announce(wiring.nc, role, wiring)
        if choice := wiring.contained:
            weaker = {"because": choice.because, "children_can": list(choice.open)}
            level = log.warning if any(weaker.values()) else log.info
            level("sandbox", kind=choice.sandbox.kind, **{name: value for name, value in weaker.items() if value})
        log.info("ready", role=role, pid=os.getpid())
        if begun:
            begun.set()
        tasks.append(stop)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            await card.unsubscribe()
            if not wiring.guest:
                await wiring.consumers.drain(settings.grace_s)
        _cancel(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


async def _begin(stack: AsyncExitStack, settings: Settings, role: str) -> tuple[Wiring, list[asyncio.Future[Any]]]:
    """Return the wiring and the tasks of the role; wait while a server is unreachable."""
    while True:
        async with AsyncExitStack() as attempt:
            wiring, tasks = Wiring(settings, role, guest=role in GUESTS), list[asyncio.Future[Any]]()
            attempt.push_async_callback(wiring.open.aclose)
            attempt.callback(_cancel, tasks)
            try:
                await wiring.__aenter__()
                if not wiring.guest and role not in WITHOUT_SECRET:
                    await wiring.keys.macs.establish()
                if not wiring.guest:
                    await wiring.keys.start()
                if work := await import_module(f"ops.roles.{role}").begin(wiring):
                    tasks.append(asyncio.ensure_future(work))
                if not wiring.guest:
                    await wiring.consumers.start()
            except UnknownKey as error:
                raise InvalidSetting(f"{error} It is HEADRACE_SECRET_KEY, or in the file secret.key.") from None
            except OUTAGES as error:
                log.warning("waiting", reason=str(error) or repr(error))
            else:
                stack.push_async_callback(attempt.pop_all().aclose)
                return wiring, tasks
        await asyncio.sleep(PAUSE_S)


def _cancel(tasks: list[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()


def allow_connections() -> None:
    """Raise the soft limit of open files, often 1,024, to the hard one: each answer in flight has a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):  # as on macOS, where the hard limit may be infinite
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spare_the_collector() -> None:
    """Collect less often: modules stay, and messages leave few cycles. Collections took a third of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _announce(nc: Client, role: str, wiring: Wiring | None = None) -> Subscription:
    """Answer on `worker.<role>`, so that others can tell that the role is there, and what runs code, when asked."""
    since = datetime.now(UTC).isoformat()
    who: dict[str, Any] = {"role": role, "host": socket.gethostname(), "pid": os.getpid()}
    if wiring and (contained := wiring.contained):
        who["sandbox"] = {"kind": contained.sandbox.kind, "open": contained.open, "because": contained.because}
    card = json.dumps({**who, "since": since, "version": version("headrace")}).encode()

    async def answer(message: Msg) -> None:
        asked = wiring.coding if wiring and message.data == ABOUT_CODE else None
        await respond(message, json.dumps(await asked.report()).encode() if asked else card)

    return await nc.subscribe(f"worker.{role}", cb=answer)
