"""Access of the pages: rows read as the reader role, and commits read from the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self

import orjson
from nats.aio.client import Client
from psycopg import AsyncConnection, Error, errors
from psycopg.rows import DictRow, dict_row
from psycopg.sql import Composed
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.doors import DoorReports, Use
from adapters.jetstream.key_uses import JetStreamKeyUses
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.registry import JetStreamRegistry
from adapters.jetstream.store import JetStreamEventStore
from adapters.postgres.tenants import TENANTS
from domain.access.actor import VIEWER
from domain.access.register import Register
from domain.log import EVENTS
from handlers.files import Files
from handlers.graphs import Graphs
from handlers.ports.log import Blobs, Unavailable
from projections.values.prices import Prices

Row = dict[str, Any]

STATEMENT_S = 10.0
"""Default time limit of a statement, in seconds."""

TENANTS_S = 15.0
"""Age up to which the answer whether there are other tenants is reused, in seconds."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of the log, as it is stored; `events` are the parsed JSON."""

    sequence: int
    subject: str
    at: str
    headers: dict[str, str]
    events: list[dict[str, Any]]


class Backend:
    """Access of the pages, open as long as the context is. `reader_url` logs in as a role that may only read.

    `reports` are those of the viewer's door, sent while they `run`. `keys` decrypt the words of people in commits of
    the log, and check the accounts there: without them there are no accounts. `prices` are those of the tables, and
    `blobs` hold large values: those of JetStream by default.
    """

    def __init__(
        self,
        nc: Client,
        reader_url: str,
        tenant: str = "default",
        keys: JetStreamKeys | None = None,
        prices: Prices | None = None,
        blobs: Blobs | None = None,
    ) -> None:
        self.tenant = tenant
        self.prices = prices or Prices()
        self.reader_url = reader_url
        self.nc = nc
        self.reports = DoorReports(nc, VIEWER, self._known)
        self._reader = DirectReader(nc, timeout_s=5.0)
        self.keys = keys
        self.uses = JetStreamKeyUses(nc)
        self.store = JetStreamEventStore(nc, keys, blobs)
        self.files = Files(blobs or JetStreamBlobs(nc), keys) if keys else None
        self.graphs = Graphs(blobs or JetStreamBlobs(nc))
        self._registry = JetStreamRegistry(nc, keys) if keys else None
        self._shared = (0.0, False)
        self.pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            reader_url,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "application_name": "headrace viewer",
                "prepare_threshold": None,  # a rebuild swaps the tables under a prepared statement
            },
            connection_class=AsyncConnection[DictRow],
            configure=_read_only,
            check=AsyncConnectionPool.check_connection,
            min_size=1,
            max_size=8,
            timeout=5.0,
            reconnect_timeout=0.0,
            open=False,
        )

    async def __aenter__(self) -> Self:
        await self.pool.open()
        if self._registry:
            with suppress(Unavailable):  # it has begun to listen, and reads the log again at the first request
                await self._registry.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()

    @asynccontextmanager
    async def reading(self, within_s: float = STATEMENT_S) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A connection in a read-only transaction over one state of the tables; statements may take `within_s` s.

        Raises: psycopg.OperationalError, PoolTimeout, and QueryCanceled for a statement that takes longer.
        """
        async with self.pool.connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await connection.execute("SELECT set_config('statement_timeout', %s, true)", (str(int(within_s * 1000)),))
            yield connection

    async def rows(self, statement: str | Composed, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of one statement."""
        async with self.reading() as connection:
            query = statement.encode() if isinstance(statement, str) else statement
            return await (await connection.execute(query, parameters)).fetchall()

    async def row(self, statement: str | Composed, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """The first row of one statement."""
        return next(iter(await self.rows(statement, parameters)), None)

    async def register(self) -> Register:
        """The accounts, tenants and keys as the log has them. Raises: Unavailable."""
        return await self._registry.now() if self._registry else Register()

    async def shared(self) -> bool:
        """Return True if there are other tenants than the viewer's; the answer may be `TENANTS_S` old."""
        until, known = self._shared
        if monotonic() > until:
            try:
                known = any(row["tenant_id"] != self.tenant for row in await self.rows(f"{TENANTS} LIMIT 2"))
            except errors.UndefinedTable:
                known = False
            self._shared = (monotonic() + TENANTS_S, known)
        return known

    async def commits(self, sequences: Iterable[int], stream: str = EVENTS) -> list[Stored]:
        """The messages of the log at these sequences, as they are stored, without those that are gone.

        Raises: Unavailable.
        """
        found = await asyncio.gather(*(self._reader.at(stream, place) for place in sequences))
        stored = []
        for message in found:
            if message is not None:
                headers = dict(message.headers or {})
                events = orjson.loads(message.data)
                place, at = sequence(message), headers.pop("Nats-Time-Stamp")
                headers = {name: value for name, value in headers.items() if name not in _PLACE}
                stored.append(Stored(place, message.subject, at, headers, events))
        return stored

    async def _known(self, use: Use) -> str | None:
        """The origin of this use, if the tables have it."""
        try:
            row = await self.row(_USE, use._asdict())
        except (Error, PoolTimeout):  # another report does no harm
            return None
        return row["id"] if row else None


_USE = """
SELECT id FROM headrace.door_events
WHERE tenant_id = %(tenant)s AND event = 'used' AND actor = %(actor)s AND address = %(address)s
    AND coalesce(browser, '') = %(browser)s LIMIT 1
"""

_PLACE = {"Nats-Subject", "Nats-Sequence", "Nats-Stream"}


async def _read_only(connection: AsyncConnection[DictRow]) -> None:
    """Set defaults for statements outside of a transaction; the role has no right to write anyway."""
    await connection.execute("SET default_transaction_read_only = on; SET timezone = 'UTC'; SET jit = off")
