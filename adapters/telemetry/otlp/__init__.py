"""Export of traces to any OpenTelemetry collector: each ended span is sent until the collector accepts it."""
