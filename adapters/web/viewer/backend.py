"""What pages are given: rows read as the reader role, commits read from the log, and commands sent on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any, Self

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.errors import APIError
from psycopg import AsyncConnection, errors
from psycopg.rows import DictRow, dict_row
from psycopg.sql import Composed
from psycopg_pool import AsyncConnectionPool

from adapters.jetstream import codec
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.store import JetStreamEventStore
from domain.aggregate import new_id
from domain.log import EVENTS, Outcome
from handlers.ports.log import Unavailable
from projections.values.prices import Prices

Row = dict[str, Any]

ACTOR = "viewer"
"""Who sends the commands of the viewer."""

PATIENCE_S = 10.0
"""For the outcome of a command."""

STATEMENT_S = 10.0
"""What one statement may take; a page that says otherwise has its own."""

TENANTS_S = 15.0
"""How long the list of tenants is believed."""

_TENANTS = """
WITH RECURSIVE found AS (
    (SELECT tenant_id FROM headrace.commands ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant_id FROM headrace.commands WHERE tenant_id > found.tenant_id ORDER BY tenant_id LIMIT 1)
    FROM found WHERE found.tenant_id IS NOT NULL
)
SELECT tenant_id FROM found WHERE tenant_id IS NOT NULL LIMIT 1000
"""
"""One step of the primary key for each tenant, however many commands it has."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of the log, as it is stored: where, when, under which headers, and the JSON of its events."""

    sequence: int
    subject: str
    at: str
    headers: dict[str, str]
    events: list[dict[str, Any]]


class Backend:
    """Open as long as the context is. `reader_url` logs in as somebody who can read and nothing else.

    The `keys` open what people said in commits of the log; the `prices` are those of the tables.
    """

    def __init__(
        self,
        nc: Client,
        reader_url: str,
        tenant: str = "default",
        keys: JetStreamKeys | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.tenant = tenant
        self.prices = prices or Prices()
        self.reader_url = reader_url
        self.nc = nc
        self._reader = DirectReader(nc, timeout_s=5.0)
        self._outcomes = JetStreamOutcomes(nc)
        self.store = JetStreamEventStore(nc, keys)
        self._tenants: tuple[float, list[str]] = (0.0, [])
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
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pool.close()

    @asynccontextmanager
    async def reading(self, within_s: float = STATEMENT_S) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A connection in a read-only transaction that sees one state of the tables; a statement may take `within_s`.

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

    async def tenants(self) -> list[str]:
        """The tenants that have ever sent a command, by name; those of a moment ago."""
        until, known = self._tenants
        if monotonic() > until:
            try:
                known = [row["tenant_id"] for row in await self.rows(_TENANTS)]
            except errors.UndefinedTable:
                known = []
            self._tenants = (monotonic() + TENANTS_S, known)
        return known

    async def commits(self, sequences: Iterable[int], stream: str = EVENTS) -> list[Stored]:
        """The messages of the log at these places, as they are stored; those that are gone are left out.

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

    async def publish(self, name: str, payload: Mapping[str, Any], *, tenant: str, id: str | None = None) -> Outcome:
        """Send a command, and wait for its outcome, accepted or rejected. Raises: Unavailable.

        The same `id` again changes nothing and gives the same outcome.
        """
        id = id or new_id()
        headers = {"Nats-Msg-Id": id, "Headrace-Actor": ACTOR}
        subscription = await self.nc.subscribe(f"out.{tenant}.{id}", max_msgs=1)
        try:
            js = self.nc.jetstream(timeout=5.0)
            ack = await js.publish(f"cmd.{tenant}.{name}", orjson.dumps(payload), headers=headers)
            if ack.duplicate and (known := await self._outcomes.get(tenant, id)):
                return known
            message = await subscription.next_msg(PATIENCE_S)
            return codec.decode_outcome(message.data, message.headers or {}, tenant)
        except APIError as error:
            raise Unavailable(f"The log does not take the command: {error.description}.") from error
        except nats.errors.TimeoutError as error:
            if known := await self._outcomes.get(tenant, id):
                return known
            said = f"Command {id} has no outcome after {PATIENCE_S:.0f} s: is a worker with role commands running?"
            raise Unavailable(said) from error
        except nats.errors.Error as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        finally:
            await subscription.unsubscribe()


_PLACE = {"Nats-Subject", "Nats-Sequence", "Nats-Stream"}


async def _read_only(connection: AsyncConnection[DictRow]) -> None:
    """For what comes outside of a transaction; who it logs in as has no right to more."""
    await connection.execute("SET default_transaction_read_only = on; SET timezone = 'UTC'; SET jit = off")
