"""A whole Headrace for a journey: its worker processes on the session's servers, with ways to use and to kill them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from ops.client import Client, Frame
from ops.roles import ROLES
from ops.settings import Settings

READY_S = 90.0
PATIENCE_S = 60.0

Row = dict[str, Any]


class Stack:
    def __init__(self, settings: Settings, client: Client, log: Path) -> None:
        self.settings = settings
        self.client = client
        self.tenant = settings.tenant
        self.nats_url = settings.nats_url
        self.postgres_url = settings.postgres_url
        self._log = log
        self._workers: dict[str, asyncio.subprocess.Process] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: Settings, roles: Sequence[str] = ROLES) -> AsyncIterator[Stack]:
        async with await Client.connect(settings.nats_url, settings.tenant) as client:
            stack = cls(settings, client, settings.home / "workers.log")
            try:
                await stack.start(*roles)
                yield stack
            finally:
                await stack.end()

    async def start(self, *roles: str, **variables: str) -> None:
        """Start a worker of each role, with these variables, and wait until it is ready."""
        environment = os.environ | {
            "HEADRACE_HOME": str(self.settings.home),
            "HEADRACE_NATS_URL": self.nats_url,
            "HEADRACE_POSTGRES_URL": self.postgres_url,
            "HEADRACE_LOG_FORMAT": "json",
            **variables,
        }
        for role in roles:
            with self._log.open("ab") as log:
                self._workers[role] = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "ops.cli", "worker", "--role", role, env=environment, stdout=log, stderr=log
                )
        await asyncio.gather(*(self._ready(role) for role in roles))

    async def _ready(self, role: str) -> None:
        worker = self._workers[role]
        async with asyncio.timeout(READY_S):
            while True:
                assert worker.returncode is None, f"worker {role} ended:\n{self._log.read_text()[-4000:]}"
                try:
                    card = await self.client.connection.request(f"worker.{role}", timeout=0.5)
                except Exception:
                    await asyncio.sleep(0.1)
                    continue
                if f'"pid": {worker.pid}'.encode() in card.data:
                    return

    async def kill(self, *roles: str) -> None:
        """End workers without warning."""
        for role in roles:
            self._workers[role].send_signal(signal.SIGKILL)
        for role in roles:
            await self._workers.pop(role).wait()

    async def end(self) -> None:
        for worker in self._workers.values():
            if worker.returncode is None:
                worker.terminate()
        for worker in self._workers.values():
            try:
                await asyncio.wait_for(worker.wait(), 15)
            except TimeoutError:
                worker.kill()
                await worker.wait()

    async def send(self, command: str, /, **payload: Any) -> Row:
        """The outcome of an accepted command."""
        outcome = await self.client.send(command, payload, wait=PATIENCE_S)
        assert outcome["status"] == "accepted", outcome
        return outcome

    async def refused(self, command: str, /, **payload: Any) -> Row:
        """The outcome of a rejected command."""
        outcome = await self.client.send(command, payload, wait=PATIENCE_S)
        assert outcome["status"] == "rejected", outcome
        return outcome

    async def make(self, command: str, /, **payload: Any) -> str:
        """The id of what the command made."""
        return str((await self.send(command, **payload))["command"])

    async def upload(self, dataset: str, *files: Path) -> list[str]:
        ids = []
        for file in files:
            digest = await self.client.upload_blob(file.read_bytes())
            ids.append(await self.make("document.upload", dataset=dataset, name=file.name, digest=digest))
        return ids

    async def ask(self, app: str, query: str, **options: Any) -> list[Frame]:
        return [frame async for frame in self.client.ask(app, query, wait=PATIENCE_S, patience=PATIENCE_S, **options)]

    async def sql(self, statement: str, **parameters: Any) -> list[Row]:
        async with (
            await psycopg.AsyncConnection.connect(
                self.postgres_url, autocommit=True, row_factory=dict_row
            ) as connection,
            connection.cursor() as cursor,
        ):
            await cursor.execute(statement.encode(), parameters)
            return await cursor.fetchall()

    async def until(self, statement: str, enough: Callable[[list[Row]], bool] = bool, **parameters: Any) -> list[Row]:
        """The rows of a statement as soon as they are enough."""
        rows: list[Row] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not enough(rows := await self.sql(statement, **parameters)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(
                f"not enough after {PATIENCE_S:g} s: {rows}\n{self._log.read_text()[-4000:]}"
            ) from None
        return rows

    async def ended(self, documents: Sequence[str]) -> dict[str, Row]:
        """The rows of the documents, once all are completed or in error."""
        rows = await self.until(
            "SELECT * FROM headrace.documents WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)",
            lambda rows: (
                len(rows) == len(documents) and all(row["indexing_status"] in ("completed", "error") for row in rows)
            ),
            tenant=self.tenant,
            ids=list(documents),
        )
        return {str(row["id"]): row for row in rows}
