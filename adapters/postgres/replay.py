"""Tables made from the log in a schema of their own: work that was cut off goes on where it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from hashlib import sha256

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from adapters.postgres.feed import batches, one_ahead
from adapters.postgres.rules import digest
from adapters.postgres.tables import (
    STREAMS,
    copied,
    drop,
    finish_table,
    make_table,
    name,
    note_copied,
    positions,
    stale,
)
from adapters.postgres.writer import Writer
from handlers.ports.log import Blobs, Log
from handlers.work.progress import Progress
from projections.catalog import READ_MODELS
from projections.engine.read_model import ReadModel
from projections.engine.values import Values

NEAR = 5000
"""Messages that may be left to replay in one transaction."""

ROUNDS = 6
"""Each round replays what the projector did during the one before."""


def with_parents(names: Iterable[str]) -> list[ReadModel]:
    """The read models of these names, and those that their rules look at; all of them when there are no names.

    Raises: KeyError for a name that no table has.
    """
    known = {model.name: model for model in READ_MODELS}
    wanted = [known[name] for name in names] or list(READ_MODELS)
    for model in wanted:
        wanted.extend(parent for parent in model.parents if parent not in wanted)
    return [model for model in READ_MODELS if model in wanted]


class Replay:
    """The tables of a schema, how far they are (`after`), and the way on."""

    def __init__(
        self,
        connection: AsyncConnection[TupleRow],
        schema: str,
        models: Sequence[ReadModel],
        log: Log,
        blobs: Blobs,
        progress: Progress,
        values: Values,
        version: str = "",
    ) -> None:
        self.models = models
        self.after: Mapping[str, int] = {}
        self._connection = connection
        self._schema = schema
        self._log = log
        self._writer = Writer(models, schema, blobs, values)
        self._progress = progress
        rules = sha256(" ".join(f"{model.name} {digest(model.name)}" for model in models).encode()).hexdigest()
        self._version = version or f"{rules} {values.prices.version}"

    async def resume(self) -> bool:
        """Go on with the tables that are there, if the same program began them."""
        self._writer.forget()
        self.after = await copied(self._connection, self._schema, self._version)
        return bool(self.after) and not await stale(self._connection, self.models, self._schema)

    async def begin(self) -> None:
        """Make the tables, empty, in place of whatever is in the schema."""
        self.after = dict.fromkeys(STREAMS, 0)
        async with self._connection.transaction():
            await drop(self._connection, self._schema)
            await self._connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(self._schema)))
            for model in self.models:
                await make_table(self._connection, model, self._schema)
                await finish_table(self._connection, model, self._schema)
            await note_copied(self._connection, self._schema, self._version, self.after)

    async def near(self) -> None:
        """Replay, in parts, until little is left to where the live tables are."""
        for _ in range(ROUNDS):
            goal = await positions(self._connection)
            if sum(goal.values()) - sum(self.after.values()) <= NEAR:
                break
            await self.to(goal)
        for model in self.models:
            await self._connection.execute(SQL("ANALYZE {}").format(name(model, self._schema)))

    async def to(self, goal: Mapping[str, int]) -> None:
        """Replay up to and including these sequences.

        Where the connection is in a transaction, and that is rolled back, `resume`.
        """
        after = self.after
        source = batches(self._log, after, goal, self._writer.fold.blobs)
        async with aclosing(source), aclosing(one_ahead(self._writer.with_blobs(source))) as feed:
            async for fetched in feed:
                after = {**after, **dict(message.position for message in fetched[0])}
                async with self._connection.transaction():
                    await self._writer.write(self._connection, fetched)
                    await note_copied(self._connection, self._schema, self._version, after)
                self.after = after
                for stream, last in goal.items():
                    self._progress(stream, after[stream], last)
