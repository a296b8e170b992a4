"""Comparison of live tables with fresh ones, row for row at the same position, while the projector runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, dict_row
from psycopg.sql import SQL, Composed, Identifier

from adapters.postgres.copy import Copy, parts, with_parents
from adapters.postgres.tables import REBUILD_LOCK, connect, drop, name, reshaped, set_up, turn
from handlers.files import Files
from handlers.ports.log import Log
from handlers.work.progress import Progress, no_progress
from projections.catalog import READ_MODELS
from projections.engine.read_model import ReadModel
from projections.engine.values import BUILT_IN, Values

FRESH = "headrace_check"
"""Where the fresh tables are, as long as that takes."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of a live table and of a fresh one, how many of all those are not alike, and a sentence on the first."""

    table: str
    live: int
    fresh: int
    different: int
    first: str | None


async def compare(
    url: str,
    log: Log,
    files: Files,
    names: Iterable[str] = (),
    progress: Progress = no_progress,
    values: Values = BUILT_IN,
    processes: int = 1,
) -> list[Comparison]:
    """Compare the tables of these names, or all, and those they depend on. What is made for that goes again.

    What calls cost is left out where the live tables have it by other prices than this program's.

    Raises: KeyError for a name that no table has, Gap.
    """
    await set_up(url)
    models = with_parents(names)
    async with connect(url) as connection:
        await turn(connection, REBUILD_LOCK)
        found: dict[str, Comparison] = {}
        for part in await parts(connection, models):
            copy = Copy(url, connection, FRESH, part, log, files, progress, values, processes, passing=True)
            try:
                await copy.begin()
                await copy.near()
                await copy.analyze()
                async with connection.transaction():
                    # What is read stays as it is now, and what is written here is read too.
                    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    await copy.to(await copy.goal())
                    outdated = await reshaped(connection, part)
                    old = await reshaped(connection)
                    priced = [model for model in READ_MODELS if "price_version" in model.blank and model not in old]
                    repriced = any([await _repriced(connection, model, values) for model in priced])
                    for model in part:
                        found[model.name] = await _compared(connection, model, outdated, repriced=repriced)
            finally:
                await drop(connection, FRESH)
        return [found[model.name] for model in models]


async def _repriced(connection: AsyncConnection[TupleRow], model: ReadModel, values: Values) -> bool:
    """Return True when some live rows were made with other prices."""
    query = SQL("SELECT EXISTS (SELECT FROM {} WHERE price_version <> %s)").format(name(model))
    return await (await connection.execute(query, (values.prices.version,))).fetchone() == (True,)


def _unlike(model: ReadModel, *, repriced: bool) -> Composed:
    if not (repriced and model.prices):
        return SQL("(l.*) IS DISTINCT FROM (f.*)").format()
    columns = [Identifier(column) for column in model.blank if column not in model.prices]
    live, fresh = (
        SQL(", ").join(SQL("{}.{}").format(Identifier(side), column) for column in columns) for side in ("l", "f")
    )
    return SQL("ROW({}) IS DISTINCT FROM ROW({})").format(live, fresh)


async def _compared(
    connection: AsyncConnection[TupleRow], model: ReadModel, outdated: Collection[ReadModel], *, repriced: bool
) -> Comparison:
    if model in outdated:
        cursor = await connection.execute(SQL("SELECT count(*) FROM {}").format(name(model, FRESH)))
        [[fresh]] = await cursor.fetchall()
        first = "The table is missing, or has other columns than this version's."
        return Comparison(model.name, 0, fresh, fresh, first)
    parts = {"live": name(model), "fresh": name(model, FRESH), "key": Identifier(model.key)}
    pairs = SQL("{live} l FULL JOIN {fresh} f USING (tenant_id, {key})").format(**parts)
    unlike = _unlike(model, repriced=repriced)
    cursor = await connection.execute(
        SQL("SELECT count(l.log_position), count(f.log_position), count(*) FILTER (WHERE {}) FROM {}").format(
            unlike, pairs
        )
    )
    [[live, fresh, different]] = await cursor.fetchall()
    if not different:
        return Comparison(model.name, live, fresh, 0, None)
    async with connection.cursor(row_factory=dict_row) as rows:
        query = SQL(
            "SELECT tenant_id, {key} AS key, to_jsonb(l) AS live, to_jsonb(f) AS fresh FROM {pairs} WHERE {unlike} "
            "ORDER BY tenant_id, {key} LIMIT 1"
        )
        await rows.execute(query.format(key=parts["key"], pairs=pairs, unlike=unlike))
        [row] = await rows.fetchall()
    return Comparison(model.name, live, fresh, different, _sentence(row))


def _sentence(row: Mapping[str, Any]) -> str:
    which = f"Row {row['key']} of tenant {row['tenant_id']}"
    if row["live"] is None:
        return f"{which} is missing."
    if row["fresh"] is None:
        return f"{which} should not be there."
    columns = [column for column, value in row["fresh"].items() if row["live"][column] != value]
    return f"{which} differs in {', '.join(columns)}."
