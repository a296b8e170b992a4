"""The page that Prometheus scrapes."""

from __future__ import annotations

from nats.aio.client import Client
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, disable_created_metrics, generate_latest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from adapters.telemetry.metrics.calls import CallMetrics
from adapters.telemetry.metrics.state import Reading, State


class Metrics:
    """All metrics: `follow` counts calls, and `page` queries the others; as an ASGI application it serves the page.

    `target` is the name of the collector of the export; empty without export.
    """

    def __init__(self, nc: Client, reading: Reading, target: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.calls = CallMetrics(nc, self.registry)
        self.state = State(nc, reading, target)
        self.registry.register(self.state)

    async def follow(self) -> None:
        """Observe calls as they are made, until cancelled."""
        await self.calls.follow()

    async def page(self) -> bytes:
        """The text of the page; unreachable servers delay it by their time limit at most."""
        await self.state.refresh()
        return generate_latest(self.registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(await self.page(), media_type=CONTENT_TYPE_LATEST)(scope, receive, send)
