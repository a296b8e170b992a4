"""Cost of row-level security: a list and searches of traces as each role, against the same without policies."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import LiteralString

from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier, Literal
from rich.progress import Progress

from adapters.postgres import tables
from adapters.postgres.feed import BATCH
from adapters.postgres.policies import GATEWAY, READER, TENANTS
from adapters.postgres.writer import Writer
from ops.bench.indexes import database
from ops.bench.measure import Aim, Measure
from ops.bench.stack import Sizes, Stack
from ops.bench.trace_history import CALLS_PER_STORY, TraceHistory
from projections.catalog import READ_MODELS

Connection = AsyncConnection[TupleRow]

OURS, THEIRS = "default", "other"

_LIST: LiteralString = """
SELECT id, status, started_at, question, answer FROM headrace.traces
WHERE tenant_id = %(tenant)s ORDER BY started_at DESC, id DESC LIMIT 51
"""
_SEARCH: LiteralString = _LIST.replace("ORDER", "AND words @> %(words)s ORDER")

QUERIES: dict[str, LiteralString] = {"list": _LIST, "common": _SEARCH, "rare": _SEARCH}

_WORDS: LiteralString = """
SELECT array_agg(word) FILTER (WHERE place = 1), array_agg(word) FILTER (WHERE last <= 4) FROM (
    SELECT word, row_number() OVER (ORDER BY count(*) DESC, word) AS place,
        row_number() OVER (ORDER BY count(*), word) AS last
    FROM headrace.traces, unnest(words) AS word WHERE tenant_id = %s GROUP BY word) counted
"""
"""The word that most traces of a tenant have, and four that fewest have."""

READS = Aim(ratio_at_most=1.5)
"""Aim of the queries of our own readers."""


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    async with database(stack.settings.postgres_url) as url, AsyncExitStack() as opened:
        await tables.set_up(url)
        owner = await opened.enter_async_context(tables.connect(url))
        await _write(owner, sizes.calls // 2, bars)
        roles = {"reader": READER, "tenant": TENANTS, "gateway": GATEWAY}
        sessions = {"owner": owner}
        for name, role in roles.items():
            sessions[name] = await opened.enter_async_context(_session(url, owner, role))
        bar = bars.add_task("queries", total=len(QUERIES) * sizes.searches)
        measures = []
        [(common, rare)] = await (await owner.execute(_WORDS, (OURS,))).fetchall()
        sought = {"list": [], "common": common, "rare": rare}
        for query, statement in QUERIES.items():
            took: dict[str, list[float]] = {name: [] for name in sessions}
            for _ in range(sizes.searches):
                for name, session in sessions.items():
                    took[name].append(await _timed(session, statement, sought[query]))
                bars.advance(bar)
            limit, *others = (statistics.median(each) for each in took.values())
            measures += [
                Measure(f"policies.{query}.{name}", ms, "ms", limit, READS if role == READER else None)
                for (name, role), ms in zip(roles.items(), others, strict=True)
            ]
    return measures


async def _write(owner: Connection, calls: int, bars: Progress) -> None:
    """Write traces of this number of calls for each of two tenants."""
    bar = bars.add_task("policies", total=2)
    writer = Writer(READ_MODELS, tables.SCHEMA)
    for seed, tenant in enumerate((OURS, THEIRS)):
        history = TraceHistory(tenant, datetime.now(UTC), seed)
        for batch in history.batches(max(1, calls // CALLS_PER_STORY), BATCH):
            async with owner.transaction():
                await writer.write(owner, (batch, {}))
        bars.advance(bar)
    await owner.execute("VACUUM (ANALYZE) headrace.traces")


async def _timed(session: Connection, statement: LiteralString, words: list[str]) -> float:
    """Milliseconds of a query."""
    began = time.perf_counter()
    cursor = await session.execute(statement, {"tenant": OURS, "words": words})
    await cursor.fetchall()
    return (time.perf_counter() - began) * 1000


@asynccontextmanager
async def _session(url: str, owner: Connection, group: str) -> AsyncIterator[Connection]:
    """A session of a login in this group, which sees the rows of our tenant; the login goes again."""
    name, password = f"t_{secrets.token_hex(8)}", secrets.token_hex()
    login = Identifier(name)
    await owner.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(login, Literal(password)))
    try:
        await owner.execute(SQL("GRANT {} TO {}").format(Identifier(group), login))
        await owner.execute("INSERT INTO headrace_access.logins VALUES (%s, %s)", (name, OURS))
        async with tables.connect(make_conninfo(url, user=name, password=password)) as session:
            await session.execute("SELECT set_config('headrace.tenant', %s, false)", (OURS,))
            yield session
    finally:
        await owner.execute(SQL("DROP ROLE {}").format(login))
