"""Rows of traces and spans as the projector makes them, for the tests of the export."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier, Placeholder
from psycopg.types.json import Jsonb

from adapters.postgres.tables import connect
from domain.aggregate import new_id
from projections.engine.read_model import ReadModel
from projections.traces.spans import spans
from projections.traces.traces import traces

BEGAN = datetime(2026, 5, 4, 12, 0, 0, 123456, UTC)


def trace(sequence: int | None, id: str | None = None, **columns: Any) -> dict[str, Any]:
    """A trace that ended at a sequence, or that runs."""
    return {
        "id": id or new_id(),
        "tenant_id": "acme",
        "kind": "message",
        "name": "message.send",
        "question": "",
        "answer": "",
        "words": [],
        "models": [],
        "actor": "anonymous",
        **_ended(sequence),
        **columns,
    }


def span(sequence: int | None, of: str, id: str | None = None, **columns: Any) -> dict[str, Any]:
    """A span of a trace, that ended at a sequence or runs."""
    return {
        "id": id or new_id(),
        "tenant_id": "acme",
        "trace_id": of,
        "kind": "chat",
        "name": "chat gpt-x",
        "attributes": {"gen_ai.request.model": "gpt-x"},
        "attempt": 1,
        "noun": "message",
        "noun_id": of,
        **_ended(sequence),
        **columns,
    }


def traced(sequence: int | None, **columns: Any) -> list[dict[str, Any]]:
    """A trace and its handler, which ended at a sequence or is at work; that makes two spans."""
    whole = trace(sequence, **columns)
    return [whole, span(sequence, whole["id"], kind="handler", name="answer", attributes={})]


def _ended(sequence: int | None) -> dict[str, Any]:
    begun = {"sequence": 1, "log_position": sequence or 1, "started_at": BEGAN}
    if sequence is None:
        return {**begun, "status": "running"}
    return {**begun, "status": "ok", "ended_at": BEGAN + timedelta(seconds=2), "ended_sequence": sequence}


async def write(url: str, *rows: Mapping[str, Any], reached: int | None = None) -> None:
    """Put rows into their tables, and let the tables be at a sequence: that of the last row, if not said."""
    async with connect(url) as connection, connection.transaction():
        for row in rows:
            await _insert(connection, spans if "trace_id" in row else traces, row)
        last = max((row["log_position"] for row in rows), default=0) if reached is None else reached
        await connection.execute(
            "UPDATE headrace_projection.groups SET sequence = greatest(sequence, %s) WHERE stream = 'EVENTS'",
            (last,),
        )


async def _insert(connection: AsyncConnection[Any], model: ReadModel, row: Mapping[str, Any]) -> None:
    """Counts that a row does not say are zero."""
    given = dict(row)
    for column in model.table.columns:
        if not column.nullable and column.name not in given:
            given[column.name] = BEGAN if column.name in ("created_at", "updated_at") else 0
    values = {name: Jsonb(value) if "JSON" in str(model.table.c[name].type) else value for name, value in given.items()}
    statement = SQL("INSERT INTO {} ({}) VALUES ({})").format(
        Identifier("headrace", model.name),
        SQL(", ").join(map(Identifier, values)),
        SQL(", ").join(map(Placeholder, values)),
    )
    await connection.execute(statement, values)
