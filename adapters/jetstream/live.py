"""Frames of growing answers on plain NATS."""

from __future__ import annotations

from typing import Any

import orjson
from nats.aio.client import Client


class NatsLive:
    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def publish(self, tenant: str, conversation: str, message: str, frame: dict[str, Any]) -> None:
        await self._nc.publish(f"live.{tenant}.{conversation}.{message}", orjson.dumps(frame))
