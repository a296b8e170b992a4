"""The page that Prometheus scrapes."""

from __future__ import annotations

from nats.aio.client import Client
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, disable_created_metrics, generate_latest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from adapters.telemetry.metrics.calls import CallMetrics
from adapters.telemetry.metrics.state import Reading, State


class Metrics:
    """All metrics: `follow` keeps those of calls, and `page` asks for the rest; as an application it answers with it.

    `target` is the name of the collector that traces are sent to; empty when they are not.
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
        """The text of the page; servers that are away make it no slower than their patience."""
        await self.state.refresh()
        return generate_latest(self.registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(await self.page(), media_type=CONTENT_TYPE_LATEST)(scope, receive, send)
