"""The protocol of Dify's plugins: requests with the id of a session, and replies to each up to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.plugins.process import Message

VARIABLES = {"INSTALL_METHOD": "local", "HEARTBEAT_INTERVAL": "10", "MAX_INVOCATION_TIMEOUT": "3600"}
"""Variables that the SDK reads; they count more than a file `.env` of the package. A call back may take as long as a
turn of an agent."""


class DifyDialect:
    """The Dialect of these plugins."""

    ENDS = False
    """The SDK does not notice the end of its standard input."""

    def key(self, message: Message) -> str | None:
        id = message.get("session_id")
        return id if message.get("event") == "session" and isinstance(id, str) else None

    def is_last(self, message: Message) -> bool:
        return said(message)[0] == "end"

    def is_ready(self, message: Message) -> bool:
        """The first line is its manifest; it reads requests from then on."""
        return "plugins" in message and "meta" in message

    def unasked(self, message: Message) -> bool:
        return message.get("event") in ("heartbeat", "log", "error")

    def ping(self) -> Message | None:
        return None

    def goodbye(self) -> Message | None:
        return None


def said(message: Message) -> tuple[str, dict[str, Any]]:
    """The type of a reply, and its content."""
    data = message.get("data")
    whole = data if isinstance(data, dict) else {}
    content = whole.get("data")
    return str(whole.get("type")), content if isinstance(content, dict) else {}


def request(id: str, data: Mapping[str, Any], *, conversation: str = "", message: str = "", app: str = "") -> Message:
    return {
        "session_id": id,
        "event": "request",
        "data": dict(data),
        "conversation_id": conversation or None,
        "message_id": message or None,
        "app_id": app or None,
        "endpoint_id": None,
        "context": {},
    }


def response(session: str, request: str, event: str, data: Mapping[str, Any] | None, message: str = "") -> Message:
    """A part of the reply to a call back: `event` is `response`, `error` or `end`."""
    content = {"backwards_request_id": request, "event": event, "message": message, "data": data}
    return {"session_id": session, "event": "backwards_response", "data": content}
