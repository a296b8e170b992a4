"""The view `message_agent_thoughts`: the calls of tools of each message, with the model calls that asked for them.

The planner puts the text of the function in its place, so that filters reach the indexes of the tables. The collations
of columns must be those of the tables for that, which only a type can state.
"""

from __future__ import annotations

from adapters.postgres.views import View

COLUMNS = {
    "tenant_id": "Tenant that the row belongs to.",
    "id": "Call of a tool, in tool_calls.",
    "message_id": "Message, in messages.",
    "message_chain_id": "Model call that asked for it, in model_calls: the same for all calls of a round.",
    "position": "Round of the agent, from 1.",
    "call_position": "Place among the calls of the round, from 0.",
    "thought": "Text that the model said with the call, or its reasoning; empty for none.",
    "tool": "Tool, by the name that the model was given.",
    "tool_input": "Arguments, as text of a JSON object.",
    "tool_meta": "Toolset, status, error code and seconds of the call.",
    "observation": "Result as the model was given it, or the reason of a failure; empty before.",
    "message_files": "Files that the tool made: digest, media_type, name and size of each.",
    "message_token": "Tokens of the model call that were sent, on the first call of a round; 0 on others.",
    "answer_token": "Tokens of the model call that came back; 0 likewise.",
    "tokens": "Sum of both.",
    "total_price": "US dollars of the model call; 0 likewise, and when no price is known.",
    "currency": "USD.",
    "latency": "Seconds of the model call; 0 likewise.",
    "person_id": "Person who asked; null when it is not known.",
    "created_at": "When the call was recorded.",
}

_MADE = """
DO $$ BEGIN
    IF to_regtype('headrace.agent_thought') IS NULL THEN
        CREATE TYPE headrace.agent_thought AS (
            tenant_id text COLLATE "C", id text COLLATE "C", message_id text COLLATE "C",
            message_chain_id text COLLATE "C", position integer, call_position integer, thought text, tool text,
            tool_input text, tool_meta jsonb, observation text, message_files jsonb, message_token bigint,
            answer_token bigint, tokens bigint, total_price double precision, currency text, latency double precision,
            person_id text COLLATE "C", created_at timestamptz
        );
    END IF;
END $$;
CREATE OR REPLACE FUNCTION headrace.agent_thoughts() RETURNS SETOF headrace.agent_thought
LANGUAGE sql STABLE PARALLEL SAFE AS $$
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
$$;
CREATE OR REPLACE VIEW headrace.message_agent_thoughts WITH (security_invoker = true) AS
SELECT * FROM headrace.agent_thoughts();
"""

AGENT_THOUGHTS = View(
    "message_agent_thoughts",
    "Calls of tools of each message, a row each, with the model calls that asked for them.",
    COLUMNS,
    _MADE,
    table="tool_calls",
)
