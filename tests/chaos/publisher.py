"""Publishers in a process of their own: they keep count of what was sent and acknowledged while everything else dies.

Ends on SIGTERM, when what is under way is acknowledged or `LAST_TRIES_S` have passed.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import nats
import nats.errors
import orjson
import uvloop
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from domain.access.actor import service
from domain.aggregate import uuid7
from tests.chaos.load import Made, Step, load

PATIENCE_S = 3.0
"""For the outcome of a command before others build on it."""

AT_ONCE = 8
"""Commands of a publisher that wait for their acknowledgement."""

LAST_TRIES_S = 60.0

TRY_S = 2.0


class Journal:
    """A line for every command before it is sent, and one when it is acknowledged."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def sends(self, id: str, name: str, payload: Any) -> None:
        self._write({"id": id, "name": name, "payload": payload})

    def acknowledged(self, id: str) -> None:
        self._write({"acknowledged": id})

    def again(self, id: str) -> None:
        self._write({"again": id})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(line).decode() + "\n")
        self._file.flush()


class Publisher:
    """Sends the steps of its load, as a good client does: with the same id until it is acknowledged."""

    def __init__(self, js: JetStreamContext, tenant: str, journal: Journal) -> None:
        self._js = js
        self._tenant = tenant
        self._journal = journal
        self._sent: list[tuple[str, str, Any]] = []
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self, seed: int, number: int, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            for step in load(seed, number):
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), step.pause)
                if stopping.is_set():
                    return
                for needed in sorted(step.needs - {step.number}):
                    await self._settled(self._sent[needed][0], stopping)
                await self._turns.acquire()
                tasks.create_task(self._send(*self._noted(step), step.tries, stopping))

    async def _settled(self, id: str, stopping: asyncio.Event) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not stopping.is_set():
            with suppress(NotFoundError, APIError, nats.errors.Error, asyncio.TimeoutError):
                await self._js.get_last_msg("OUTCOMES", f"out.{self._tenant}.{id}", direct=True)
                return
            await asyncio.sleep(0.05)

    def _noted(self, step: Step) -> tuple[str, str, Any]:
        """Id, name and payload of the command that the step sends, which is in the journal now."""
        if step.again is None:
            id = uuid7(time.time_ns() // 1_000_000, step.chance)
            name, payload = step.name, self._filled(step.payload, id)
            self._journal.sends(id, name, payload)
        else:
            id, name, payload = self._sent[step.again]
            self._journal.again(id)
        self._sent.append((id, name, payload))
        return id, name, payload

    async def _send(self, id: str, name: str, payload: Any, tries: int | None, stopping: asyncio.Event) -> None:
        try:
            if await self._publish(id, name, payload, tries, stopping):
                self._journal.acknowledged(id)
        finally:
            self._turns.release()

    def _filled(self, value: Any, own: str) -> Any:
        """The payload with the ids that stand where `Made` stood."""
        match value:
            case Made(number):
                return self._sent[number][0] if number < len(self._sent) else own
            case dict():
                return {name: self._filled(inner, own) for name, inner in value.items()}
            case list():
                return [self._filled(inner, own) for inner in value]
        return value

    async def _publish(self, id: str, name: str, payload: Any, tries: int | None, stopping: asyncio.Event) -> bool:
        """Return whether it was acknowledged."""
        body, deadline = orjson.dumps(payload), 0.0
        while tries is None or tries > 0:
            tries = tries and tries - 1
            with suppress(APIError, nats.errors.Error, asyncio.TimeoutError):
                actor = service(self._tenant)  # of the login that is not from the log
                subject = f"cmd.{self._tenant}.{actor}.{name}"
                await self._js.publish(subject, body, timeout=TRY_S, headers={"Headrace-Id": id})
                return True
            if stopping.is_set():
                deadline = deadline or time.monotonic() + LAST_TRIES_S
                if time.monotonic() > deadline:
                    return False
            await asyncio.sleep(0.1)
        return False


async def publish(urls: str, tenant: str, seed: int, publishers: int, journal: Journal) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    connections = [
        await nats.connect(urls.split(","), error_cb=_quiet, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        for _ in range(publishers)
    ]
    try:
        await asyncio.gather(
            *(
                Publisher(nc.jetstream(), tenant, journal).run(seed, number, stopping)
                for number, nc in enumerate(connections)
            )
        )
    finally:
        for nc in connections:
            await nc.close()


async def _quiet(error: Exception) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.publisher", description=__doc__)
    parser.add_argument("--urls", required=True)
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--publishers", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args()
    with options.journal.open("a") as file:
        uvloop.run(publish(options.urls, options.tenant, options.seed, options.publishers, Journal(file)))


if __name__ == "__main__":
    main()
