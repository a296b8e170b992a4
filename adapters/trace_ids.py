"""Ids of traces and spans, derived from ids of the log, so that they can be derived again."""

from __future__ import annotations

import hashlib
import re
from uuid import UUID

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def trace_id(correlation: str, traceparent: str | None = None) -> bytes:
    """The trace that the command's sender named, else the command's own id."""
    if found := _TRACEPARENT.match(traceparent or ""):
        return bytes.fromhex(found[1])
    if _UUID.fullmatch(correlation) and (id := UUID(correlation)).int:
        return id.bytes
    return hashlib.sha256(correlation.encode()).digest()[:16]


def span_id(id: str) -> bytes:
    return hashlib.sha256(id.encode()).digest()[:8]


def publishers_span(traceparent: str | None) -> bytes:
    """The span that the command's sender named; empty for none."""
    found = _TRACEPARENT.match(traceparent or "")
    return bytes.fromhex(found[2]) if found else b""
