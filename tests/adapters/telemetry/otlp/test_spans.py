from __future__ import annotations

import hashlib
import json
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from adapters.telemetry.otlp.spans import Content, resource_spans, span_of
from adapters.trace_ids import span_id, trace_id
from projections.traces import attributes
from tests.adapters.telemetry.otlp import rows
from tests.otlp_receiver import values
from tests.projections.history import Tables
from tests.projections.wandering import wander

CORRELATION = "018f0000-0000-7000-8000-000000000001"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

NONE, MASKED = Content(None), Content(40)


NOTHING = {"call": None, "retrieval": None, "hits": None, "tool": None}


def blank(model: Any, row: dict[str, Any]) -> dict[str, Any]:
    """A row as PostgreSQL gives it as JSON: every column, times as texts."""
    whole = dict.fromkeys(column.name for column in model.table.columns) | row
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in whole.items()}


def of_trace(**columns: Any) -> dict[str, Any]:
    return blank(rows.traces, rows.trace(9, CORRELATION, **columns))


def of_span(**columns: Any) -> dict[str, Any]:
    return blank(rows.spans, rows.span(8, CORRELATION, "the-span", **columns))


def sent(
    span: dict[str, Any] | None,
    trace: dict[str, Any],
    content: Content = NONE,
    call: dict[str, Any] | None = None,
    retrieval: dict[str, Any] | None = None,
    tool: dict[str, Any] | None = None,
) -> Span:
    """Return the span of a row; without a span it is the trace, ended by its handler."""
    of_handler = {name: trace[name] for name in ("status", "ended_at", "error", "error_code", "traceparent")}
    row = {"is_trace": int(span is None), "span": span or of_span(**of_handler), "trace": trace}
    found = {"call": call, "retrieval": retrieval, "hits": (retrieval or {}).get("hits"), "tool": tool}
    _, made = span_of({**row, **found}, content)
    return made


def test_ids_are_those_of_the_record() -> None:
    assert trace_id("acme", CORRELATION) == hashlib.sha256(f"acme/{CORRELATION}".encode()).digest()[:16]
    assert trace_id("acme", "order 66") == trace_id("acme", "order 66")
    assert len(span_id("acme", "x")) == 8
    assert span_id("acme", "x") != span_id("acme", "y")


def test_two_tenants_with_the_same_ids_share_no_trace_and_no_span() -> None:
    """Senders choose the ids of commands and correlations; with the same trace context, spans are still apart."""
    for parent in (None, PARENT):
        trace, theirs = of_trace(traceparent=parent), of_trace(traceparent=parent, tenant_id="other")
        ours = [sent(None, trace), sent(of_span(traceparent=parent), trace)]
        foreign = [
            span_of({"is_trace": kind, "span": span, "trace": theirs, **NOTHING}, NONE)[1]
            for kind, span in ((1, of_span(traceparent=parent, tenant_id="other")), (0, of_span(tenant_id="other")))
        ]
        assert not {it.span_id for it in ours} & {it.span_id for it in foreign}
        assert foreign[1].parent_span_id == foreign[0].span_id
        if parent is None:
            assert not {it.trace_id for it in ours} & {it.trace_id for it in foreign}


def test_a_publisher_goes_on_with_its_own_trace() -> None:
    root = sent(None, of_trace(traceparent=PARENT))
    assert root.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert root.parent_span_id.hex() == "00f067aa0ba902b7"
    child = sent(of_span(traceparent=PARENT), of_trace(traceparent=PARENT))
    assert child.trace_id == root.trace_id
    assert child.parent_span_id == root.span_id


def test_a_parent_that_is_none_is_left_out() -> None:
    zeros = "00-" + 32 * "0" + "-00f067aa0ba902b7-01"
    root = sent(None, of_trace(traceparent=zeros))
    assert root.trace_id == trace_id("acme", CORRELATION)
    assert root.parent_span_id == b""


def test_a_trace_is_the_root_of_its_spans() -> None:
    root, child = sent(None, of_trace()), sent(of_span(), of_trace())
    assert root.parent_span_id == b""
    assert root.kind == Span.SPAN_KIND_CONSUMER
    assert child.parent_span_id == root.span_id
    assert child.kind == Span.SPAN_KIND_CLIENT
    grandchild = sent(of_span(parent_id="the-span", kind="tool"), of_trace())
    assert grandchild.parent_span_id == child.span_id
    assert grandchild.kind == Span.SPAN_KIND_INTERNAL
    assert sent(of_span(), of_trace(kind="index")).parent_span_id == b""


def test_times_have_microseconds() -> None:
    span = sent(of_span(), of_trace())
    assert span.start_time_unix_nano == 1777896000123456000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 2_000_000_000


def test_a_span_never_ends_before_it_begins() -> None:
    span = sent(of_span(started_at=rows.BEGAN, ended_at=rows.BEGAN.replace(year=2025)), of_trace())
    assert span.end_time_unix_nano == span.start_time_unix_nano


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 150), st.sampled_from([0.0, 30.0]))
def test_no_span_begins_before_its_parent(random: Random, steps: int, skew_s: float) -> None:
    history, tables = wander(random, steps, skew_s=skew_s), Tables()
    tables.apply(history.messages, history.blobs)
    sent: dict[bytes, Span] = {}
    for row in tables.rows(rows.spans):
        trace = blank(rows.traces, tables.stored[rows.traces][row["tenant_id"], row["trace_id"]])
        ended = {"ended_at": row["ended_at"] or row["started_at"]}  # all of them are sent, though some still run
        for is_trace in (0, 1):
            found = {"is_trace": is_trace, "span": blank(rows.spans, row | ended), "trace": trace}
            _, span = span_of({**found, **NOTHING}, NONE)
            sent[span.span_id] = span
    for span in sent.values():
        if parent := sent.get(span.parent_span_id):
            assert parent.trace_id == span.trace_id
            assert parent.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano


def test_a_span_says_whose_it_is_and_what_caused_it() -> None:
    found = values(sent(of_span(causation_id="c"), of_trace(conversation_id="talk", person_id="p")).attributes)
    assert found["session.id"] == found["gen_ai.conversation.id"] == "talk"
    assert found["user.id"] == "p"
    assert found["headrace.correlation.id"] == CORRELATION
    assert found["headrace.causation.id"] == "c"
    assert (found["headrace.stream"], found["headrace.ended_sequence"]) == ("EVENTS", 8)
    assert found["gen_ai.request.model"] == "gpt-x"
    assert "error.type" not in found


def test_an_unknown_cost_is_left_out() -> None:
    assert values(sent(of_span(cost=0.25), of_trace()).attributes)["gen_ai.usage.cost"] == 0.25
    assert "gen_ai.usage.cost" not in values(sent(of_span(cost=None), of_trace()).attributes)
    assert values(sent(of_span(cost=0.0), of_trace()).attributes)["llm.cost.total"] == 0.0


def test_the_root_does_not_count_tokens_twice() -> None:
    found = values(sent(None, of_trace(prompt_tokens=7, completion_tokens=3, cost=0.5)).attributes)
    assert found["headrace.prompt_tokens"] == 7
    assert found["headrace.cost_usd"] == 0.5
    assert not [name for name in found if name.startswith(("gen_ai.usage", "llm.token_count", "llm.cost"))]


def test_an_error_has_its_code_and_only_with_leave_its_text() -> None:
    row = of_span(status="error", error_code="rate_limited", error="Ask ann@example.com.")
    failed = sent(row, of_trace())
    assert failed.status == Status(code=Status.STATUS_CODE_ERROR, message="rate_limited")
    assert values(failed.attributes)["error.type"] == "rate_limited"
    assert sent(row, of_trace(), MASKED).status.message == "Ask ‹email›."
    unknown = sent(of_span(status="unknown", error_code="lost", error="Gone."), of_trace())
    assert unknown.status.code == Status.STATUS_CODE_ERROR
    assert values(unknown.attributes)["headrace.status"] == "unknown"
    assert sent(of_span(status="cancelled"), of_trace()).status.code == Status.STATUS_CODE_UNSET


CALL = {
    "request": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "I am ann@example.com, " + 100 * "x"},
        ]
    },
    "response": "Hello, ann@example.com.",
    "reasoning": "It is ann@example.com.",
    "finish_reason": "stop",
}


def test_without_leave_no_text_goes_along() -> None:
    span = sent(of_span(), of_trace(question="Who am I?", answer="Ann."), NONE, CALL, {"query": "Who am I?"})
    raw = span.SerializeToString()
    for text in (b"Be brief", b"Hello", b"Ann", b"Who am I"):
        assert text not in raw


def test_permitted_messages_are_exported_masked_and_truncated() -> None:
    found = values(sent(of_span(), of_trace(), MASKED, CALL).attributes)
    assert json.loads(found["gen_ai.input.messages"])[0] == {
        "role": "system",
        "parts": [{"type": "text", "content": "Be brief."}],
    }
    assert found["llm.input_messages.1.message.content"] == "I am ‹email›, " + 26 * "x" + "…"
    assert json.loads(found["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "It is ‹email›."},
                {"type": "text", "content": "Hello, ‹email›."},
            ],
            "finish_reason": "stop",
        }
    ]
    assert found["output.value"] == found["llm.output_messages.0.message.content"] == "Hello, ‹email›."
    assert json.loads(found["input.value"])["messages"][0]["content"] == "Be brief."
    root = values(sent(None, of_trace(question="Who?", answer="Ann."), MASKED).attributes)
    assert (root["input.value"], root["output.value"]) == ("Who?", "Ann.")


def test_with_leave_a_rerank_has_its_query() -> None:
    call = {"request": {"query": "Who is ada@example.com?", "segments": ["one"]}, "response": "[0.5]"}
    span = of_span(kind="rerank")
    found = values(sent(span, of_trace(), MASKED, call).attributes)
    assert found["reranker.query"] == found["input.value"] == "Who is ‹email›?"
    assert sent(span, of_trace(), MASKED, call).kind == Span.SPAN_KIND_CLIENT
    assert b"Who is" not in sent(span, of_trace(), NONE, call).SerializeToString()


def test_an_agent_and_its_tools_have_the_names_of_the_conventions() -> None:
    agent = of_span(kind="handler", name="answer", attributes=attributes.agent())
    found = values(sent(agent, of_trace(app_id="the-app")).attributes)
    assert found["gen_ai.operation.name"] == "invoke_agent"
    assert found["gen_ai.agent.id"] == "the-app"
    assert (found["traceloop.span.kind"], found["openinference.span.kind"]) == ("agent", "AGENT")
    tool = of_span(
        kind="tool",
        name="execute_tool weather",
        attributes=attributes.tool("call-1", "mcp", "weather", "mcp.example:443"),
    )
    asked = {"arguments": '{"city": "Paris"}', "result": "Write to ada@example.com about the rain."}
    made = sent(tool, of_trace(), MASKED, tool=asked)
    found = values(made.attributes)
    assert (made.name, made.kind) == ("execute_tool weather", Span.SPAN_KIND_INTERNAL)
    assert found["gen_ai.operation.name"] == "execute_tool"
    assert (found["gen_ai.tool.name"], found["gen_ai.tool.call.id"]) == ("weather", "call-1")
    assert (found["traceloop.span.kind"], found["traceloop.entity.name"]) == ("tool", "weather")
    assert (found["openinference.span.kind"], found["tool.name"]) == ("TOOL", "weather")
    assert (found["server.address"], found["server.port"]) == ("mcp.example", 443)
    assert found["gen_ai.tool.call.arguments"] == found["input.value"] == '{"city": "Paris"}'
    assert "ada@example.com" not in found["gen_ai.tool.call.result"]
    assert "gen_ai.tool.call.arguments" not in values(sent(tool, of_trace()).attributes)


def test_what_was_erased_is_not_there() -> None:
    gone = {"request": {}, "response": "", "reasoning": "", "finish_reason": "stop"}
    found = values(sent(of_span(), of_trace(), MASKED, gone).attributes)
    assert not [name for name in found if "messages" in name or name.endswith(".value")]


def test_each_tenant_is_a_resource() -> None:
    one, other = span_of(_row(of_span()), NONE), span_of(_row(of_span(tenant_id="other")), NONE)
    found = {
        values(resource.resource.attributes)["headrace.tenant"]: len(resource.scope_spans[0].spans)
        for resource in resource_spans([one, other, one])
    }
    assert found == {"acme": 2, "other": 1}
    [resource] = resource_spans([one])
    assert values(resource.resource.attributes)["service.name"] == "headrace"


def test_any_attribute_has_a_value() -> None:
    odd = {"a": None, "b": 2**70, "c": [1, None, "x"], "d": {"e": True}, "f": -0.5}
    found = values(sent(of_span(attributes=odd), of_trace()).attributes)
    assert "a" not in found
    assert found["b"] == str(2**70)
    assert found["c"] == [1, "x"]
    assert found["d"] == {"e": True}
    assert found["f"] == -0.5


def _row(span: dict[str, Any]) -> dict[str, Any]:
    return {"is_trace": 0, "span": span, "trace": of_trace(), **NOTHING}
