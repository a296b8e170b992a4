"""Puts all recorded prompts together twice, from the log and in the tables, and compares them."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg

from adapters.many import each
from domain.aggregate import Rejection
from domain.models.model_call import ModelCall
from domain.models.piece import whole
from handlers.models.recorded import read
from handlers.ports.log import Unavailable
from handlers.repository import Repository
from handlers.work.audit import Check
from handlers.work.progress import Progress
from ops.terminal import one_line

READS = 16
"""Prompts that are put together at a time."""

_COUNT: LiteralString = "SELECT count(*) FROM headrace.model_calls WHERE kind = 'chat' AND request <> '{}'"

_CALLS: LiteralString = """
SELECT request.tenant_id, request.id, request.request -> 'messages'
FROM headrace.model_calls call JOIN headrace.model_call_requests request USING (tenant_id, id)
WHERE call.kind = 'chat' AND call.request <> '{}'
"""


async def prompts(url: str, repository: Repository, progress: Progress) -> Check:
    """Compare the prompts of all calls of chat models. Raises: Unavailable."""
    check = Check("whole prompts", "prompts are the same from the log and in the tables", "headrace rebuild")

    async def look(call: tuple[str, str, list[dict[str, Any]]]) -> None:
        tenant, id, messages = call
        made = await repository.first(ModelCall, tenant, id)
        recorded = made.events[0] if made else None
        try:
            if not isinstance(recorded, ModelCall.Requested):
                raise Rejection("not_found", "it is not in the log")
            sent = await read(repository, tenant, recorded.request.get("messages") or ())
        except Rejection as rejection:
            check.fault(f"model call {id} of {tenant}: {rejection.message}")
        else:
            if messages != [whole(message) for message in sent]:
                check.fault(f"model call {id} of {tenant}: its prompt is another one in the tables")
        check.checked += 1
        progress("prompts", check.checked, max(total, check.checked))

    try:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            [[total]] = await (await connection.execute(_COUNT)).fetchall()
            async with connection.cursor("prompts") as cursor:
                await cursor.execute(_CALLS)
                while calls := await cursor.fetchmany(20 * READS):
                    await each(calls, look, READS)
    except psycopg.Error as error:
        raise Unavailable(f"PostgreSQL: {one_line(error)}") from error
    return check
