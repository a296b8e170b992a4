"""A collector that takes spans by OTLP: HTTP with protobuf bodies."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx2
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from adapters.telemetry.otlp.endpoint import target, traces_url

TIMEOUT_S = 15.0
PROTOBUF = "application/x-protobuf"

MALFORMED = frozenset({400, 413, 422})
"""Statuses with which a collector refuses a request for good."""


class Away(Exception):
    """The collector did not accept the spans, but may later; `after` is the wait that it asks for, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Refused(Exception):
    """The collector refuses these spans for good."""


class Receipt(NamedTuple):
    """The number of spans of a request that the collector dropped, and the reason."""

    rejected: int
    reason: str


class Collector:
    """Sends spans, without buffer and without retry. `ca` has the certificates that verify an https:// endpoint."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], ca: Path | None = None) -> None:
        self._url = traces_url(endpoint)
        trust: dict[str, Any] = {"verify": ssl.create_default_context(cafile=ca)} if ca else {}
        own = {"Content-Type": PROTOBUF, "Content-Encoding": "gzip", "User-Agent": "headrace"}
        self._client = httpx2.AsyncClient(headers={**headers, **own}, timeout=TIMEOUT_S, **trust)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, spans: Iterable[ResourceSpans]) -> Receipt:
        """Raises: Away, Refused."""
        body = gzip.compress(ExportTraceServiceRequest(resource_spans=spans).SerializeToString(), 1, mtime=0)
        try:
            answer = await self._client.post(self._url, content=body)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise Away(f"{target(self._url)} does not answer: {type(error).__name__} {error}".strip()) from error
        if answer.is_success:
            return _taken(answer)
        reason = f"{target(self._url)} answers {answer.status_code}: {' '.join(answer.text[:300].split())}"
        if answer.status_code in MALFORMED:
            raise Refused(reason)
        raise Away(reason, _seconds(answer.headers.get("retry-after", "")))


def _taken(answer: httpx2.Response) -> Receipt:
    if not answer.headers.get("content-type", "").startswith(PROTOBUF):
        return Receipt(0, "")
    try:
        said = ExportTraceServiceResponse.FromString(answer.content).partial_success
    except DecodeError:  # it accepted them anyway
        return Receipt(0, "")
    return Receipt(said.rejected_spans, said.error_message)


def _seconds(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
