"""OpenTelemetry SDK for infrastructure spans, if the settings ask for them.

Unlike the export of recorded traces, these spans are lost while the collector is unreachable and when a worker is
killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from adapters.telemetry.otlp.endpoint import header_fields, traces_url
from ops.settings import Settings

FLUSH_S = 3.0
"""Maximum time to send the remaining spans when a worker ends, in seconds."""


@asynccontextmanager
async def infrastructure(settings: Settings, role: str) -> AsyncIterator[None]:
    """Export spans to the collector within this context; use one context per process."""
    if not (settings.otlp_endpoint and settings.otlp_infrastructure):
        yield
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

    headers = header_fields(settings.otlp_headers.get_secret_value() if settings.otlp_headers else "")
    exporter = OTLPSpanExporter(
        traces_url(settings.otlp_endpoint),
        certificate_file=str(settings.otlp_ca) if settings.otlp_ca else None,
        headers=headers,
        timeout=FLUSH_S,
        compression=Compression.Gzip,
    )
    about = {"service.name": "headrace-worker", "service.version": version("headrace"), "headrace.role": role}
    # Work without a message has no parent span and makes no spans: rebuilds belong to no trace.
    provider = TracerProvider(ParentBased(ALWAYS_OFF), Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    PsycopgInstrumentor().instrument(tracer_provider=provider)
    try:
        yield
    finally:
        PsycopgInstrumentor().uninstrument()
        await asyncio.to_thread(provider.shutdown)
