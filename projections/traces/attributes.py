"""The attributes of spans: the one place that knows their names.

The table has those of the OpenTelemetry GenAI conventions v1.41.1. `exported` adds what Traceloop and OpenInference
(which Phoenix reads) call the same things. No value is a text of a message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from domain.tools.plugin import PluginRun

Attributes = dict[str, Any]

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
OUTPUT_TYPE = "gen_ai.output.type"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
USAGE_CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"
USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
DATA_SOURCE_ID = "gen_ai.data_source.id"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_TYPE = "gen_ai.tool.type"
RETRIEVAL_TOP_K = "gen_ai.retrieval.top_k"
REQUEST_METHOD = "http.request.method"
RESPONSE_STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

TRACELOOP_SPAN_KIND = "traceloop.span.kind"
TRACELOOP_ENTITY_NAME = "traceloop.entity.name"
TRACELOOP_ENTITY_INPUT = "traceloop.entity.input"
TRACELOOP_ENTITY_OUTPUT = "traceloop.entity.output"
LLM_REQUEST_TYPE = "llm.request.type"

OPENINFERENCE_SPAN_KIND = "openinference.span.kind"
LLM_MODEL_NAME = "llm.model_name"
LLM_PROVIDER = "llm.provider"
LLM_TOKENS_PROMPT = "llm.token_count.prompt"
LLM_TOKENS_COMPLETION = "llm.token_count.completion"
LLM_TOKENS_TOTAL = "llm.token_count.total"
LLM_TOKENS_CACHE_READ = "llm.token_count.prompt_details.cache_read"
LLM_TOKENS_CACHE_WRITE = "llm.token_count.prompt_details.cache_write"
LLM_TOKENS_REASONING = "llm.token_count.completion_details.reasoning"
EMBEDDING_MODEL_NAME = "embedding.model_name"
OPENINFERENCE_TOOL_NAME = "tool.name"
RERANKER_MODEL_NAME = "reranker.model_name"
RERANKER_TOP_K = "reranker.top_k"
RERANKER_OUTPUT = "reranker.output_documents"

# What only the export to a collector adds: whose a span is, what it cost, and with leave what was said.
CONVERSATION_ID = "gen_ai.conversation.id"
AGENT_ID = "gen_ai.agent.id"
TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_CALL_RESULT = "gen_ai.tool.call.result"
ERROR_TYPE = "error.type"
SESSION_ID = "session.id"
USER_ID = "user.id"
TRACELOOP_WORKFLOW_NAME = "traceloop.workflow.name"
USAGE_COST = "gen_ai.usage.cost"
LLM_COST_TOTAL = "llm.cost.total"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
RETRIEVAL_QUERY = "gen_ai.retrieval.query.text"
INPUT_VALUE = "input.value"
INPUT_MIME_TYPE = "input.mime_type"
OUTPUT_VALUE = "output.value"
RERANKER_QUERY = "reranker.query"
LLM_INPUT_MESSAGES = "llm.input_messages"
LLM_OUTPUT_MESSAGES = "llm.output_messages"

RERANKED = 20
"""Segments that are named of those that a reranker scored."""

_PARAMETERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}


def requested(kind: str, provider: str, model: str, server: str, request: Mapping[str, Any]) -> Attributes:
    """Of a call of a model that is about to be sent."""
    found: Attributes = {PROVIDER_NAME: provider, REQUEST_MODEL: model}
    found |= _address(server)
    if kind == "embedding":
        return found | {OPERATION_NAME: "embeddings"}
    if kind == "rerank":
        return found | {OPERATION_NAME: kind, RERANKER_TOP_K: len(request.get("segments") or ())}
    if kind == "moderation" and "texts" in request:
        return found | {OPERATION_NAME: kind}
    parameters = {"max_tokens": request.get("max_tokens")} | (request.get("parameters") or {})
    found |= {
        name: value
        for parameter, name in _PARAMETERS.items()
        if isinstance(value := parameters.get(parameter), int | float)
    }
    if isinstance(choices := parameters.get("n"), int) and choices != 1:
        found[REQUEST_CHOICE_COUNT] = choices
    return found | {OPERATION_NAME: kind, OUTPUT_TYPE: "text", REQUEST_STREAM: True}


def _address(server: str) -> Attributes:
    address, _, port = server.rpartition(":")
    return {SERVER_ADDRESS: address.strip("[]"), SERVER_PORT: int(port)} if address and port.isdecimal() else {}


def completed(
    kind: str,
    usage: Mapping[str, Any],
    *,
    response_id: str | None,
    response_model: str | None,
    finish_reason: str | None,
    first_token_ms: float | None,
) -> Attributes:
    """Of a call that a model answered, besides those of the request."""
    found = {
        RESPONSE_ID: response_id,
        RESPONSE_MODEL: response_model,
        RESPONSE_FINISH_REASONS: [finish_reason] if finish_reason else None,
        RESPONSE_TIME_TO_FIRST_CHUNK: None if first_token_ms is None else first_token_ms / 1000,
    }
    return {name: value for name, value in found.items() if value is not None} | used(kind, usage)


def filtered(run: PluginRun) -> Attributes:
    """Of a hook of a plugin."""
    names = ("name", "version", "digest", "hook", "action", "changed")
    return {f"headrace.plugin.{name}": value for name, value in run.items() if name in names}


def used(kind: str, usage: Mapping[str, Any]) -> Attributes:
    """Tokens of a call."""
    found: Attributes = {USAGE_INPUT_TOKENS: usage["prompt_tokens"]}
    if kind not in ("embedding", "rerank"):
        found |= {
            USAGE_OUTPUT_TOKENS: usage["completion_tokens"],
            USAGE_CACHE_READ: usage["cached_tokens"],
            USAGE_CACHE_CREATION: usage["cache_write_tokens"],
            USAGE_REASONING: usage["reasoning_tokens"],
        }
    return {name: value for name, value in found.items() if value is not None}


def reranked(segments: Sequence[str], response: str) -> Attributes:
    """Of a reranker's answer, besides those of any call: the segments that it finds best."""
    scores = json.loads(response) if response else []
    found: Attributes = {}
    best = sorted(zip(segments, scores, strict=False), key=lambda pair: -pair[1])[:RERANKED]
    for index, (segment, score) in enumerate(best):
        found[f"{RERANKER_OUTPUT}.{index}.document.id"] = segment
        found[f"{RERANKER_OUTPUT}.{index}.document.score"] = score
    return found


def retrieval(datasets: Sequence[str], top_k: int | None) -> Attributes:
    """Of a search."""
    found: Attributes = {OPERATION_NAME: "retrieval"}
    if datasets:
        found[DATA_SOURCE_ID] = ",".join(datasets)
    if top_k is not None:
        found[RETRIEVAL_TOP_K] = top_k
    return found


EXECUTE_TOOL, INVOKE_AGENT, INVOKE_WORKFLOW = "execute_tool", "invoke_agent", "invoke_workflow"


def tool(call: str, kind: str, name: str, server: str) -> Attributes:
    """Of a call of a tool; a toolset whose tools the worker runs itself has no server."""
    found: Attributes = {OPERATION_NAME: EXECUTE_TOOL, TOOL_NAME: name, TOOL_CALL_ID: call}
    return found | {TOOL_TYPE: _TOOL_TYPES.get(kind, "function")} | _address(server)


_TOOL_TYPES = {"builtin": "function", "dataset": "datastore", "openapi": "extension", "mcp": "extension"}


def agent() -> Attributes:
    """Of the turn of an agent."""
    return {OPERATION_NAME: INVOKE_AGENT}


def workflow() -> Attributes:
    """Of a run of a workflow."""
    return {OPERATION_NAME: INVOKE_WORKFLOW}


def node(id: str, type: str, step: str) -> Attributes:
    """Of an execution of a node."""
    return {"headrace.workflow.node": id, "headrace.workflow.node_type": type, "headrace.workflow.step": step}


def effect(method: str, server: str) -> Attributes:
    """Of a request to a server."""
    return {REQUEST_METHOD: method, **_address(server)}


def responded(status: int) -> Attributes:
    """Of the response to it."""
    return {RESPONSE_STATUS: status}


# --- for collectors ------------------------------------------------------------------------------------------

_OPENINFERENCE = {
    "chat": "LLM",
    "embedding": "EMBEDDING",
    "rerank": "RERANKER",
    "retrieval": "RETRIEVER",
    "tool": "TOOL",
}

_TRACELOOP = {INVOKE_AGENT: "agent", INVOKE_WORKFLOW: "workflow"}

_OF_CALLS = {
    USAGE_INPUT_TOKENS: LLM_TOKENS_PROMPT,
    USAGE_OUTPUT_TOKENS: LLM_TOKENS_COMPLETION,
    USAGE_CACHE_READ: LLM_TOKENS_CACHE_READ,
    USAGE_CACHE_CREATION: LLM_TOKENS_CACHE_WRITE,
    USAGE_REASONING: LLM_TOKENS_REASONING,
}
_ALIASES = {
    "chat": {**_OF_CALLS, REQUEST_MODEL: LLM_MODEL_NAME, PROVIDER_NAME: LLM_PROVIDER},
    "embedding": {**_OF_CALLS, REQUEST_MODEL: EMBEDDING_MODEL_NAME},
    "rerank": {**_OF_CALLS, REQUEST_MODEL: RERANKER_MODEL_NAME},
}


def exported(kind: str, name: str, stored: Attributes, hits: Sequence[Mapping[str, Any]] = ()) -> Attributes:
    """All attributes of a span: the stored ones, and the same under other names.

    Of the hits of a search, those that the model was given are named by their ids.
    """
    operation = str(stored.get(OPERATION_NAME))
    found = {
        **stored,
        OPENINFERENCE_SPAN_KIND: "AGENT" if operation == INVOKE_AGENT else _OPENINFERENCE.get(kind, "CHAIN"),
    }
    if kind in _ALIASES:
        found[LLM_REQUEST_TYPE] = kind
        found |= {alias: stored[given] for given, alias in _ALIASES[kind].items() if given in stored}
    elif kind == "tool":
        called = stored.get(TOOL_NAME, name)
        found |= {TRACELOOP_SPAN_KIND: "tool", TRACELOOP_ENTITY_NAME: called, OPENINFERENCE_TOOL_NAME: called}
    else:
        found |= {TRACELOOP_SPAN_KIND: _TRACELOOP.get(operation, "task"), TRACELOOP_ENTITY_NAME: name}
    if USAGE_CACHE_CREATION in stored:
        found[USAGE_CACHE_WRITE] = stored[USAGE_CACHE_CREATION]
    if USAGE_OUTPUT_TOKENS in stored:
        found[LLM_TOKENS_TOTAL] = stored[USAGE_INPUT_TOKENS] + stored[USAGE_OUTPUT_TOKENS]
    kept = sorted((hit for hit in hits if hit["rank"] is not None), key=lambda hit: hit["rank"])
    for index, hit in enumerate(kept):
        found[f"retrieval.documents.{index}.document.id"] = hit["segment"]
        found[f"retrieval.documents.{index}.document.score"] = hit["score"]
    return found
