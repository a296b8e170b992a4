"""Copies of tables, made from the log in a schema of their own; a copy that was interrupted can be resumed."""

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
    group_positions,
    make_table,
    name,
    note_copied,
    stale,
)
from adapters.postgres.words import WordsAhead
from adapters.postgres.writer import Writer, with_blobs
from handlers.ports.log import Blobs, Log
from handlers.work.progress import Progress
from projections.catalog import GROUP_OF, READ_MODELS
from projections.engine.read_model import ReadModel
from projections.engine.values import Values

NEAR = 5000
"""Messages that may be left for one transaction."""

ROUNDS = 6
"""Each round folds what the projector did during the one before."""


def with_parents(names: Iterable[str]) -> list[ReadModel]:
    """The read models of these names, and those that their rules look at; all of them when there are no names.

    Raises: KeyError for a name that no table has.
    """
    known = {model.name: model for model in READ_MODELS}
    wanted = [known[name] for name in names] or list(READ_MODELS)
    for model in wanted:
        wanted.extend(parent for parent in model.parents if parent not in wanted)
    return [model for model in READ_MODELS if model in wanted]


async def parts(connection: AsyncConnection[TupleRow], models: Sequence[ReadModel]) -> list[list[ReadModel]]:
    """The read models by the position of their live tables: all in one list, unless a group has halted."""
    positions = await group_positions(connection)
    found: dict[str, list[ReadModel]] = {}
    for model in models:
        found.setdefault(str(positions[GROUP_OF[model.name]]), []).append(model)
    return list(found.values())


class Apart(Exception):
    """The live tables stand at different positions."""


class Copy:
    """Tables that are made from the log in a schema of their own, and their position (`after`)."""

    def __init__(
        self,
        connection: AsyncConnection[TupleRow],
        schema: str,
        models: Sequence[ReadModel],
        log: Log,
        blobs: Blobs,
        progress: Progress,
        values: Values,
        processes: int,
        version: str = "",
        *,
        passing: bool = False,
    ) -> None:
        """With `passing`, the tables do not outlive a crash of the server."""
        self.models = models
        self.after: Mapping[str, int] = {}
        self._connection = connection
        self._schema = schema
        self._log = log
        self._blobs = blobs
        self._values = values
        self._processes = processes - 1
        self._passing = passing
        self._writer = Writer(models, schema, values)
        self._progress = progress
        rules = sha256(" ".join(f"{model.name} {digest(model.name)}" for model in models).encode()).hexdigest()
        self._version = version or f"{rules} {values.prices.version}"

    async def resume(self) -> bool:
        """Go on with the tables that exist, if the same rules and prices made them; return whether."""
        self._writer.forget()
        self.after = await copied(self._connection, self._schema, self._version)
        return bool(self.after) and not await stale(self._connection, self.models, self._schema)

    async def begin(self) -> None:
        """Make the tables, empty, in place of the schema's contents."""
        self.after = dict.fromkeys(STREAMS, 0)
        async with self._connection.transaction():
            await drop(self._connection, self._schema)
            await self._connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(self._schema)))
            for model in self.models:
                await make_table(self._connection, model, self._schema)
                if self._passing:
                    await self._connection.execute(SQL("ALTER TABLE {} SET UNLOGGED").format(name(model, self._schema)))
            await note_copied(self._connection, self._schema, self._version, self.after)

    async def near(self) -> None:
        """Fold, in parts, until at most `NEAR` messages are left to the live tables' position."""
        for _ in range(ROUNDS):
            goal = await self.goal()
            if sum(goal.values()) - sum(self.after.values()) <= NEAR:
                break
            await self.to(goal)

    async def finish(self) -> None:
        """Add what is quicker to make when the rows are in: indexes for readers, comments, and statistics."""
        for model in self.models:
            await finish_table(self._connection, model, self._schema)
        await self.analyze()

    async def analyze(self) -> None:
        for model in self.models:
            await self._connection.execute(SQL("ANALYZE {}").format(name(model, self._schema)))

    async def goal(self, *, lock: bool = False) -> dict[str, int]:
        """The position of the live tables; with `lock`, it does not change before the transaction ends.

        Raises: Apart.
        """
        groups = {GROUP_OF[model.name] for model in self.models}
        first, *others = (await group_positions(self._connection, groups, lock=lock)).values()
        if any(other != first for other in others):
            raise Apart("Groups of tables stand at different positions: one has halted. Rebuild them one by one.")
        return first

    async def to(self, goal: Mapping[str, int]) -> None:
        """Fold up to and including these sequences.

        Where the connection is in a transaction that is rolled back, `resume`.
        """
        after = self.after
        source = batches(self._log, after, goal, self._writer.fold.blobs)
        async with (
            WordsAhead(self._values, self._processes) as words,
            aclosing(source),
            aclosing(one_ahead(with_blobs(source, self._blobs, self._writer.fold.blobs, words))) as feed,
        ):
            async for batch in feed:
                after = {**after, **dict(message.position for message in batch[0])}
                async with self._connection.transaction():
                    await self._writer.write(self._connection, batch)
                    await note_copied(self._connection, self._schema, self._version, after)
                self.after = after
                for stream, last in goal.items():
                    self._progress(stream, after[stream], last)
