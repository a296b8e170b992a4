"""The view `message_agent_thoughts`: the calls of tools of each message, with the model calls that asked for them."""

from __future__ import annotations

from adapters.postgres.views import ID, TEXT, TIME, Column, view_of

COLUMNS = {
    "tenant_id": Column(ID, "Tenant that the row belongs to."),
    "id": Column(ID, "Call of a tool, in tool_calls."),
    "message_id": Column(ID, "Message, in messages."),
    "message_chain_id": Column(ID, "Model call that asked for it, in model_calls: the same for all calls of a round."),
    "position": Column("integer", "Round of the agent, from 1."),
    "call_position": Column("integer", "Place among the calls of the round, from 0."),
    "thought": Column(TEXT, "Text that the model said with the call, or its reasoning; empty for none."),
    "tool": Column(TEXT, "Tool, by the name that the model was given."),
    "tool_input": Column(TEXT, "Arguments, as text of a JSON object."),
    "tool_meta": Column("jsonb", "Toolset, status, error code and seconds of the call."),
    "observation": Column(TEXT, "Result as the model was given it, or the reason of a failure; empty before."),
    "message_files": Column("jsonb", "Files that the tool made: digest, media_type, name and size of each."),
    "message_token": Column(
        "bigint", "Tokens of the model call that were sent, on the first call of a round; 0 on others."
    ),
    "answer_token": Column("bigint", "Tokens of the model call that came back; 0 likewise."),
    "tokens": Column("bigint", "Sum of both."),
    "total_price": Column("double precision", "US dollars of the model call; 0 likewise, and when no price is known."),
    "currency": Column(TEXT, "USD."),
    "latency": Column("double precision", "Seconds of the model call; 0 likewise."),
    "person_id": Column(ID, "Person who asked; null when it is not known."),
    "created_at": Column(TIME, "When the call was recorded."),
}

_SELECT = """
    SELECT t.tenant_id, t.id, t.cause_id, t.model_call_id, t.round, t.position,
        coalesce(nullif(m.response, ''), m.reasoning, ''), t.name, t.arguments,
        jsonb_build_object('toolset', t.toolset, 'status', t.status, 'error_code', t.error_code,
            'seconds', t.duration_ms / 1000),
        coalesce(nullif(t.result, ''), t.error, ''),
        coalesce((SELECT jsonb_agg(part - 'type') FROM jsonb_array_elements(t.parts) part
            WHERE part ->> 'type' IN ('file', 'image')), '[]'),
        coalesce(f.prompt_tokens, 0), coalesce(f.completion_tokens, 0),
        coalesce(f.prompt_tokens, 0) + coalesce(f.completion_tokens, 0), coalesce(f.cost, 0), 'USD',
        coalesce(f.duration_ms / 1000, 0), t.person_id, t.created_at
    FROM headrace.tool_calls t
    LEFT JOIN headrace.model_calls m ON m.tenant_id = t.tenant_id AND m.id = t.model_call_id
    LEFT JOIN headrace.model_calls f ON f.tenant_id = t.tenant_id AND f.id = t.model_call_id AND t.position = 0
    WHERE t.cause_noun = 'message' AND t.within_id IS NULL
"""

AGENT_THOUGHTS = view_of(
    "message_agent_thoughts",
    "Calls of tools of each message, a row each, with the model calls that asked for them.",
    COLUMNS,
    row="agent_thought",
    function="agent_thoughts",
    table="tool_calls",
    select=_SELECT,
)
