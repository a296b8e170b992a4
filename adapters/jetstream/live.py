"""Frames of growing answers on plain NATS."""

from __future__ import annotations

from typing import Any

import orjson
import structlog
from nats.aio.client import Client

log = structlog.get_logger(__name__)


class NatsLive:
    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def publish(self, tenant: str, conversation: str, message: str, frame: dict[str, Any]) -> None:
        body = orjson.dumps(frame)
        if len(body) > self._nc.max_payload:
            log.warning("frame left out", tenant=tenant, message=message, type=frame["type"], bytes=len(body))
            return
        await self._nc.publish(f"live.{tenant}.{conversation}.{message}", body)
