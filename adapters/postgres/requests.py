"""The view `model_call_requests`: the requests of model calls, with the texts that they quote in their places.

It depends on the columns of `model_calls` alone: the function in it is text, and finds whatever tables are live.
"""

from __future__ import annotations

from adapters.postgres.views import View

COLUMNS = {
    "tenant_id": "Tenant that the row belongs to.",
    "id": "Call, in model_calls.",
    "request": "Content sent, as in model_calls, but for messages: each has a role and its whole content; null: a text "
    "is missing that it quotes. `files` are its pieces with a file.",
    "sources": "Origins of the parts of the messages: a list of message (from 0), start, end (characters) and from.",
}

_MADE = """
CREATE OR REPLACE FUNCTION headrace.put_together(tenant text, sent jsonb, OUT request jsonb, OUT sources jsonb)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
WITH message AS (
    SELECT number AS place, 0 AS turn, value ->> 'role' AS role, value -> 'pieces' AS pieces, value - 'pieces' AS other
    FROM jsonb_array_elements(sent -> 'messages') WITH ORDINALITY each(value, number) WHERE value ? 'pieces'
    UNION ALL
    SELECT each.number, turn.position * 2 + side.second, side.role, jsonb_build_array(
        jsonb_build_object('from', 'history', 'message_id', turn.message_id, 'text', side.content)),
        jsonb_build_object('role', side.role)
    FROM jsonb_array_elements(sent -> 'messages') WITH ORDINALITY each(value, number)
    JOIN headrace.turns first ON first.tenant_id = tenant
        AND first.conversation_id = value ->> 'conversation' AND first.message_id = value ->> 'first'
    JOIN headrace.turns last ON last.tenant_id = tenant
        AND last.conversation_id = value ->> 'conversation' AND last.message_id = value ->> 'last'
    JOIN headrace.turns turn ON turn.tenant_id = tenant AND turn.conversation_id = value ->> 'conversation'
        AND turn.position BETWEEN first.position AND last.position
    LEFT JOIN headrace.model_calls call ON call.tenant_id = tenant AND call.id = turn.model_call_id
    CROSS JOIN LATERAL (VALUES
        (0, 'user', turn.query), (1, 'assistant', coalesce(turn.answer, call.response))) side(second, role, content)
    WHERE value ? 'first'
), piece AS (
    SELECT place, turn, other, each.number AS part,
        coalesce(value ->> 'text', CASE WHEN value ? 'file' THEN '' END,
            substr(left(quoted.content, (value ->> 'end')::int), 1 + coalesce((value ->> 'start')::int, 0)),
            substr(quoted.content, 1 + coalesce((value ->> 'start')::int, 0))) AS content,
        value - '{text,quotes,start,end}'::text[] AS origin
    FROM message LEFT JOIN LATERAL jsonb_array_elements(pieces) WITH ORDINALITY each(value, number) ON true
    LEFT JOIN LATERAL (
        SELECT content FROM headrace.texts WHERE texts.tenant_id = tenant AND texts.id = value ->> 'quotes'
        UNION ALL
        SELECT query FROM headrace.turns WHERE value ->> 'quotes' ^@ 'question/'
            AND turns.tenant_id = tenant AND turns.id = substr(value ->> 'quotes', 10)
        UNION ALL
        SELECT nullif(result, '') FROM headrace.tool_calls WHERE value ->> 'quotes' ^@ 'tool_call/'
            AND tool_calls.tenant_id = tenant AND tool_calls.id = substr(value ->> 'quotes', 11)
    ) quoted ON true
), placed AS (
    SELECT *, dense_rank() OVER (ORDER BY place, turn) - 1 AS message,
        coalesce(sum(length(content)) OVER (PARTITION BY place, turn ORDER BY part), 0) AS reached FROM piece
), whole AS (
    SELECT message, other || jsonb_build_object('content', CASE
        WHEN bool_and(content IS NOT NULL OR part IS NULL) THEN coalesce(string_agg(content, '' ORDER BY part), '')
    END) || CASE WHEN bool_or(origin ? 'file') THEN jsonb_build_object(
        'files', jsonb_agg(origin ORDER BY part) FILTER (WHERE origin ? 'file')) ELSE '{}' END AS json
    FROM placed GROUP BY message, other
)
SELECT CASE WHEN sent ? 'messages' THEN
        sent || jsonb_build_object('messages', (SELECT coalesce(jsonb_agg(json ORDER BY message), '[]') FROM whole))
    ELSE sent END,
    (SELECT coalesce(jsonb_agg(origin || jsonb_build_object('message', message,
            'start', reached - length(content), 'end', reached) ORDER BY message, part), '[]')
        FROM placed WHERE origin ? 'from' AND content IS NOT NULL)
$$;
CREATE OR REPLACE VIEW headrace.model_call_requests WITH (security_invoker = true) AS
SELECT call.tenant_id, call.id, put.request, put.sources
FROM headrace.model_calls call CROSS JOIN LATERAL headrace.put_together(call.tenant_id, call.request) put;
"""

REQUESTS = View(
    "model_call_requests",
    "Requests of model calls, put together from the texts that they quote.",
    COLUMNS,
    _MADE,
    table="model_calls",
)
