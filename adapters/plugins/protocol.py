"""The protocol of Headrace's own plugins, version 1.

To the plugin: `load`, once; `hook` with an id; `ping`; `close`. From it: `ready` or `error`, once; a reply with the id
of each hook; `pong`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.plugins.process import Ended, Message

API = 1


class OwnDialect:
    """The Dialect of these plugins."""

    ENDS = True

    def key(self, message: Message) -> str | None:
        id = message.get("id")
        return id if isinstance(id, str) else None

    def is_last(self, message: Message) -> bool:
        return True

    def is_ready(self, message: Message) -> bool:
        if message.get("type") == "error":
            raise Ended(f"It cannot load: {str(message.get('message', ''))[:500]}")
        return message.get("type") == "ready"

    def unasked(self, message: Message) -> bool:
        return message.get("type") == "pong"

    def ping(self) -> Message | None:
        return {"type": "ping"}

    def goodbye(self) -> Message | None:
        return {"type": "close"}


def load(tenant: str, settings: Mapping[str, Any], host: str) -> Message:
    return {"type": "load", "api": API, "host": host, "tenant": tenant, "settings": dict(settings)}


def hook(id: str, name: str, call: Mapping[str, Any]) -> Message:
    return {"type": "hook", "id": id, "hook": name, "call": dict(call)}
