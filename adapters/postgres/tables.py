"""The tables of the read models in PostgreSQL: made, compared, waited for. Never migrated: rebuilt instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement, SetColumnComment, SetTableComment

from adapters.postgres import policies
from adapters.postgres.agent_thoughts import AGENT_THOUGHTS
from adapters.postgres.budgets import BUDGETS
from adapters.postgres.operation_logs import OPERATION_LOGS
from adapters.postgres.policies import READER
from adapters.postgres.requests import REQUESTS
from adapters.postgres.rights import restrict
from adapters.postgres.rules import digest
from adapters.postgres.views import make_view
from adapters.postgres.workflow_app_logs import WORKFLOW_APP_LOGS
from domain.log import EVENTS, OUTCOMES, Position
from projections.catalog import GROUP_OF, GROUPS, READ_MODELS
from projections.engine.read_model import ReadModel

SCHEMA = "headrace"
NEXT = "headrace_next"
"""Schema in which tables are rebuilt, before they are swapped in."""

OLD = "headrace_old"
"""Where the tables are kept that were swapped out; they stay as they are."""

STREAMS = (EVENTS, OUTCOMES)

LOCK_TRIES = 10
LOCK_S = 3
"""Readers of a table are waited for so long, and then let by, so that new ones never queue for longer behind them."""

MARK = "Made by Headrace."
"""The comment on our indexes, which tells them from those of others."""

SET_UP_LOCK, PROJECTOR_LOCK, REBUILD_LOCK, EXPORT_LOCK, MONITOR_LOCK, RIGHTS_LOCK = (
    0x6865616472616365 + number for number in (0, 1, 2, 3, 4, 102)
)
"""Advisory locks of the database, which readers cannot take."""

_DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]

_SET_UP = b"""
CREATE SCHEMA IF NOT EXISTS headrace;
COMMENT ON SCHEMA headrace IS 'Read tables of Headrace. Nothing here is the record: all of it is rebuilt from the log.';
CREATE SCHEMA IF NOT EXISTS headrace_projection;
COMMENT ON SCHEMA headrace_projection IS 'How far the tables in schema headrace are.';
CREATE TABLE IF NOT EXISTS headrace_projection.checkpoints (stream text PRIMARY KEY, sequence bigint NOT NULL);
COMMENT ON TABLE headrace_projection.checkpoints IS 'Lowest position of all groups, for each stream.';
COMMENT ON COLUMN headrace_projection.checkpoints.stream IS 'Stream of the log.';
COMMENT ON COLUMN headrace_projection.checkpoints.sequence IS 'Sequence of its last message that is in all tables.';
CREATE TABLE IF NOT EXISTS headrace_projection.groups (
    name text, stream text, sequence bigint NOT NULL, state text NOT NULL DEFAULT 'running', reason text,
    PRIMARY KEY (name, stream)
);
COMMENT ON TABLE headrace_projection.groups IS
    'Position of each group of tables. The tables of a group stand at one moment; a halted group stops no other.';
COMMENT ON COLUMN headrace_projection.groups.name IS 'Group: knowledge, chat, traces, work or access.';
COMMENT ON COLUMN headrace_projection.groups.stream IS 'Stream of the log.';
COMMENT ON COLUMN headrace_projection.groups.sequence IS 'Sequence of its last message that is in these tables.';
COMMENT ON COLUMN headrace_projection.groups.state IS 'running or halted.';
COMMENT ON COLUMN headrace_projection.groups.reason IS 'Reason of the halt, and what to do; null while running.';
CREATE TABLE IF NOT EXISTS headrace_projection.copies (
    schema text, name text, stream text, sequence bigint NOT NULL, version text NOT NULL,
    PRIMARY KEY (schema, name, stream)
);
COMMENT ON TABLE headrace_projection.copies IS
    'Position of the tables that are not live, by group: those that are being made, and those that were swapped out.';
COMMENT ON COLUMN headrace_projection.copies.schema IS 'Schema that the tables are in.';
COMMENT ON COLUMN headrace_projection.copies.name IS 'Group: knowledge, chat, traces, work or access.';
COMMENT ON COLUMN headrace_projection.copies.stream IS 'Stream of the log.';
COMMENT ON COLUMN headrace_projection.copies.sequence IS 'Sequence of its last message that is in the tables.';
COMMENT ON COLUMN headrace_projection.copies.version IS 'Version that made them; only that one resumes them.';
CREATE TABLE IF NOT EXISTS headrace_projection.tables
    (schema text, name text, rules text NOT NULL, waits_for text, PRIMARY KEY (schema, name));
COMMENT ON TABLE headrace_projection.tables IS
    'Rules that made each table. The projector rebuilds those that other rules than its own made.';
COMMENT ON COLUMN headrace_projection.tables.schema IS 'Schema that the table is in.';
COMMENT ON COLUMN headrace_projection.tables.name IS 'Name of the table.';
COMMENT ON COLUMN headrace_projection.tables.rules IS 'Digest of the rules; empty when it is not known.';
COMMENT ON COLUMN headrace_projection.tables.waits_for IS
    'What stops the projector from rebuilding the table, and what to do; null when nothing does.';
CREATE TABLE IF NOT EXISTS headrace_projection.quarantine (
    stream text, sequence bigint, id text NOT NULL, tenant_id text NOT NULL, subject text NOT NULL,
    reason text NOT NULL, newer boolean NOT NULL, held_by bigint, version text NOT NULL,
    created_at timestamptz NOT NULL, discarded_at timestamptz, discarded_by bigint, PRIMARY KEY (stream, sequence)
);
COMMENT ON TABLE headrace_projection.quarantine IS
    'Messages of the log that cannot be read. They count for nothing, and freeze the aggregate of their subject.';
COMMENT ON COLUMN headrace_projection.quarantine.stream IS 'Stream of the message.';
COMMENT ON COLUMN headrace_projection.quarantine.sequence IS 'Its sequence in that stream.';
COMMENT ON COLUMN headrace_projection.quarantine.id IS 'Id of the quarantine, for the command quarantine.discard.';
COMMENT ON COLUMN headrace_projection.quarantine.tenant_id IS 'Tenant in its subject.';
COMMENT ON COLUMN headrace_projection.quarantine.subject IS 'Its subject: of the aggregate, or of the outcome.';
COMMENT ON COLUMN headrace_projection.quarantine.reason IS 'Reason why it cannot be read, or waits.';
COMMENT ON COLUMN headrace_projection.quarantine.newer IS
    'A newer version wrote it: upgrade, and the tables are rebuilt with it.';
COMMENT ON COLUMN headrace_projection.quarantine.held_by IS
    'Sequence of the earlier message that froze its aggregate; null for that one itself.';
COMMENT ON COLUMN headrace_projection.quarantine.version IS 'Digest of the events that the reader knew.';
COMMENT ON COLUMN headrace_projection.quarantine.created_at IS 'Time at which the log took it.';
COMMENT ON COLUMN headrace_projection.quarantine.discarded_at IS 'Time at which it was discarded; null before.';
COMMENT ON COLUMN headrace_projection.quarantine.discarded_by IS
    'Sequence in EVENTS of the decision to discard it; null before.';
INSERT INTO headrace_projection.checkpoints VALUES ('EVENTS', 0), ('OUTCOMES', 0) ON CONFLICT DO NOTHING;
GRANT USAGE ON SCHEMA headrace_projection TO headrace_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA headrace_projection TO headrace_reader;
"""


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A connection that commits without waiting for the disk: what a crash takes away, the log brings back."""
    async with await AsyncConnection.connect(url, autocommit=True, application_name="headrace") as connection:
        await connection.execute(
            "SET synchronous_commit = off; SET jit = off; SET timezone = 'UTC'; SET client_min_messages = warning"
        )
        yield connection


async def set_up(url: str) -> None:
    """Make what is missing: schemas, roles, policies, and the tables as long as nothing of the log is in them.

    Safe to call from several processes at once. Tables that must be rebuilt are left to `rebuild`.
    """
    async with connect(url) as connection:
        await make_roles(connection)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SET_UP_LOCK,))
            await connection.execute(_SET_UP)
            await policies.set_up(connection)
            await connection.execute(
                "INSERT INTO headrace_projection.groups SELECT name, stream, sequence "
                "FROM headrace_projection.checkpoints, unnest(%s::text[]) name "
                "WHERE stream = ANY(%s) ON CONFLICT DO NOTHING",
                (list(GROUPS), list(STREAMS)),
            )
            if not any((await positions(connection)).values()):
                found = await _columns_of(connection, SCHEMA)
                for model in READ_MODELS:
                    if model.name not in found:
                        await make_table(connection, model, SCHEMA)
            outdated = await reshaped(connection)
            for model in READ_MODELS:
                if model not in outdated:
                    await finish_table(connection, model, SCHEMA)
            await make_views(connection)
        await protect(connection)


async def make_views(connection: AsyncConnection[TupleRow]) -> None:
    """Make the views whose tables are there."""
    readers = await policies.existing(connection)
    for view in (REQUESTS, OPERATION_LOGS, BUDGETS, AGENT_THOUGHTS, WORKFLOW_APP_LOGS):
        await make_view(connection, view, readers)


async def protect(connection: AsyncConnection[TupleRow]) -> None:
    """Make the policies that live tables lack: those of an earlier version, or that were made before the roles.

    Raises: LockNotAvailable when readers never let go of a table.
    """
    for table in await policies.missing(connection, SCHEMA, [model.name for model in READ_MODELS]):
        for attempt in range(1, LOCK_TRIES + 1):
            try:
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SET_UP_LOCK,))
                    await connection.execute(SQL("SET LOCAL lock_timeout = '{}s'").format(LOCK_S))
                    await policies.protect(connection, SCHEMA, table)
                break
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                if attempt == LOCK_TRIES:
                    raise
                await asyncio.sleep(LOCK_S)


async def make_roles(connection: AsyncConnection[TupleRow]) -> None:
    """Make the roles that read, and restrict what every role can do in this database."""
    await policies.make_roles(connection)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (RIGHTS_LOCK,))
        await restrict(connection)


async def make_table(connection: AsyncConnection[TupleRow], model: ReadModel, schema: str) -> None:
    """The empty table, with its policies, and the indexes that its rules need; `finish_table` adds the others."""
    table = model.table.to_metadata(MetaData(), schema=schema)
    await connection.execute(_sql(CreateTable(table)))
    for index in table.indexes:
        if index.name in model.lookups:
            await connection.execute(_sql(CreateIndex(index)))
    await policies.protect(connection, schema, model.name)
    grant = SQL("GRANT SELECT ON {} TO {}").format(name(model, schema), Identifier(READER))
    await connection.execute(grant)
    await connection.execute(
        "INSERT INTO headrace_projection.tables VALUES (%s, %s, %s) "
        "ON CONFLICT (schema, name) DO UPDATE SET (rules, waits_for) = ROW(excluded.rules, NULL)",
        (schema, model.name, digest(model.name)),
    )


async def finish_table(connection: AsyncConnection[TupleRow], model: ReadModel, schema: str) -> None:
    """Add the missing indexes, and comments."""
    table = model.table.to_metadata(MetaData(), schema=schema)
    cursor = await connection.execute(
        "SELECT indexname FROM pg_indexes WHERE (schemaname, tablename) = (%s, %s)", (schema, model.name)
    )
    there = {indexname for (indexname,) in await cursor.fetchall()}
    # IF NOT EXISTS locks out writers even where the index exists: with several tables that can deadlock.
    missing = [index for index in table.indexes if index.name not in there]
    statements: list[ExecutableDDLElement] = [CreateIndex(index, if_not_exists=True) for index in missing]
    statements += [SetTableComment(table), *map(SetColumnComment, table.columns)]
    await connection.execute(b";".join(map(_sql, statements)))
    for index in table.indexes:
        marked = SQL("COMMENT ON INDEX {} IS {}").format(Identifier(schema, str(index.name)), Literal(MARK))
        await connection.execute(marked)


def _sql(statement: ExecutableDDLElement) -> bytes:
    return str(statement.compile(dialect=_DIALECT)).encode()


def name(model: ReadModel, schema: str = SCHEMA) -> Identifier:
    return Identifier(schema, model.name)


async def stale(
    connection: AsyncConnection[TupleRow], models: Sequence[ReadModel] = READ_MODELS, schema: str = SCHEMA
) -> list[ReadModel]:
    """The read models whose tables are missing, have other columns than this version's, or were made by other rules."""
    cursor = await connection.execute("SELECT name, rules FROM headrace_projection.tables WHERE schema = %s", (schema,))
    made_by: dict[str, str] = dict(await cursor.fetchall())
    others = await reshaped(connection, models, schema)
    return [model for model in models if model in others or made_by.get(model.name) != digest(model.name)]


async def reshaped(
    connection: AsyncConnection[TupleRow], models: Sequence[ReadModel] = READ_MODELS, schema: str = SCHEMA
) -> list[ReadModel]:
    """The read models whose tables are missing, or have other columns than this version's."""
    found = await _columns_of(connection, schema)
    return [model for model in models if found.get(model.name) != _columns(model)]


async def _columns_of(connection: AsyncConnection[TupleRow], schema: str) -> dict[str, list[list[str]]]:
    """The tables of a schema, and their columns."""
    cursor = await connection.execute(
        """SELECT relname, array_agg(ARRAY[attname, format_type(atttypid, atttypmod), attnotnull::text] ORDER BY attnum)
        FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
        WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r' AND attnum > 0 AND NOT attisdropped GROUP BY 1""",
        (schema,),
    )
    return dict(await cursor.fetchall())


def _columns(model: ReadModel) -> list[list[str]]:
    return [
        [
            column.name,
            column.type.compile(_DIALECT).partition(" COLLATE ")[0].lower(),
            "false" if column.nullable else "true",
        ]
        for column in model.table.columns
    ]


async def positions(connection: AsyncConnection[TupleRow]) -> dict[str, int]:
    """The lowest position of all groups, for each stream: so much is in all tables."""
    cursor = await connection.execute("SELECT stream, sequence FROM headrace_projection.checkpoints ORDER BY stream")
    return dict(await cursor.fetchall())


async def group_positions(
    connection: AsyncConnection[TupleRow], groups: Iterable[str] = GROUPS, *, lock: bool = False
) -> dict[str, dict[str, int]]:
    """The positions of these groups, by stream; with `lock`, they do not change before the transaction ends."""
    query = "SELECT name, stream, sequence FROM headrace_projection.groups WHERE name = ANY(%s) ORDER BY name, stream"
    cursor = await connection.execute(f"{query} FOR UPDATE" if lock else query, (list(groups),))
    return _by_group(await cursor.fetchall())


def _by_group(rows: Iterable[TupleRow]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for group, stream, sequence in rows:
        found.setdefault(group, {})[stream] = sequence
    return found


async def move(connection: AsyncConnection[TupleRow], groups: Iterable[str], reached: Mapping[str, int]) -> None:
    """Note that the tables of these groups hold the streams up to these sequences."""
    await connection.cursor().executemany(
        "UPDATE headrace_projection.groups SET sequence = %s WHERE stream = %s AND name = ANY(%s)",
        [(sequence, stream, list(groups)) for stream, sequence in reached.items()],
    )
    await connection.execute("SELECT FROM headrace_projection.checkpoints FOR UPDATE")  # groups that move meanwhile
    await connection.execute(
        """UPDATE headrace_projection.checkpoints c SET sequence = lowest.sequence
        FROM (SELECT stream, min(sequence) AS sequence FROM headrace_projection.groups GROUP BY stream) lowest
        WHERE c.stream = lowest.stream AND c.sequence <> lowest.sequence"""
    )


async def note_state(connection: AsyncConnection[TupleRow], groups: Iterable[str], reason: str | None) -> None:
    """Note that these groups have halted, for this reason, or with None that they run."""
    await connection.execute(
        "UPDATE headrace_projection.groups SET (state, reason) = ROW(CASE WHEN %(reason)s::text IS NULL THEN 'running' "
        "ELSE 'halted' END, %(reason)s::text) WHERE name = ANY(%(groups)s) AND reason IS DISTINCT FROM %(reason)s",
        {"reason": reason, "groups": list(groups)},
    )


async def halted(connection: AsyncConnection[TupleRow]) -> dict[str, str]:
    """The groups that have halted, and why."""
    cursor = await connection.execute(
        "SELECT DISTINCT name, reason FROM headrace_projection.groups WHERE state = 'halted' ORDER BY name"
    )
    return dict(await cursor.fetchall())


async def copied(connection: AsyncConnection[TupleRow], schema: str, version: str) -> dict[str, dict[str, int]]:
    """Return the positions, by stream, of the groups of tables in a schema, if this version made them; else {}."""
    cursor = await connection.execute(
        "SELECT name, stream, sequence FROM headrace_projection.copies WHERE (schema, version) = (%s, %s) "
        "ORDER BY name, stream",
        (schema, version),
    )
    return _by_group(await cursor.fetchall())


async def note_copied(
    connection: AsyncConnection[TupleRow], schema: str, version: str, groups: Iterable[str], reached: Mapping[str, int]
) -> None:
    """Note that the tables of these groups in a schema hold the streams up to these sequences."""
    await connection.cursor().executemany(
        "INSERT INTO headrace_projection.copies VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT (schema, name, stream) DO UPDATE SET (sequence, version) = (excluded.sequence, excluded.version)",
        [(schema, group, stream, sequence, version) for group in groups for stream, sequence in reached.items()],
    )


async def note_waiting(connection: AsyncConnection[TupleRow], models: Iterable[ReadModel], reason: str) -> None:
    """Note why these tables cannot be rebuilt, for `waiting`."""
    await connection.cursor().executemany(
        "INSERT INTO headrace_projection.tables VALUES (%s, %s, '', %s) "
        "ON CONFLICT (schema, name) DO UPDATE SET waits_for = excluded.waits_for",
        [(SCHEMA, model.name, reason) for model in models],
    )


async def waiting(connection: AsyncConnection[TupleRow]) -> dict[str, str]:
    """Return the tables that cannot be rebuilt, each with the reason."""
    cursor = await connection.execute(
        "SELECT name, waits_for FROM headrace_projection.tables WHERE schema = %s AND waits_for IS NOT NULL ORDER BY 1",
        (SCHEMA,),
    )
    return dict(await cursor.fetchall())


async def drop(connection: AsyncConnection[TupleRow], schema: str) -> None:
    """Drop a schema of tables that are not live, and the positions of those."""
    await connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
    await connection.execute("DELETE FROM headrace_projection.copies WHERE schema = %s", (schema,))
    await connection.execute("DELETE FROM headrace_projection.tables WHERE schema = %s", (schema,))


async def turn(connection: AsyncConnection[TupleRow], lock: int) -> None:
    """Wait for an advisory lock, and keep it as long as the connection.

    By asking again and again: a session that waits inside the server would hold back its vacuum.
    """
    while not await _taken(connection, lock):
        await asyncio.sleep(0.5)


async def _taken(connection: AsyncConnection[TupleRow], lock: int) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (lock,))
    return await cursor.fetchone() == (True,)


async def in_quarantine(connection: AsyncConnection[TupleRow]) -> int:
    """The number of messages in quarantine."""
    cursor = await connection.execute("SELECT count(*) FROM headrace_projection.quarantine WHERE discarded_at IS NULL")
    [[count]] = await cursor.fetchall()
    return int(count)


async def wait_for(url: str, position: Position, timeout_s: float = 30.0, *, tables: Iterable[str] = ()) -> None:
    """Wait until these tables, or all, hold what was recorded at this position.

    Raises: TimeoutError; KeyError for a name that no table has.
    """
    groups = {GROUP_OF[name] for name in tables} or GROUPS.keys()
    async with asyncio.timeout(timeout_s), connect(url) as connection:
        reached = 0
        while reached < position.sequence:
            with suppress(errors.UndefinedTable):  # the schema is not set up yet
                found = await group_positions(connection, groups)
                reached = min((each[position.stream] for each in found.values()), default=0)
            await asyncio.sleep(0 if reached >= position.sequence else 0.01)


async def table_digests(url: str, schema: str = SCHEMA) -> dict[str, str]:
    """For every table, its number of rows and a digest of all they hold: equal tables have equal digests."""
    async with connect(url) as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return {model.name: await _digest(connection, model, schema) for model in READ_MODELS}


async def _digest(connection: AsyncConnection[TupleRow], model: ReadModel, schema: str) -> str:
    query = SQL(
        "SELECT count(*) || ' ' || md5(coalesce(string_agg(md5(t::text), '' ORDER BY tenant_id, {}), '')) FROM {} t"
    )
    cursor = await connection.execute(query.format(Identifier(model.key), name(model, schema)))
    rows: Iterable[tuple[str]] = await cursor.fetchall()
    return next(iter(rows))[0]
