"""Size limits of messages on the connection, headers included; a stream may have a lower one."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.client import Client

HEADROOM = 16 * 1024
"""Bytes of headers that a commit may gain later: among the dead letters, or when it is restored from an archive."""

RESTORED = 1024
"""Bytes of headers that any message may gain when it is restored."""

TOO_LARGE = 10054
"""JetStream's error code for a message that is larger than the stream takes."""


def largest(nc: Client) -> int:
    """Bytes of the largest message that may be published as a commit."""
    return nc.max_payload - HEADROOM


def size_of(body: bytes, headers: Mapping[str, str]) -> int:
    """Bytes of a message as the server counts them.

    The client compares only the body with the server's limit, and the server closes the connection, for good, on a
    larger message.
    """
    lines = sum(len(name.encode()) + len(value.encode()) + len(": \r\n") for name, value in headers.items())
    return len(body) + len("NATS/1.0\r\n\r\n") + lines
