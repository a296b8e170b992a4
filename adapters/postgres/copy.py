"""Copies of tables, made from the log in a schema of their own; a copy that was interrupted can be resumed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from adapters.many import together
from adapters.postgres import policies
from adapters.postgres.feed import batches
from adapters.postgres.quarantine import frozen, note_quarantine
from adapters.postgres.rules import digest
from adapters.postgres.tables import (
    STREAMS,
    connect,
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
from adapters.postgres.writer import Fetched, Writer, with_blobs
from domain.log import EVENTS, Recorded
from handlers.files import Files
from handlers.ports.log import Log
from handlers.work.progress import Progress
from handlers.work.quarantine import HoldingLog
from projections.catalog import GROUP_OF, GROUPS, READ_MODELS
from projections.engine.fold import BlobId
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


class Part:
    """The tables of one group in a copy, and their position (`after`)."""

    def __init__(
        self, group: str, models: Sequence[ReadModel], schema: str, version: str, values: Values, *, notes: bool
    ) -> None:
        """With `notes`, this group notes what is in quarantine."""
        self.group = group
        self.models = models
        self.writer = Writer(models, schema, values)
        self.after: Mapping[str, int] = {}
        self._schema = schema
        self._version = version
        self._notes = notes

    async def write(self, connection: AsyncConnection[TupleRow], fetched: Fetched) -> None:
        """Fold those messages of a batch that the tables do not hold yet, in one transaction with the position."""
        batch, blobs = fetched
        batch = [message for message in batch if message.position.sequence > self.after[message.position.stream]]
        if not batch:
            return
        after = {**self.after, **dict(message.position for message in batch)}
        async with connection.transaction():
            await self.writer.write(connection, (batch, blobs))
            if self._notes:
                await note_quarantine(connection, batch)
            await note_copied(connection, self._schema, self._version, [self.group], after)
        self.after = after


class Copy:
    """Tables that are made from the log in a schema of their own, the groups side by side."""

    def __init__(
        self,
        url: str,
        connection: AsyncConnection[TupleRow],
        schema: str,
        models: Sequence[ReadModel],
        log: Log,
        files: Files,
        progress: Progress,
        values: Values,
        processes: int,
        version: str = "",
        *,
        passing: bool = False,
    ) -> None:
        """With `passing`, the tables do not outlive a crash of the server."""
        self.models = models
        self._url = url
        self._connection = connection
        self._schema = schema
        self._log = log
        self._held = HoldingLog(log)
        self._files = files
        self._values = values
        self._processes = processes - 1
        self._passing = passing
        self._progress = progress
        rules = sha256(" ".join(f"{model.name} {digest(model.name)}" for model in models).encode()).hexdigest()
        self._version = version or f"{rules} {values.prices.version} {values.run_keep}"
        found = {group: [model for model in members if model in models] for group, members in GROUPS.items()}
        first, *_ = present = [group for group in found if found[group]]
        self._parts = [
            Part(group, found[group], schema, self._version, values, notes=group == first and not passing)
            for group in present
        ]

    @property
    def after(self) -> dict[str, int]:
        """The sequence of each stream up to which all tables hold it."""
        return {stream: min(part.after[stream] for part in self._parts) for stream in STREAMS}

    async def resume(self) -> bool:
        """Go on with the tables that exist, if the same rules and values made them; return whether."""
        found = await copied(self._connection, self._schema, self._version)
        if not all(part.group in found for part in self._parts):
            return False
        for part in self._parts:
            part.writer.forget()
            part.after = found[part.group]
        self._held = HoldingLog(self._log, await frozen(self._connection, self.after[EVENTS]))
        return not await stale(self._connection, self.models, self._schema)

    async def begin(self) -> None:
        """Make the tables, empty, in place of the schema's contents."""
        self._held = HoldingLog(self._log)
        async with self._connection.transaction():
            await drop(self._connection, self._schema)
            await self._connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(self._schema)))
            for model in self.models:
                await make_table(self._connection, model, self._schema)
                if self._passing:
                    await self._connection.execute(SQL("ALTER TABLE {} SET UNLOGGED").format(name(model, self._schema)))
            for part in self._parts:
                part.after = dict.fromkeys(STREAMS, 0)
                await note_copied(self._connection, self._schema, self._version, [part.group], part.after)

    async def near(self) -> None:
        """Fold, in batches, until at most `NEAR` messages are left to the live tables' position."""
        for _ in range(ROUNDS):
            goal = await self.goal()
            if sum(goal.values()) - sum(self.after.values()) <= NEAR:
                break
            await self._to(goal)

    async def finish(self) -> None:
        """Add what is quicker to make when the rows are in, and the policies that tables of earlier versions lack."""
        async with self._connection.transaction():
            for model in self.models:
                await policies.protect(self._connection, self._schema, model.name)
        await self._for_each_table(lambda connection, model: finish_table(connection, model, self._schema))
        await self.analyze()

    async def analyze(self) -> None:
        analyze = SQL("ANALYZE {}")
        await self._for_each_table(
            lambda connection, model: connection.execute(analyze.format(name(model, self._schema)))
        )

    async def _for_each_table(self, act: Callable[[AsyncConnection[TupleRow], ReadModel], Awaitable[object]]) -> None:
        """Act on the tables of a group one after the other, and on the groups side by side."""

        async def act_on(part: Part) -> None:
            async with connect(self._url) as connection:
                for model in part.models:
                    await act(connection, model)

        await together(map(act_on, self._parts))

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
        """Fold up to and including these sequences within the transaction of the connection.

        If that is rolled back, `resume`.
        """
        async with self._feed(goal) as feed:
            async for fetched in feed:
                for part in self._parts:
                    await part.write(self._connection, fetched)
                self._report(goal)

    async def _to(self, goal: Mapping[str, int]) -> None:
        """Fold up to and including these sequences; while one group waits for PostgreSQL, another is folded."""
        queues = [asyncio.Queue[Fetched | None](1) for _ in self._parts]

        async def read() -> None:
            async with self._feed(goal) as feed:
                async for fetched in feed:
                    for queue in queues:
                        await queue.put(fetched)
            for queue in queues:
                await queue.put(None)

        async def write(part: Part, queue: asyncio.Queue[Fetched | None]) -> None:
            async with connect(self._url) as connection:
                while fetched := await queue.get():
                    behind = self.after
                    await part.write(connection, fetched)
                    if self.after != behind:
                        self._report(goal)

        await together([read(), *map(write, self._parts, queues)])

    @asynccontextmanager
    async def _feed(self, goal: Mapping[str, int]) -> AsyncIterator[AsyncIterator[Fetched]]:
        """The batches up to and including these sequences."""

        def blobs(message: Recorded) -> list[BlobId]:
            return [blob for part in self._parts for blob in part.writer.fold.blobs(message)]

        source = batches(self._held, self.after, goal, blobs)
        async with (
            WordsAhead(self._values, self._processes) as words,
            aclosing(source),
            aclosing(with_blobs(source, self._files, blobs, words)) as feed,
        ):
            yield feed

    def _report(self, goal: Mapping[str, int]) -> None:
        after = self.after
        for stream, last in goal.items():
            self._progress(stream, after[stream], last)
