"""Spans of handlers' work with NATS and providers, for OpenTelemetry's SDK; none where it is not set up.

They belong to the trace of the original command. Work that no message caused, such as a rebuild of the tables, is in no
trace.
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
def handling(consumer: str, stream: str, subject: str, headers: Mapping[str, str]) -> Iterator[None]:
    """The span of handling a message, in the trace that its headers name, of the tenant in its subject."""
    if not _recorded():
        yield
        return
    _, tenant, *_ = f"{subject}.".split(".")
    correlation = headers.get("Headrace-Correlation") or headers.get("Headrace-Id") or headers.get("Nats-Msg-Id", "")
    whole = SpanContext(
        int.from_bytes(trace_id(tenant, correlation, headers.get("traceparent"))),
        int.from_bytes(span_id(tenant, correlation)),
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
    """The span of publishing a message, until it is stored."""
    if not _recorded():
        yield
        return
    attributes = {**_MESSAGING, "messaging.destination.name": stream, "messaging.operation.type": "send"}
    with _span(f"publish {stream}", SpanKind.PRODUCER, attributes):
        yield


@contextmanager
def requesting(method: str, path: str, server: str) -> Iterator[None]:
    """The span of a request, until its answer begins. `path` is a constant of this code, without variable parts."""
    attributes = {"http.request.method": method, "url.template": path, "server.address": server}
    with _span(f"{method} {path}", SpanKind.CLIENT, attributes):
        yield


def _recorded() -> bool:
    """False without a provider of tracers: spans that nothing records cost time, too."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def _span(name: str, kind: SpanKind, attributes: Mapping[str, str], context: Context | None = None) -> Iterator[None]:
    """Record an error without its text: servers repeat in it what they were sent."""
    with _tracer.start_as_current_span(
        name, context, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except Exception as error:
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", type(error).__name__)
            raise
