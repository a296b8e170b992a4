"""A whole Headrace for a journey: its worker processes on the session's servers, with ways to use and to kill them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats.errors
import psycopg
from psycopg.rows import dict_row

from adapters.jetstream.client import Client, Frame
from domain.access.tenant import HOUSE
from ops.index_choice import open_index
from ops.roles import ROLES
from ops.settings import Settings

WORKING = tuple(role for role in ROLES if role != "view")
"""The roles without which something does not happen."""

READY_S = 180.0
PATIENCE_S = 120.0

Row = dict[str, Any]


class Stack:
    def __init__(self, settings: Settings, client: Client, log: Path) -> None:
        self.settings = settings
        self.client = client
        self.tenant = settings.tenant
        self.nats_url = settings.nats_url
        self.postgres_url = settings.postgres_url
        self._log = log
        self.programs: dict[str, str] = {}
        """Modules that stand for the command line in workers of a role."""
        self._workers: dict[str, asyncio.subprocess.Process] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: Settings, roles: Sequence[str] = WORKING) -> AsyncIterator[Stack]:
        async with await Client.connect(settings.nats_url, settings.tenant) as client:
            stack = cls(settings, client, settings.home / "workers.log")
            try:
                await stack.start(*roles)
                yield stack
            finally:
                await stack.end()

    async def start(self, *workers: str, **variables: str) -> None:
        """Start workers with these variables, and wait until they are ready.

        A worker goes by its role, or by `<role>.<anything>` where a role has several.
        """
        for worker in workers:
            await self.spawn(worker, **variables)
        await self.ready(*workers)

    async def spawn(self, worker: str, **variables: str) -> None:
        environment = os.environ | {
            "HEADRACE_HOME": str(self.settings.home),
            "HEADRACE_NATS_URL": self.nats_url,
            "HEADRACE_POSTGRES_URL": self.postgres_url,
            "HEADRACE_OPENSEARCH_URL": self.settings.opensearch_url,
            "HEADRACE_RERANK_MODEL": self.settings.rerank_model,
            "HEADRACE_LOG_FORMAT": "json",
            "HEADRACE_GRACE_S": "3",
            "HEADRACE_VIEW_ADDRESS": "127.0.0.1:0",
            "HEADRACE_EGRESS_ALLOW": "127.0.0.1:1-65535",
            "HEADRACE_FILE_EGRESS_ALLOW": "127.0.0.1:1-65535",
            **variables,
        }
        program = self.programs.get(_role(worker), "ops.cli")
        command = (sys.executable, "-m", program, "worker", "--role", _role(worker))
        with self._log.open("ab") as log:
            self._workers[worker] = await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=log, stderr=log
            )

    async def ready(self, *workers: str) -> None:
        await asyncio.gather(*(self._ready(worker) for worker in workers))

    async def _ready(self, name: str) -> None:
        worker = self._workers[name]
        inbox = self.client.connection.new_inbox()
        cards = await self.client.connection.subscribe(inbox)
        try:
            async with asyncio.timeout(READY_S):
                while True:
                    assert worker.returncode is None, f"worker {name} ended:\n{self._log.read_text()[-4000:]}"
                    await self.client.connection.publish(f"worker.{_role(name)}", reply=inbox)
                    with suppress(nats.errors.TimeoutError):
                        while card := await cards.next_msg(0.2):
                            if f'"pid": {worker.pid}'.encode() in card.data:
                                return
        finally:
            await cards.unsubscribe()

    def signal(self, worker: str, number: signal.Signals) -> None:
        self._workers[worker].send_signal(number)

    def gone(self, worker: str) -> bool:
        """Return whether it has ended by itself."""
        return self._workers[worker].returncode is not None

    async def kill(self, *workers: str) -> None:
        """End workers without warning."""
        for worker in workers:
            with suppress(ProcessLookupError):
                self._workers[worker].send_signal(signal.SIGKILL)
        for worker in workers:
            await self._workers.pop(worker).wait()

    def of(self, role: str) -> list[str]:
        """The workers of a role."""
        return [worker for worker in self._workers if _role(worker) == role]

    async def stop(self, *workers: str) -> None:
        """Tell workers to end, and wait until they have."""
        for worker in workers:
            self._workers[worker].terminate()
        for worker in workers:
            ended = self._workers.pop(worker)
            assert await ended.wait() == 0, f"worker {worker}:\n{self._log.read_text()[-4000:]}"

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

    async def command(self, *arguments: str) -> tuple[int, list[Row]]:
        """The exit code of `headrace` with these arguments and --json, and what it prints."""
        environment = os.environ | {
            "HEADRACE_HOME": str(self.settings.home),
            "HEADRACE_NATS_URL": self.nats_url,
            "HEADRACE_POSTGRES_URL": self.postgres_url,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli", *arguments, "--json", env=environment, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return process.returncode or 0, [json.loads(line) for line in out.splitlines()]

    async def indexed(self) -> list[str]:
        """The ids that the index holds."""
        async with open_index(self.settings) as index, aclosing(index.contents()) as chunks:
            return [id async for chunk in chunks for _, _, id in chunk]

    async def assert_index_is_exact(self) -> None:
        """The index holds the segments of the table, each once."""
        rows = await self.sql("SELECT id FROM headrace.document_segments")
        assert sorted(await self.indexed()) == sorted(row["id"] for row in rows)
        assert rows

    async def send(self, command: str, /, **payload: Any) -> Row:
        """The outcome of an accepted command; a provider is checked only where the test says so, since scripted servers
        count their requests."""
        if command == "provider.register":
            payload = {"check": False, **payload}
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


async def install(stack: Stack, name: str, data: bytes) -> None:
    """Install a package of a plugin, as the operator."""
    house = Client(stack.client.connection, HOUSE)
    digest = await house.upload_blob(data)
    outcome = await house.send("plugin.install", {"plugin": name, "package": digest, "content": "none"}, wait=60)
    assert outcome["status"] == "accepted", outcome


def _role(worker: str) -> str:
    return worker.partition(".")[0]
