"""Sends a span of each call of a model by Traceloop's SDK, with the names of attributes that it uses.

The calls come from the log, so the spans have the times of the calls, and ids that follow from theirs: a call that is
delivered again makes the same span. A span that the collector did not take is sent again later.
"""

from __future__ import annotations

import os
import threading
from datetime import datetime
from typing import Any

from headrace_plugin import later, serve

os.environ["TRACELOOP_TELEMETRY"] = "FALSE"  # its maker's statistics

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from traceloop.sdk import Traceloop

EXPORT_S = 10
"""Time limit of a request to the collector, in seconds."""

here = threading.local()
tracer: trace.Tracer


class Ids(RandomIdGenerator):
    """The id of the call's span, in place of a random one."""

    def generate_span_id(self) -> int:
        return getattr(here, "span_id", None) or super().generate_span_id()


class Noting(SpanExporter):
    """Notes whether the collector has taken the last span of this thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter

    def export(self, spans: Any) -> SpanExportResult:
        here.result = SpanExportResult.FAILURE
        here.result = self.exporter.export(spans)
        return here.result

    def shutdown(self) -> None:
        self.exporter.shutdown()


def load(settings: dict[str, Any]) -> None:
    global tracer
    key = settings.get("api_key")
    endpoint = settings["endpoint"].rstrip("/")
    exporter = OTLPSpanExporter(
        endpoint=f"{endpoint}/v1/traces",
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=EXPORT_S,
    )
    Traceloop.init(
        app_name="headrace",
        api_endpoint=endpoint,
        api_key=key or "none",
        exporter=Noting(exporter),
        disable_batch=True,
        telemetry_enabled=False,
        traceloop_sync_enabled=False,
        instruments=set(),
    )
    provider = trace.get_tracer_provider()
    provider.id_generator = Ids()
    tracer = provider.get_tracer("headrace")


def after(call: dict[str, Any]) -> Any:
    return send(call)


def failed(call: dict[str, Any]) -> Any:
    return send(call, call.get("reason") or call["code"])


def send(call: dict[str, Any], error: str | None = None) -> Any:
    here.span_id = int(call["span_id"], 16)
    parent = SpanContext(
        int(call["trace_id"], 16), int(call["parent_span_id"], 16), True, TraceFlags(TraceFlags.SAMPLED)
    )
    span = tracer.start_span(
        f"{call['provider']}.{call['kind']}",
        trace.set_span_in_context(NonRecordingSpan(parent)),
        SpanKind.CLIENT,
        {name: value for name, value in attributes(call).items() if value is not None},
        start_time=nanoseconds(call["started_at"]),
    )
    if error is None:
        span.set_status(Status(StatusCode.OK))
    else:
        span.set_status(Status(StatusCode.ERROR, error))
        span.set_attribute("error.type", call["code"])
    span.end(nanoseconds(call["ended_at"] or call["started_at"]))
    if here.result is not SpanExportResult.SUCCESS:
        return later("The collector did not take the span.")
    return None


def attributes(call: dict[str, Any]) -> dict[str, Any]:
    prompt, completion = call.get("prompt_tokens"), call.get("completion_tokens")
    found = {
        "llm.request.type": call["kind"],
        "gen_ai.operation.name": call["kind"],
        "gen_ai.system": call["provider"],
        "gen_ai.provider.name": call["provider"],
        "gen_ai.request.model": call["model"],
        "gen_ai.response.model": call.get("response_model"),
        "gen_ai.response.id": call.get("response_id"),
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
        "llm.usage.total_tokens": None if prompt is None or completion is None else prompt + completion,
        "server.address": call.get("server") or None,
        "traceloop.span.kind": "task",
        "traceloop.association.properties.call_id": call["id"],
        "traceloop.association.properties.app_id": call.get("app"),
    }
    for number, message in enumerate(call.get("messages", ())):
        found[f"gen_ai.prompt.{number}.role"] = message["role"]
        found[f"gen_ai.prompt.{number}.content"] = message["content"]
    if call.get("response"):
        found["gen_ai.completion.0.role"] = "assistant"
        found["gen_ai.completion.0.content"] = call["response"]
    return found


def nanoseconds(at: str) -> int:
    moment = datetime.fromisoformat(at)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


if __name__ == "__main__":
    serve(globals(), threads=8)
