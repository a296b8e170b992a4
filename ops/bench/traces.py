"""Traces: throughput of their projection, and latency of the viewer's pages."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.request import Request, urlopen

import psycopg
import uvicorn
from rich.progress import Progress

from adapters.postgres import tables
from adapters.postgres.feed import BATCH
from adapters.postgres.reader import POSTGRES, login
from adapters.postgres.writer import Writer
from adapters.web.viewer.access import Access
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.server import create_app
from domain.log import EVENTS, Recorded
from ops.bench.indexes import database
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack
from ops.bench.trace_history import CALLS_PER_STORY, SPANS_PER_STORY, TraceHistory
from ops.upkeep.rebuild import uncollected
from projections.catalog import READ_MODELS

WIDE = (1000, 10_000)
"""Spans of large traces; fewer when fewer calls are measured."""

COMMON, RARE = "assistant", "pressure relief valve"
"""A word in every prompt, and words that few prompts have together."""

TOKEN = "a token of the benchmark alone"


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    async with database(stack.settings.postgres_url) as url:  # without a projector
        await tables.set_up(url)
        history = TraceHistory(stack.settings.tenant, datetime.now(UTC))
        stories = max(1, sizes.calls // CALLS_PER_STORY)
        bar = bars.add_task("traces", total=stories * CALLS_PER_STORY)
        projected = Aim(at_least=5000)
        async with tables.connect(url) as connection:
            writer = Writer(READ_MODELS, tables.SCHEMA)
            took = 0.0
            for batch in history.batches(stories, BATCH):
                took += await _write(connection, writer, batch)
                bars.advance(bar, stories * CALLS_PER_STORY * len(batch) / history.messages(stories))
            wide = []
            for spans in WIDE:
                trace, messages = history.wide(max(10, min(spans, sizes.calls)))
                await _write(connection, writer, messages)
                wide.append(trace)
            await connection.execute(
                "UPDATE headrace_projection.checkpoints SET sequence = %s WHERE stream = %s", (history.sequence, EVENTS)
            )
            await connection.execute("VACUUM (ANALYZE) headrace.traces, headrace.spans, headrace.model_calls")
        measures = [Measure("traces.projected", stories * SPANS_PER_STORY / took, "spans/s", aim=projected)]
        async with _viewer(stack, url) as viewer:
            measures += await _pages(viewer, wide, max(2, sizes.questions // 5))
    return measures


async def _write(
    connection: psycopg.AsyncConnection[tuple[object, ...]], writer: Writer, batch: list[Recorded]
) -> float:
    """Seconds that the projector takes for a batch, after reading it."""
    with uncollected():
        began = time.perf_counter()
        async with connection.transaction():
            await writer.write(connection, (batch, {}))
        return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Answer:
    """A page: milliseconds to its last byte, its size in bytes, and its size on the wire."""

    ms: float
    size: int
    sent: int


class Viewer:
    """HTTP client that measures pages."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def get(self, path: str) -> Answer:
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> Answer:
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/html", "Accept-Encoding": "gzip"}
        began = time.perf_counter()
        with urlopen(Request(self._url + path, headers=headers), timeout=60) as response:
            body = response.read()
            took = time.perf_counter() - began
            plain = gzip.decompress(body) if response.headers.get("Content-Encoding") == "gzip" else body
        return Answer(took * 1000, len(plain), len(body))


async def _pages(viewer: Viewer, wide: Sequence[str], asked: int) -> list[Measure]:
    lists = [await viewer.get("/traces") for _ in range(asked)]
    found = [
        *_times("traces.list", lists, p50=Aim(at_most=50)),
        Measure("traces.list.size", max(page.size for page in lists) / 1000, "kB", aim=Aim(at_most=100)),
        Measure("traces.list.sent", max(page.sent for page in lists) / 1000, "kB"),
    ]
    for name, text in (("common", COMMON), ("rare", RARE)):
        pages = [await viewer.get(f"/traces?q={text.replace(' ', '+')}") for _ in range(asked)]
        found += _times(f"traces.search.{name}", pages, p95=Aim(at_most=300))
    for spans, trace, aim in zip(WIDE, wide, (Aim(at_most=100), None), strict=True):
        pages = [await viewer.get(f"/traces/{trace}") for _ in range(asked)]
        found += _times(f"traces.{spans}", pages, p50=aim)
        found.append(Measure(f"traces.{spans}.sent", max(page.sent for page in pages) / 1000, "kB"))
    return found


def _times(name: str, pages: Sequence[Answer], p50: Aim | None = None, p95: Aim | None = None) -> list[Measure]:
    took = [page.ms for page in pages]
    return [
        Measure(f"{name}.p50", percentile(took, 50), "ms", aim=p50),
        Measure(f"{name}.p95", percentile(took, 95), "ms", aim=p95),
    ]


@asynccontextmanager
async def _viewer(stack: Stack, url: str) -> AsyncIterator[Viewer]:
    """The viewer within this process, as the role `view` runs it."""
    backend = Backend(
        stack.client.connection, await login(url, stack.settings.vault().derive(POSTGRES)), stack.settings.tenant
    )
    access = Access.of("127.0.0.1", TOKEN, "", stack.settings.vault().derive("viewer cookies"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(backend, access), log_config=None, lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with asyncio.timeout(20):
                while not server.started and not serving.done():
                    await asyncio.sleep(0.01)
            yield Viewer(f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            with suppress(asyncio.CancelledError):
                await serving
