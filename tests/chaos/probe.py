"""Probes: a question and a document that are sent with a blow, and how long it takes until all of it is back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import nats.errors
import psycopg

from adapters.jetstream.client import NoOutcome, NotSent, Unreachable
from domain.aggregate import new_id
from tests.chaos.account import Finding
from tests.journeys.stack import Stack

BACK = ("command", "tables", "answer", "document")
"""Awaited after a blow: the outcome of a command, its row, the end of an answer, and that of a document."""

GIVEN_UP_S = 300.0
LOOK_EVERY_S = 0.05

_ROWS = """
SELECT id, status IN ('answered', 'failed', 'stopped') FROM headrace.messages WHERE id = ANY(%(ids)s)
UNION ALL SELECT id, indexing_status IN ('completed', 'error') FROM headrace.documents WHERE id = ANY(%(ids)s)
"""


class Back(NamedTuple):
    """So long after its blow something was back in a round."""

    seconds: float
    round: int


@dataclass
class Recovery:
    """Times from the blow of each round until a thing of `BACK` was back; and the number of times it never was."""

    times: dict[str, list[Back]] = field(default_factory=lambda: {what: [] for what in BACK})
    never: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, round: int, seconds: float) -> None:
        self.times[what].append(Back(seconds, round))

    @property
    def findings(self) -> list[Finding]:
        return [Finding("stuck", f"{what}: {count} times never back") for what, count in self.never.items()]

    def median(self, what: str) -> float | None:
        found = sorted(self.times[what])
        return found[len(found) // 2].seconds if found else None

    def longest(self, what: str) -> Back | None:
        return max(self.times[what], default=None)


@dataclass(frozen=True, slots=True)
class Struck:
    """When the first blow of a round fell, by the monotonic clock."""

    round: int
    at: float = field(default_factory=time.monotonic)

    @property
    def ago(self) -> float:
        return time.monotonic() - self.at


class _Row(NamedTuple):
    """Awaited states of a row: that it is there, and that it has ended."""

    there: asyncio.Event
    ended: asyncio.Event


class Probes:
    def __init__(self, stack: Stack, dataset: str, app: str) -> None:
        self.recovery = Recovery()
        self._stack = stack
        self._dataset = dataset
        self._app = app
        self._rows: dict[str, _Row] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack) -> AsyncIterator[Probes]:
        """Probes with something to ask; the tables are looked at as long as the context is."""
        dataset = await stack.make("dataset.create", name="probes")
        app = await stack.make("app.create", name="probe")
        await stack.send("app.configure", app=app, datasets=[dataset])
        probes = cls(stack, dataset, app)
        looking = asyncio.create_task(probes._look())
        try:
            yield probes
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def ask(self, struck: Struck) -> None:
        id = new_id()
        sending = self._send(id, "message.send", app=self._app, query="Who holds the gate?")
        if await self._back("command", struck, sending):
            row = self._row(id)
            await self._back("tables", struck, row.there.wait())
            await self._back("answer", struck, row.ended.wait())

    async def upload(self, struck: Struck) -> None:
        id = new_id()
        text = f"The miller holds gate {struck.at}."
        await self._send(id, "document.upload", dataset=self._dataset, name="probe.txt", text=text)
        await self._back("document", struck, self._row(id).ended.wait())

    async def _send(self, id: str, command: str, /, **payload: Any) -> None:
        """Send a command until it has its outcome."""
        while True:
            with suppress(NoOutcome, NotSent, Unreachable, nats.errors.Error, TimeoutError):
                outcome = await self._stack.client.send(command, payload, id, wait=5)
                assert outcome["status"] == "accepted", outcome
                return
            await asyncio.sleep(0.05)

    async def _back(self, what: str, struck: Struck, coming: Awaitable[object]) -> bool:
        """Return whether it came in time."""
        try:
            await asyncio.wait_for(coming, GIVEN_UP_S - struck.ago)
        except TimeoutError:
            self.recovery.never[what] += 1
            return False
        self.recovery.add(what, struck.round, round(struck.ago, 3))
        return True

    def _row(self, id: str) -> _Row:
        return self._rows.setdefault(id, _Row(asyncio.Event(), asyncio.Event()))

    async def _look(self) -> None:
        """One connection for all that is awaited, since late probes must not become a load of their own."""
        while True:
            with suppress(psycopg.Error, OSError, TimeoutError):
                url = self._stack.postgres_url
                async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=2) as connection:
                    while True:
                        async with asyncio.timeout(5):
                            rows = await (await connection.execute(_ROWS, {"ids": list(self._rows)})).fetchall()
                        for id, ended in rows:
                            self._note(str(id), bool(ended))
                        await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.sleep(LOOK_EVERY_S)

    def _note(self, id: str, ended: bool) -> None:
        self._rows[id].there.set()
        if ended:
            self._rows.pop(id).ended.set()
