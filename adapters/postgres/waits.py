"""What waits for longer than it should, as the tables say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.postgres.tables import connect
from handlers.ports.log import Wait

SWEEP_LOCK = 0x6865616472616365 + 100
"""Advisory lock of the database."""

_OVERDUE = """
SELECT 'document', tenant_id, id, NULL, indexing_status, attempt, updated_at, log_position, ARRAY['ingest'],
    trace_id, NULL
FROM headrace.documents
WHERE indexing_status NOT IN ('completed', 'error') AND updated_at < now() - %(deadline)s * interval '1 second'
UNION ALL
SELECT 'settling', tenant_id, id, NULL, index_status, attempt, updated_at, log_position, ARRAY['settle'],
    trace_id, NULL
FROM headrace.documents
WHERE index_status = 'changing' AND indexing_status IN ('completed', 'error')
    AND updated_at < now() - %(deadline)s * interval '1 second'
UNION ALL
SELECT 'message', tenant_id, id, conversation_id, status, attempt, updated_at, log_position, ARRAY['answer'],
    trace_id, person_id
FROM headrace.messages
WHERE status IN ('asked', 'answering') AND updated_at < now() - %(deadline)s * interval '1 second'
UNION ALL
SELECT 'replay', tenant_id, id, NULL, status, 0, updated_at, log_position, ARRAY['replay'],
    correlation_id, person_id
FROM headrace.replays
WHERE status = 'requested' AND updated_at < now() - %(deadline)s * interval '1 second'
UNION ALL
SELECT 'model_call', tenant_id, id, NULL, status, 0, updated_at, log_position,
    CASE cause_noun
        WHEN 'document' THEN ARRAY['ingest', 'settle', 'reindex'] WHEN 'replay' THEN ARRAY['replay']
        ELSE ARRAY['answer']
    END,
    correlation_id, person_id
FROM headrace.model_calls call
WHERE status = 'requested' AND updated_at < now() - %(deadline)s * interval '1 second'
    AND cause_noun IN ('document', 'message', 'replay')
    AND NOT EXISTS (
        SELECT FROM headrace.documents cause
        WHERE cause.tenant_id = call.tenant_id AND cause.id = call.cause_id
            AND indexing_status NOT IN ('completed', 'error')
    )
    AND NOT EXISTS (
        SELECT FROM headrace.messages cause
        WHERE cause.tenant_id = call.tenant_id AND cause.id = call.cause_id AND cause.status IN ('asked', 'answering')
    )
    AND NOT EXISTS (
        SELECT FROM headrace.replays cause
        WHERE cause.tenant_id = call.tenant_id AND cause.id = call.cause_id AND cause.status = 'requested'
    )
ORDER BY updated_at LIMIT %(limit)s
"""

LIMIT = 1000


async def overdue(url: str, deadline_s: float, limit: int = LIMIT) -> list[Wait]:
    """What has not changed for so long and should; those first that have waited longest.

    That is: documents, messages and replays that have not ended, and model calls whose cause has, or is gone.
    """
    async with connect(url) as connection:
        cursor = await connection.execute(_OVERDUE, {"deadline": deadline_s, "limit": limit})
        return [Wait(*row) for row in await cursor.fetchall()]


@asynccontextmanager
async def only_one(url: str) -> AsyncIterator[bool]:
    """Whether nobody else sweeps; nobody begins to before the context ends."""
    async with connect(url) as connection:
        cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (SWEEP_LOCK,))
        yield await cursor.fetchone() == (True,)
