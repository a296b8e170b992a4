"""OTLP spans of ended rows, with ids derived from ids of the log, so that a span sent twice is the same one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import version
from itertools import groupby
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from adapters.telemetry.otlp.ended import Row
from adapters.trace_ids import publishers_span, span_id, trace_id
from domain.log import EVENTS
from projections.traces import attributes as names
from projections.traces.traces import WITHOUT_HANDLER
from projections.values.masking import Masking

Attributes = dict[str, Any]

CLIENT = frozenset({"chat", "embedding", "retrieval", "rerank", "effect"})
"""Kinds of spans of requests to servers."""

SAMPLED = 1

_STATUS = {
    "ok": Status.STATUS_CODE_OK,
    "error": Status.STATUS_CODE_ERROR,
    "unknown": Status.STATUS_CODE_ERROR,
}


class Content:
    """The exported content of messages: none, or masked texts of at most `length` characters each."""

    def __init__(self, length: int | None, masking: Masking | None = None) -> None:
        self.length = length
        self._masking = masking or Masking()

    def __bool__(self) -> bool:
        return self.length is not None

    def __call__(self, text: str) -> str:
        """The text in exportable form."""
        shown = self._masking(text)  # before it is cut: half an address would not be found
        return shown if self.length is None or len(shown) <= self.length else f"{shown[: self.length]}…"


# --- rows ----------------------------------------------------------------------------------------------------


def resource_spans(spans: Iterable[tuple[str, Span]]) -> list[ResourceSpans]:
    """The spans of several tenants, as a request."""
    return [
        ResourceSpans(
            resource=_resource(tenant),
            scope_spans=[ScopeSpans(scope=_scope(), spans=[span for _, span in some])],
        )
        for tenant, some in groupby(sorted(spans, key=lambda pair: pair[0]), key=lambda pair: pair[0])
    ]


def _resource(tenant: str) -> Resource:
    """The attribute by which Phoenix separates tenants into projects."""
    return Resource(
        attributes=_pairs(
            {
                "service.name": "headrace",
                "service.version": version("headrace"),
                "headrace.tenant": tenant,
                "openinference.project.name": f"headrace-{tenant}",
            }
        )
    )


@cache
def _scope() -> InstrumentationScope:
    return InstrumentationScope(name="headrace", version=version("headrace"))


def span_of(row: Row, content: Content) -> tuple[str, Span]:
    """Tenant and span of a row of `ended`. A trace is the root of its spans, and ends with its first handler."""
    span, trace = row["span"], row["trace"] or {}
    tenant, correlation, traceparent = span["tenant_id"], span["trace_id"], span["traceparent"]
    attributes = _root(trace) if row["is_trace"] else _span(span, trace, row["hits"] or ())
    attributes |= _whose(span, trace) | _cause(span)
    if content:
        attributes |= _said(trace, content) if row["is_trace"] else _content(row, content)
    began, end = _nanoseconds((trace if row["is_trace"] else span)["started_at"]), _nanoseconds(span["ended_at"])
    return tenant, Span(
        trace_id=trace_id(tenant, correlation, traceparent),
        span_id=span_id(tenant, correlation if row["is_trace"] else span["id"]),
        parent_span_id=publishers_span(traceparent) if row["is_trace"] else _parent(span, trace),
        flags=SAMPLED,
        name=trace["name"] if row["is_trace"] else span["name"],
        kind=Span.SPAN_KIND_CONSUMER if row["is_trace"] else _kind(span),
        start_time_unix_nano=began,
        end_time_unix_nano=max(began, end),
        attributes=_pairs(attributes),
        status=Status(code=_STATUS.get(span["status"], Status.STATUS_CODE_UNSET), message=_reason(span, content)),
    )


def _parent(span: Row, trace: Row) -> bytes:
    """The parent of a span, or the trace; one without a handler is never sent."""
    if span["parent_id"]:
        return span_id(span["tenant_id"], span["parent_id"])
    return b"" if trace.get("kind") in (None, *WITHOUT_HANDLER) else span_id(span["tenant_id"], span["trace_id"])


def _kind(span: Row) -> Span.SpanKind.ValueType:
    return Span.SPAN_KIND_CLIENT if span["kind"] in CLIENT else Span.SPAN_KIND_INTERNAL


def _reason(span: Row, content: Content) -> str:
    """The reason of a failure. Servers repeat in errors what they were sent, so their texts are content, too."""
    return content(span["error"] or "") if content else span["error_code"] or ""


def _span(span: Row, trace: Row, hits: Sequence[Row]) -> Attributes:
    """Attributes: the row has those of the conventions; this adds what only a collector needs."""
    found = names.exported(span["kind"], span["name"], span["attributes"], hits)
    found |= {"headrace.span.kind": span["kind"], "headrace.attempt": span["attempt"]}
    if span["attributes"].get(names.OPERATION_NAME) == names.INVOKE_AGENT:
        found[names.AGENT_ID] = trace.get("app_id")
    if span["cost"] is not None:
        found |= {names.USAGE_COST: span["cost"], names.LLM_COST_TOTAL: span["cost"]}
    return found


def _root(trace: Row) -> Attributes:
    """Total tokens and costs under own names: under those of the conventions they would be counted twice."""
    return {
        names.OPENINFERENCE_SPAN_KIND: "CHAIN",
        names.TRACELOOP_SPAN_KIND: "workflow",
        names.TRACELOOP_WORKFLOW_NAME: trace["name"],
        "headrace.trace.kind": trace["kind"],
        "headrace.app.id": trace["app_id"],
        "headrace.message.id": trace["message_id"],
        "headrace.document.id": trace["document_id"],
        "headrace.dataset.id": trace["dataset_id"],
        "headrace.replay.id": trace["replay_id"],
        "headrace.model_calls": trace["model_calls"],
        "headrace.tool_calls": trace["tool_calls"],
        "headrace.prompt_tokens": trace["prompt_tokens"],
        "headrace.completion_tokens": trace["completion_tokens"],
        "headrace.cost_usd": trace["cost"],
        "headrace.first_token_ms": trace["first_token_ms"],
    }


def _whose(span: Row, trace: Row) -> Attributes:
    """The conversation, and the user: by an id that does not reveal the name."""
    conversation = span["conversation_id"] or trace.get("conversation_id")
    person = span["person_id"] or trace.get("person_id")
    return {names.SESSION_ID: conversation, names.CONVERSATION_ID: conversation, names.USER_ID: person}


def _cause(span: Row) -> Attributes:
    return {
        names.ERROR_TYPE: span["error_code"],
        "headrace.status": span["status"],
        "headrace.fingerprint": span["fingerprint"],
        "headrace.tenant": span["tenant_id"],
        "headrace.correlation.id": span["trace_id"],
        "headrace.causation.id": span["causation_id"],
        "headrace.stream": EVENTS,
        "headrace.sequence": span["sequence"],
        "headrace.ended_sequence": span["ended_sequence"],
    }


# --- contents ------------------------------------------------------------------------------------------------


def _said(trace: Row, shown: Content) -> Attributes:
    texts = {names.INPUT_VALUE: trace["question"], names.OUTPUT_VALUE: trace["answer"]}
    return {name: shown(text) for name, text in texts.items() if text}


def _content(row: Row, shown: Content) -> Attributes:
    call, retrieval, tool = row["call"], row["retrieval"], row["tool"]
    if tool:
        return _called(tool, shown)
    if call and row["span"]["kind"] == "chat":
        return _messages(call["request"].get("messages") or [], call, shown)
    if call and row["span"]["kind"] == "rerank" and call["request"].get("query"):
        query = shown(call["request"]["query"])
        return {names.INPUT_VALUE: query, names.RERANKER_QUERY: query}
    if retrieval and retrieval["query"]:
        return {names.INPUT_VALUE: shown(retrieval["query"]), names.RETRIEVAL_QUERY: shown(retrieval["query"])}
    return {}


def _called(tool: Row, shown: Content) -> Attributes:
    """Arguments and result of a call of a tool."""
    texts = {
        names.TOOL_CALL_ARGUMENTS: tool["arguments"],
        names.TRACELOOP_ENTITY_INPUT: tool["arguments"],
        names.INPUT_VALUE: tool["arguments"],
        names.TOOL_CALL_RESULT: tool["result"],
        names.TRACELOOP_ENTITY_OUTPUT: tool["result"],
        names.OUTPUT_VALUE: tool["result"],
    }
    return {name: shown(text) for name, text in texts.items() if text}


def _messages(sent: Sequence[Mapping[str, str]], call: Row, shown: Content) -> Attributes:
    """Messages in the format of the conventions, and in that of Phoenix."""
    said = [(message["role"], shown(message["content"])) for message in sent]
    found: Attributes = {}
    if said:
        found[names.INPUT_MESSAGES] = _json([_message(role, text) for role, text in said])
        found[names.INPUT_VALUE] = _json({"messages": [{"role": role, "content": text} for role, text in said]})
        found[names.INPUT_MIME_TYPE] = "application/json"
        for index, (role, text) in enumerate(said):
            found[f"{names.LLM_INPUT_MESSAGES}.{index}.message.role"] = role
            found[f"{names.LLM_INPUT_MESSAGES}.{index}.message.content"] = text
    texts = {"reasoning": call["reasoning"], "text": call["response"]}
    parts = [{"type": kind, "content": shown(text)} for kind, text in texts.items() if text]
    if parts:
        end = call["finish_reason"] or "stop"
        found[names.OUTPUT_MESSAGES] = _json([{"role": "assistant", "parts": parts, "finish_reason": end}])
    if call["response"]:
        text = shown(call["response"])
        found[names.OUTPUT_VALUE] = text
        found[f"{names.LLM_OUTPUT_MESSAGES}.0.message.role"] = "assistant"
        found[f"{names.LLM_OUTPUT_MESSAGES}.0.message.content"] = text
    return found


def _message(role: str, text: str) -> Attributes:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# --- values --------------------------------------------------------------------------------------------------


def _nanoseconds(at: str) -> int:
    moment = datetime.fromisoformat(at)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """The attributes without nulls."""
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items() if value is not None]


def _value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int() if -(2**63) <= value < 2**63:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value if item is not None]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=_pairs(value)))
        case _:
            return AnyValue(string_value=str(value))
