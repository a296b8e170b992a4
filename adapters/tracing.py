"""Spans of what handlers do with NATS and providers, for OpenTelemetry's SDK; none where it is not set up.

They belong to the trace of the command that began it all. Whatever no message has led to, such as a rebuild of the
tables or a sweep, is in no trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from adapters.trace_ids import span_id, trace_id

_tracer = trace.get_tracer("headrace")

_MESSAGING = {"messaging.system": "nats"}


@contextmanager
def handling(consumer: str, stream: str, headers: Mapping[str, str]) -> Iterator[None]:
    """A message is handled; its headers say which trace that belongs to."""
    correlation = headers.get("Headrace-Correlation") or headers.get("Nats-Msg-Id", "")
    whole = SpanContext(
        int.from_bytes(trace_id(correlation, headers.get("traceparent"))),
        int.from_bytes(span_id(correlation)),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    attributes = {
        **_MESSAGING,
        "messaging.destination.name": stream,
        "messaging.consumer.group.name": consumer,
        "messaging.operation.type": "process",
        "headrace.correlation.id": correlation,
    }
    with _span(f"handle {consumer}", SpanKind.CONSUMER, attributes, trace.set_span_in_context(NonRecordingSpan(whole))):
        yield


@contextmanager
def publishing(stream: str) -> Iterator[None]:
    """A message is published, until the stream has it."""
    attributes = {**_MESSAGING, "messaging.destination.name": stream, "messaging.operation.type": "send"}
    with _span(f"publish {stream}", SpanKind.PRODUCER, attributes):
        yield


@contextmanager
def requesting(method: str, path: str, server: str) -> Iterator[None]:
    """A request is sent, until its answer begins. `path` is one of ours, without anything that varies."""
    attributes = {"http.request.method": method, "url.template": path, "server.address": server}
    with _span(f"{method} {path}", SpanKind.CLIENT, attributes):
        yield


@contextmanager
def _span(name: str, kind: SpanKind, attributes: Mapping[str, str], context: Context | None = None) -> Iterator[None]:
    """The text of an error is left out: servers repeat in it what they were sent."""
    with _tracer.start_as_current_span(
        name, context, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except Exception as error:
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", type(error).__name__)
            raise
