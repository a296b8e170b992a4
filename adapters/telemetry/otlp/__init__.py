"""Traces to any OpenTelemetry collector: each span that has ended is sent until the collector has taken it."""
