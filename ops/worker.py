"""Runs a role: until it is told to stop, it does its part of the work."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from ops.house import House
from ops.roles import ROLES
from ops.settings import Settings

log = structlog.get_logger(__name__)


async def run(role: str, settings: Settings) -> None:
    """Run a role of `ROLES`, or `all` of them, until SIGTERM or SIGINT. Raises: what ends a role by itself."""
    roles = list(ROLES) if role == "all" else [role]
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(House(settings, role))
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(work)
            for name in roles
            if (work := await import_module(f"ops.roles.{name}").begin(house))
        ]
        if house.broker.subscribers:
            await house.broker.start()
        _spare_the_collector()
        await _announce(house.nc, role)
        log.info("ready", role=role, pid=os.getpid())
        tasks.append(asyncio.create_task(stopping.wait()))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for task in done:
            task.result()
    log.info("stopped", role=role)


def _spare_the_collector() -> None:
    """What was imported stays for good, and messages leave few cycles: looking for them took a third of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _announce(nc: Client, role: str) -> None:
    """Answer on `worker.<role>`, so that others can tell that the role is there."""
    since = datetime.now(UTC).isoformat()
    card = json.dumps({"role": role, "pid": os.getpid(), "since": since, "version": version("headrace")}).encode()

    async def answer(message: Msg) -> None:
        await message.respond(card)

    await nc.subscribe(f"worker.{role}", cb=answer)
