"""Fair queues in front of an embedding model: tenants take turns, questions overtake documents."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np

from adapters.embedding.engine import Engine
from adapters.embedding.wire import TokenIds
from handlers.ports.documents import Vectors
from handlers.ports.log import Unavailable

WINDOW = 0.003
"""Time that documents' texts wait for others to share a batch with, in seconds; questions do not wait."""


QUEUED = 512
"""Maximum number of queued batches, shared by the waiting tenants; further requests are refused as busy."""


ROUND = 8
"""Number of batches that a lane takes at a time, so that texts of similar length share one."""


class Busy(Unavailable):
    """The queue of the embedding model is full."""


class LocalEmbedder:
    """An Embedder with the model in this process.

    Documents use the lanes of the engine, questions one of their own, so that a question never waits for documents.
    """

    def __init__(self, engine: Engine, *, window: float = WINDOW, queued: int | None = None) -> None:
        """`queued`: maximum number of waiting tokens, of documents and of questions each."""
        self._engine = engine
        self.identity = engine.identity
        self.dimension = engine.dimension
        queued = queued or engine.batch * QUEUED
        self._documents = _Lanes(engine, window, queued)
        self._questions = _Lanes(engine, 0.0, queued, urgent=True)

    async def embed(self, token_ids: Sequence[TokenIds], *, tenant: str = "", urgent: bool = False) -> Vectors:
        """Raises: Busy; ValueError for texts that the model cannot take."""
        self._engine.check(token_ids)
        if not len(token_ids):
            return np.empty((0, self.dimension), np.float32)
        return await (self._questions if urgent else self._documents).embed(tenant, token_ids)

    async def close(self) -> None:
        await asyncio.gather(self._documents.close(), self._questions.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@dataclass(slots=True, eq=False)
class _Request:
    token_ids: Sequence[TokenIds]
    vectors: Vectors
    missing: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Line:
    """The waiting texts of a tenant: their number of tokens, and the tokens left in this turn."""

    texts: deque[tuple[_Request, int]] = field(default_factory=deque)
    tokens: int = 0
    credit: int = 0


class _Queue:
    """Waiting texts. Tenants take turns of `turn` tokens each; texts of one tenant keep their order."""

    def __init__(self, most: int, turn: int) -> None:
        self._most = most
        self._turn = turn
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self.tokens = 0

    def put(self, tenant: str, request: _Request) -> None:
        """Raises: Busy when the tenant has used its share of the queue, which shrinks as more tenants wait."""
        line = self._lines.get(tenant) or _Line()
        tokens = sum(map(len, request.token_ids))
        tenants = len(self._lines | {tenant: line})
        if line.texts and line.tokens + tokens > self._most / tenants:
            raise Busy(f"{line.tokens} tokens of {tenant or 'this tenant'} are waiting for the embedding model.")
        line.texts.extend((request, index) for index in range(len(request.token_ids)))
        line.tokens += tokens
        self.tokens += tokens
        self._lines[tenant] = line

    def take(self, room: int) -> list[tuple[_Request, int]]:
        """The next texts, of about `room` tokens in total, without cancelled ones."""
        taken: list[tuple[_Request, int]] = []
        while self._lines and room > 0:
            tenant, line = self._lines.popitem(last=False)
            line.credit += self._turn
            while line.texts:
                request, index = line.texts[0]
                size = len(request.token_ids[index])
                if not request.done.done():
                    if size > line.credit:
                        break
                    line.credit -= size
                    room -= size
                    taken.append((request, index))
                line.texts.popleft()
                line.tokens -= size
                self.tokens -= size
            if line.texts:
                self._lines[tenant] = line  # after the others
        return taken


class _Lanes:
    """A queue of texts, and the threads that process it, a round each at a time."""

    def __init__(self, engine: Engine, window: float, queued: int, *, urgent: bool = False) -> None:
        self._engine = engine
        self._window = window
        self._round = engine.batch * ROUND
        self._queue = _Queue(queued, engine.longest)
        self._open: set[_Request] = set()
        self._arrived = asyncio.Event()
        enter = partial(engine.enter, urgent=urgent)
        self._threads = [ThreadPoolExecutor(1, "embed", enter) for _ in range(1 if urgent else engine.lanes)]
        self._workers: list[asyncio.Task[None]] = []

    async def embed(self, tenant: str, token_ids: Sequence[TokenIds]) -> Vectors:
        vectors = np.empty((len(token_ids), self._engine.dimension), np.float32)
        request = _Request(token_ids, vectors, len(token_ids), asyncio.get_running_loop().create_future())
        self._queue.put(tenant, request)
        self._arrived.set()
        self._workers = self._workers or [asyncio.create_task(self._work(thread)) for thread in self._threads]
        self._open.add(request)
        try:
            await request.done
        finally:
            self._open.discard(request)
        return vectors

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._window and self._queue.tokens < self._round:
                await asyncio.sleep(self._window)
            taken = self._take()
            if not taken:
                continue
            try:
                texts = [request.token_ids[index] for request, index in taken]
                self._deliver(taken, await loop.run_in_executor(thread, self._engine.encode, texts))
            except Exception as error:
                for request in {request for request, _ in taken if not request.done.done()}:
                    request.done.set_exception(error)

    def _take(self) -> list[tuple[_Request, int]]:
        """A round, or this lane's share of the queue, so that the lanes finish together."""
        part = -(-self._queue.tokens // len(self._threads))
        taken = self._queue.take(min(self._round, max(part, self._engine.batch)))
        if not self._queue.tokens:
            self._arrived.clear()
        return taken

    def _deliver(self, taken: Sequence[tuple[_Request, int]], vectors: Vectors) -> None:
        for (request, index), vector in zip(taken, vectors, strict=True):
            request.vectors[index] = vector
            request.missing -= 1
            if not request.missing and not request.done.done():
                request.done.set_result(None)

    async def close(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for request in self._open:
            if not request.done.done():
                request.done.set_exception(Unavailable("The embedding model is being stopped."))
        await asyncio.gather(*(asyncio.to_thread(thread.shutdown) for thread in self._threads))
