"""Sends traces to a collector."""

from __future__ import annotations

from collections.abc import Awaitable

from adapters.telemetry.otlp.collector import Collector
from adapters.telemetry.otlp.endpoint import header_fields
from adapters.telemetry.otlp.exporter import Exporter
from adapters.telemetry.otlp.spans import Content
from ops.settings import InvalidSetting, Settings
from ops.values import masking
from ops.wiring import Wiring


async def begin(wiring: Wiring) -> Awaitable[object]:
    """Raises: InvalidSetting."""
    settings = wiring.settings
    if not settings.otlp_endpoint:
        raise InvalidSetting("HEADRACE_OTLP_ENDPOINT is not set: there is nowhere to send traces to.")
    try:
        made = Collector(settings.otlp_endpoint, headers(settings), settings.otlp_ca)
    except (ImportError, ValueError) as error:
        raise InvalidSetting(
            "The proxy of the environment (ALL_PROXY, HTTPS_PROXY or HTTP_PROXY) cannot be used for the collector: "
            f"unset it, set one with http://, or add the collector's host to NO_PROXY. {str(error).split('. ')[0]}."
        ) from error
    collector = await wiring.open.enter_async_context(made)
    content = Content(settings.otlp_content_length if settings.otlp_content == "masked" else None, masking(settings))
    return Exporter(settings.postgres_url, wiring.nc, collector, settings.otlp_endpoint, content).run()


def headers(settings: Settings) -> dict[str, str]:
    """Return the headers that the collector expects in every request."""
    return header_fields(settings.otlp_headers.get_secret_value() if settings.otlp_headers else "")
