"""A collector for tests: it takes OTLP over HTTP, decodes the protobuf, keeps the spans, or misbehaves on request."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Answer = Callable[[Sequence[Span]], int]
"""The status of the answer to a request with these spans."""


class Receiver:
    """`spans` are those of requests that were answered with 200, each with its resource's attributes."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, Any], Span]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.answer: Answer = lambda spans: 200
        self.throws_away = 0
        self.retry_after = ""
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen at the port that it had before, if it had one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def ids(self) -> list[bytes]:
        return [span.span_id for _, span in self.spans]

    async def until(self, enough: Callable[[Receiver], bool], within: float = 30.0) -> None:
        try:
            async with asyncio.timeout(within):
                while not enough(self):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            names = [span.name for _, span in self.spans]
            raise AssertionError(f"not enough after {within:g} s: {names}, answers {self.statuses[-20:]}") from None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            status, said = self._take(head[0], headers, body)
            fields = f"Content-Type: application/x-protobuf\r\nContent-Length: {len(said)}\r\nConnection: close"
            wait = f"\r\nRetry-After: {self.retry_after}" if self.retry_after else ""
            writer.write(f"HTTP/1.1 {status} Status\r\n{fields}{wait}\r\n\r\n".encode() + said)
            await writer.drain()
        writer.close()

    def _take(self, line: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        assert line == "POST /v1/traces HTTP/1.1", line
        assert headers["content-type"] == "application/x-protobuf"
        raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        sent = ExportTraceServiceRequest.FromString(raw)
        found = [
            (values(resource.resource.attributes), span)
            for resource in sent.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        status = self.answer([span for _, span in found])
        self.statuses.append(status)
        if status != 200:
            return status, b"I do not like this."
        self.headers.append(headers)
        self.bodies.append(raw)
        self.spans += found
        partial = ExportTracePartialSuccess(rejected_spans=self.throws_away, error_message="too old")
        return 200, ExportTraceServiceResponse(partial_success=partial).SerializeToString()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()


def values(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    """Attributes as a dict of plain values."""
    return {pair.key: _plain(pair.value) for pair in attributes}


def _plain(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return [_plain(item) for item in value.array_value.values]
        case "kvlist_value":
            return values(value.kvlist_value.values)
        case None:
            return None
        case kind:
            return getattr(value, kind)
