"""Queries in SQL, with their results as a table or a download."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import get_args

from psycopg.sql import SQL, Identifier
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from adapters.web.viewer import query
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.query import Form, Refused, Table, export, run
from adapters.web.viewer.render import as_json, render, tenant, wants_json

LONGEST = 32_000
"""Maximum length of a query, which is part of the address, in characters."""

BRIEF = 60
"""Length of a cell that is shown without opening it, in characters."""

MEDIA_TYPES = {"csv": "text/csv", "jsonl": "application/jsonl"}

EXAMPLES: Mapping[str, str] = {
    "Slowest answers of a day": """SELECT started_at, duration_ms, first_token_ms, model, question, id
FROM traces
WHERE tenant_id = '{tenant}' AND kind = 'message' AND started_at > now() - interval '1 day'
ORDER BY duration_ms DESC NULLS LAST
LIMIT 50""",
    "Calls, tokens and cost by model and day": """SELECT date_trunc('day', created_at)::date AS day, provider, model,
    count(*) AS calls, sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens,
    sum(cost) AS cost, count(*) FILTER (WHERE cost IS NULL) AS unpriced
FROM model_calls
WHERE tenant_id = '{tenant}'
GROUP BY 1, 2, 3
ORDER BY 1 DESC, cost DESC NULLS LAST""",
    "Answers that users disliked, and what they cite": """SELECT f.created_at, m.query, m.answer, f.content,
    array_agg(DISTINCT r.document_name) AS cites
FROM message_feedbacks f
JOIN messages m ON (m.tenant_id, m.id) = (f.tenant_id, f.message_id)
LEFT JOIN dataset_retriever_resources r ON (r.tenant_id, r.message_id) = (m.tenant_id, m.id)
WHERE f.tenant_id = '{tenant}' AND f.rating = 'dislike'
GROUP BY f.id, f.created_at, m.query, m.answer, f.content
ORDER BY 1 DESC""",
    "Documents that are cited most": """SELECT document_name, count(*) AS citations,
    count(DISTINCT message_id) AS answers, max(created_at) AS last
FROM dataset_retriever_resources
WHERE tenant_id = '{tenant}'
GROUP BY 1
ORDER BY 2 DESC""",
    "Prompts as models received them": """SELECT c.created_at, c.model, message ->> 'role' AS role,
    message ->> 'content' AS content
FROM model_calls c JOIN model_call_requests r ON (r.tenant_id, r.id) = (c.tenant_id, c.id)
CROSS JOIN LATERAL jsonb_array_elements(r.request -> 'messages') WITH ORDINALITY message(message, number)
WHERE c.tenant_id = '{tenant}' AND c.kind = 'chat' AND c.created_at > now() - interval '1 hour'
ORDER BY c.created_at DESC, c.id, number""",
    "Calls that were never answered": """SELECT created_at, kind, provider, model, status, error_code, cause_noun,
    cause_id
FROM model_calls
WHERE tenant_id = '{tenant}' AND (status = 'requested' OR error_code = 'lost')
ORDER BY created_at""",
}

_SCHEMA = """
SELECT c.relname AS name, obj_description(c.oid) AS comment, c.reltuples::bigint AS estimate, false AS counted,
    array_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum))
              ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace('headrace') AND c.relkind = 'r' AND has_table_privilege(c.oid, 'SELECT')
GROUP BY c.oid, c.relname ORDER BY c.relname
"""


COUNTED = 10_000
"""Maximum number of rows that are counted in a table for which PostgreSQL has no estimate yet."""


async def schema(backend: Backend) -> list[Row]:
    """Every table with its comment, its columns (name, type, comment) and its rows, `counted` or estimated."""
    tables = await backend.rows(_SCHEMA)
    if unknown := [table for table in tables if table["estimate"] <= 0]:
        counts = [
            SQL("(SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS rows)").format(
                Identifier("headrace", table["name"]), COUNTED + 1
            )
            for table in unknown
        ]
        [found] = await backend.rows(SQL("SELECT ARRAY[{}]::bigint[] AS counts").format(SQL(", ").join(counts)))
        for table, count in zip(unknown, found["counts"], strict=True):
            table |= {"estimate": count, "counted": count <= COUNTED}
    return tables


async def show(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    statement = request.query_params.get("query", "").replace("\r\n", "\n")
    form = request.query_params.get("format", "")
    result: Table | None = None
    wrong: Refused | None = None
    if statement.strip():
        try:
            if len(statement) > LONGEST:
                raise Refused(f"A query has at most {LONGEST:,} characters.")
            if form in get_args(Form):
                raw = request.query_params.get("raw") == "1"
                return await download(backend, statement, "csv" if form == "csv" else "jsonl", raw=raw)
            result = await run(backend.reader_url, statement)
        except Refused as refused:
            wrong = refused
    status = 200 if wrong is None else 400
    if wants_json(request):
        if wrong is not None:
            return as_json({"error": str(wrong), "line": wrong.line, "column": wrong.column}, status)
        if result is None:
            return as_json({"tables": await schema(backend)})
        return as_json(
            {"columns": result.columns, "rows": result.rows, "more": result.more, "seconds": round(result.seconds, 4)}
        )
    own = tenant(request).replace("'", "''")
    given = {
        "statement": statement,
        "lines": max(4, min(18, statement.count("\n") + 2)),
        "result": result,
        "wrong": wrong,
        "line": statement.split("\n")[wrong.line - 1] if wrong and wrong.line else "",
        "tables": await schema(backend),
        "examples": {name: text.replace("{tenant}", own) for name, text in EXAMPLES.items()},
        "limit": query.LIMIT_S,
        "most": query.SHOWN_ROWS,
        "widest": query.SHOWN_CELL,
        "brief_cell": BRIEF,
    }
    return render(request, "sql.html", given, status)


async def download(backend: Backend, statement: str, form: Form, *, raw: bool) -> Response:
    """Raises: Refused before anything is sent; a later error aborts the download."""
    pieces = export(backend.reader_url, statement, form, raw=raw)
    try:
        first = await anext(pieces, b"")
    except BaseException:
        await pieces.aclose()
        raise
    headers = {"Content-Disposition": f'attachment; filename="headrace.{form}"'}
    return Download(_from(first, pieces), pieces, media_type=f"{MEDIA_TYPES[form]}; charset=utf-8", headers=headers)


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


class Download(StreamingResponse):
    """Ends the query when the client disconnects."""

    def __init__(
        self, pieces: AsyncIterator[bytes], made: AsyncGenerator[bytes], *, media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self.made = made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.made.aclose()


routes = [Route("/sql", show)]
