"""NATS JetStream: the log, the bus, the blobs and the snapshots."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

_build = Client._build_message


def _build_from_any_subject(self: Client, sid: int, subject: bytes, *rest: Any) -> Any:
    """The server takes subjects that are not UTF-8; the client would stop reading for good at the first of them."""
    return _build(self, sid, subject.decode(errors="replace").encode(), *rest)


Client._build_message = _build_from_any_subject  # type: ignore[method-assign, assignment]
