"""Ids of traces and spans, derived from a tenant and its ids of the log, so that they can be derived again.

Senders choose the ids of their commands, and could choose those of another tenant.
"""

from __future__ import annotations

import hashlib
import re

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


def trace_id(tenant: str, correlation: str, traceparent: str | None = None) -> bytes:
    """The trace that the command's sender named, else that of the command."""
    if found := _TRACEPARENT.match(traceparent or ""):
        return bytes.fromhex(found[1])
    return _digest(tenant, correlation)[:16]


def span_id(tenant: str, id: str) -> bytes:
    return _digest(tenant, id)[:8]


def _digest(tenant: str, id: str) -> bytes:
    return hashlib.sha256(f"{tenant}/{id}".encode()).digest()


def publishers_span(traceparent: str | None) -> bytes:
    """The span that the command's sender named; empty for none."""
    found = _TRACEPARENT.match(traceparent or "")
    return bytes.fromhex(found[2]) if found else b""
