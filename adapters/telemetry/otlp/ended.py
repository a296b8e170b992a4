"""Ended rows of the tables, in the order of the log.

While a handler runs, its parts may be repeated, in the same rows; so all of them count as ended when the handler has,
and end once, whatever changes in a row later. A trace ends with the handler that it began with. A row that ends after
its handler, or has none, ends on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

Row = dict[str, Any]


class Place(NamedTuple):
    """The place of a row: the sequence of EVENTS that ended it; then spans before traces; then its id."""

    sequence: int = 0
    is_trace: int = 0
    id: str = ""

    @classmethod
    def of(cls, row: Row) -> Place:
        return cls(row["place"], row["is_trace"], row["id"])


BEGINNING = Place()

AFTER_ALL = 2
"""A value of `is_trace` that sorts after all rows of a sequence."""


class Behind(NamedTuple):
    """The number of rows that ended after a place, counted up to a limit, and the time of the oldest of them."""

    rows: int
    since: datetime | None


COUNTED = 10_000
"""Maximum number of rows that are counted."""


class Window(NamedTuple):
    """A window of the log: up to this sequence; `whole` when the tables have no more."""

    upto: int
    whole: bool


# A projector's batch is visible as a whole. A window is sized by the spans that end in it, not all of which can be
# sent, so a window without rows is not the end.
_WINDOW = """
SELECT least(sequence, next) AS upto, coalesce(next >= sequence, true) AS whole FROM headrace_projection.groups,
    (SELECT (SELECT ended_sequence FROM headrace.spans WHERE ended_sequence > %(sequence)s
        ORDER BY ended_sequence OFFSET %(limit)s - 1 LIMIT 1) AS next) span
WHERE name = 'traces' AND stream = 'EVENTS'
"""

_AFTER = """
WITH closed AS (
    SELECT tenant_id, trace_id, noun_id, id, kind, sequence, ended_sequence, ended_at FROM headrace.spans
    WHERE ended_sequence >= %(sequence)s AND ended_sequence <= %(upto)s
),
ended AS (
    SELECT handler.ended_sequence AS place, 0 AS is_trace, part.tenant_id, part.id, handler.ended_at
    FROM closed handler JOIN headrace.spans part USING (tenant_id, trace_id, noun_id)
    WHERE handler.kind = 'handler' AND part.ended_sequence <= handler.ended_sequence
    UNION ALL
    SELECT handler.ended_sequence, 1, handler.tenant_id, handler.id, handler.ended_at
    FROM closed handler JOIN headrace.traces trace
        ON trace.tenant_id = handler.tenant_id AND trace.id = handler.trace_id AND trace.sequence = handler.sequence
    WHERE handler.kind = 'handler'
    UNION ALL
    SELECT part.ended_sequence, 0, part.tenant_id, part.id, part.ended_at
    FROM closed part LEFT JOIN headrace.spans handler
        ON handler.tenant_id = part.tenant_id AND handler.trace_id = part.trace_id
            AND handler.noun_id = part.noun_id AND handler.kind = 'handler'
    WHERE part.kind <> 'handler' AND (handler.id IS NULL OR handler.ended_sequence < part.ended_sequence)
),
further AS (
    SELECT * FROM ended WHERE (place, is_trace, id) > (%(sequence)s, %(is_trace)s, %(id)s)
    ORDER BY place, is_trace, id LIMIT %(limit)s
)
"""

_ROWS = f"""{_AFTER}
SELECT place, is_trace, further.id, to_jsonb(span) AS span, to_jsonb(trace) - 'words' AS trace,
    CASE WHEN %(content)s THEN to_jsonb(call) || jsonb_build_object('request', sent.request) END AS call,
    CASE WHEN %(content)s THEN to_jsonb(found) END AS retrieval, found.hits, to_jsonb(tool) AS tool
FROM further JOIN headrace.spans span USING (tenant_id, id)
LEFT JOIN headrace.traces trace ON trace.tenant_id = further.tenant_id AND trace.id = span.trace_id
LEFT JOIN headrace.model_calls call
    ON %(content)s AND call.tenant_id = further.tenant_id AND call.id = span.model_call_id
LEFT JOIN LATERAL headrace.put_together(call.tenant_id, call.request) sent ON call.id IS NOT NULL
LEFT JOIN headrace.tool_calls tool
    ON %(content)s AND tool.tenant_id = further.tenant_id AND tool.id = span.tool_call_id
LEFT JOIN headrace.retrievals found ON found.tenant_id = further.tenant_id AND found.id = span.retrieval_id
ORDER BY place, is_trace, further.id
"""

_BEHIND = f"{_AFTER} SELECT count(*) AS rows, min(ended_at) AS since FROM further"


async def window(connection: AsyncConnection[Any], after: Place, limit: int) -> Window:
    """The sequence up to which about `limit` spans have ended after a place."""
    async with connection.cursor(row_factory=class_row(Window)) as rows:
        await rows.execute(_WINDOW.encode(), {"sequence": after.sequence, "limit": limit})
        [found] = await rows.fetchall()
        return found


async def ended(
    connection: AsyncConnection[Any], after: Place, upto: int, limit: int, *, content: bool = False
) -> Sequence[Row]:
    """The rows that ended after a place, up to a sequence and a limit.

    Each is a `span` and its `trace`, or with `is_trace` the trace itself and the handler that ended it; with `content`,
    the `call`, the `tool` or the `retrieval` of a span, too.
    """
    async with connection.cursor(row_factory=dict_row) as rows:
        await rows.execute(_ROWS.encode(), {**after._asdict(), "upto": upto, "limit": limit, "content": content})
        return await rows.fetchall()


async def behind(connection: AsyncConnection[Any], after: Place) -> Behind:
    """The rows that have ended and were not sent."""
    upto = (await window(connection, after, COUNTED)).upto
    async with connection.cursor(row_factory=class_row(Behind)) as rows:
        await rows.execute(_BEHIND.encode(), {**after._asdict(), "upto": upto, "limit": COUNTED})
        [found] = await rows.fetchall()
        return found
