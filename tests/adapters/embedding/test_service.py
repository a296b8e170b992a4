"""The embedding service: requests that wait, are refused, or lose their server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import nats
import numpy as np
import pytest
from nats.aio.client import Client

from adapters.embedding.client import NatsEmbedder
from adapters.embedding.engine import Engine
from adapters.embedding.lanes import Busy, LocalEmbedder, _Queue, _Request
from adapters.embedding.service import serve
from adapters.embedding.wire import TokenIds, pack, unpack
from adapters.model_files import subject
from handlers.ports.documents import Vectors
from handlers.ports.log import Unavailable

QUESTION = [[101, 2054, 102]]

DOCUMENT = [[101, *[2300] * 254, 102]] * 16


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture
def model(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of its own for each test, so that no service of another answers."""
    name = f"model-{uuid4()}"
    monkeypatch.setattr(engine, "name", name)
    return name


@pytest.fixture
async def nc(nats_url: str) -> AsyncIterator[Client]:
    nc = await nats.connect(nats_url)
    yield nc
    await nc.close()


@asynccontextmanager
async def serving(nats_url: str, engine: Engine, *, queued: int = 262_144) -> AsyncIterator[None]:
    nc = await nats.connect(nats_url)
    service = asyncio.create_task(serve(nc, engine, queued=queued))
    yield
    service.cancel()
    with suppress(asyncio.CancelledError):
        await service
    await nc.close()


async def test_packed_texts_come_out_as_they_went_in() -> None:
    texts = [[101, 7, 102], [101, 102], [3] * 256]
    assert [text.tolist() for text in unpack(pack(texts))] == texts


@pytest.mark.parametrize("body", [b"", b"abc", b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff" * 3, pack([[1, 2]])[:-4]])
async def test_a_broken_request_is_refused(nats_url: str, nc: Client, engine: Engine, model: str, body: bytes) -> None:
    async with serving(nats_url, engine), NatsEmbedder(nc, model) as embedder:
        await embedder.embed(QUESTION)
        reply = await nc.request(subject(model), body)
        assert (reply.headers or {})["Headrace-Status"] == "bad_request"
        assert reply.data.endswith(b".")
        assert (await embedder.embed(QUESTION)).shape == (1, 384)


async def test_the_service_introduces_itself(nats_url: str, nc: Client, engine: Engine, model: str) -> None:
    async with serving(nats_url, engine), NatsEmbedder(nc, model) as embedder:
        await embedder.embed([])
        reply = await nc.request(f"{subject(model)}.info")
        assert json.loads(reply.data) == {"identity": embedder.identity, "dimension": 384, "longest": 256}


async def test_the_answer_says_what_made_it(nats_url: str, nc: Client, engine: Engine, model: str) -> None:
    async with serving(nats_url, engine), NatsEmbedder(nc, model) as embedder:
        await embedder.embed([])
        reply = await nc.request(subject(model), pack(QUESTION))
        headers = reply.headers or {}
        assert headers["Headrace-Identity"] == engine.identity
        assert headers["Headrace-Dimension"] == "384"
        assert float(headers["Headrace-Duration-Ms"]) > 0
        assert len(reply.data) == 384 * 4


async def test_without_a_service_it_is_unavailable(nc: Client, model: str) -> None:
    async with NatsEmbedder(nc, model, patience=0.5) as embedder:
        with pytest.raises(Unavailable):
            _ = embedder.identity
        with pytest.raises(Unavailable):
            await embedder.embed(QUESTION)
    async with NatsEmbedder(nc, model, identity="known", dimension=384, patience=0.5) as embedder:
        assert (embedder.identity, embedder.dimension) == ("known", 384)
        with pytest.raises(Unavailable, match="No embedding service"):
            await embedder.embed(QUESTION)


async def test_a_request_waits_for_a_service_that_starts_later(
    nats_url: str, nc: Client, engine: Engine, model: str
) -> None:
    async with NatsEmbedder(nc, model) as embedder:
        waiting = asyncio.create_task(embedder.embed(QUESTION))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        async with serving(nats_url, engine):
            assert (await waiting).shape == (1, 384)
            assert embedder.identity == engine.identity


async def test_requests_in_hand_are_answered_by_the_next_service(
    nats_url: str, nc: Client, engine: Engine, model: str
) -> None:
    async with NatsEmbedder(nc, model) as embedder:
        async with serving(nats_url, engine):
            await embedder.embed(QUESTION)
            waiting = asyncio.create_task(embedder.embed(DOCUMENT))
            await asyncio.sleep(0.05)
        assert not waiting.done()
        async with serving(nats_url, engine):
            assert (await waiting).shape == (16, 384)


async def test_a_service_that_died_is_noticed_by_its_silence(
    nats_url: str, nc: Client, engine: Engine, model: str
) -> None:
    dying = await nats.connect(nats_url)
    await dying.subscribe(subject(model), queue="embed")
    async with NatsEmbedder(nc, model, identity=engine.identity, dimension=384, silence=0.3) as embedder:
        waiting = asyncio.create_task(embedder.embed(QUESTION))
        await asyncio.sleep(0.1)
        await dying.close()
        async with serving(nats_url, engine):
            assert (await waiting).shape == (1, 384)


async def test_services_share_the_requests_and_those_of_a_dead_one_go_to_another(
    nats_url: str, nc: Client, engine: Engine, model: str
) -> None:
    class Counted(Engine):
        def __init__(self) -> None:
            self.__dict__ |= engine.__dict__
            self.texts = 0

        def encode(self, token_ids: Sequence[TokenIds]) -> Vectors:
            self.texts += len(token_ids)
            return engine.encode(token_ids)

    first, second = Counted(), Counted()
    async with serving(nats_url, first), NatsEmbedder(nc, model, silence=2.5) as embedder:
        await embedder.embed([])
        mortal = await nats.connect(nats_url, allow_reconnect=False)
        service = asyncio.create_task(serve(mortal, second))
        while not second.texts:
            await embedder.embed(QUESTION)
        waiting = [asyncio.create_task(embedder.embed(DOCUMENT)) for _ in range(8)]
        await asyncio.sleep(0.1)
        await mortal.close()  # as if it had been killed: without notice
        assert [vectors.shape for vectors in await asyncio.gather(*waiting)] == [(16, 384)] * 8
        service.cancel()
        await asyncio.gather(service, return_exceptions=True)
    assert first.texts


async def test_slow_work_is_not_silence(nats_url: str, nc: Client, engine: Engine, model: str) -> None:
    class Slow(Engine):
        def __init__(self) -> None:
            self.__dict__ |= engine.__dict__

        def encode(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
            time.sleep(3.5)
            return engine.encode(token_ids)

    async with serving(nats_url, Slow()), NatsEmbedder(nc, model, silence=2.5, patience=3.0) as embedder:
        assert (await embedder.embed(QUESTION)).shape == (1, 384)


async def test_work_that_fails_is_an_error_after_some_tries(
    nats_url: str, nc: Client, engine: Engine, model: str
) -> None:
    class Broken(Engine):
        def __init__(self) -> None:
            self.__dict__ |= engine.__dict__
            self.tries = 0

        def encode(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
            self.tries += 1
            raise MemoryError("no room")

    broken = Broken()
    async with serving(nats_url, broken), NatsEmbedder(nc, model) as embedder:
        with pytest.raises(RuntimeError, match="no room"):
            await embedder.embed(QUESTION)
        assert broken.tries == 3


async def test_another_identity_is_not_taken(nats_url: str, nc: Client, engine: Engine, model: str) -> None:
    async with serving(nats_url, engine), NatsEmbedder(nc, model, identity="another", dimension=384) as embedder:
        with pytest.raises(Unavailable, match="not another"):
            await embedder.embed(QUESTION)


async def test_a_full_queue_answers_busy(nats_url: str, nc: Client, engine: Engine, model: str) -> None:
    async with serving(nats_url, engine, queued=6000), NatsEmbedder(nc, model) as embedder:
        await embedder.embed([])
        found = await asyncio.gather(*(embedder.embed(DOCUMENT) for _ in range(5)))
        assert [vectors.shape for vectors in found] == [(16, 384)] * 5


async def test_too_much_at_once_is_busy_and_what_waits_is_done(engine: Engine) -> None:
    async with LocalEmbedder(engine, queued=6000) as embedder:
        first = asyncio.create_task(embedder.embed(DOCUMENT))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await embedder.embed(DOCUMENT)
        assert (await embedder.embed(QUESTION, urgent=True)).shape == (1, 384)
        assert (await first).shape == (16, 384)
        assert (await embedder.embed(DOCUMENT)).shape == (16, 384)


async def test_texts_of_many_documents_share_batches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    encode = engine.encode

    def counted(token_ids: Sequence[Sequence[int]]) -> Vectors:
        calls.append(len(token_ids))
        return encode(token_ids)

    monkeypatch.setattr(engine, "encode", counted)
    async with LocalEmbedder(engine) as embedder:
        await asyncio.gather(*(embedder.embed([[101, 2000 + number, 102]]) for number in range(50)))
    assert sum(calls) == 50
    assert len(calls) == 1


async def test_questions_that_arrive_during_another_one_share_the_next_batch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, encode = list[int](), engine.encode
    loop, begun, goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def counted(token_ids: Sequence[Sequence[int]]) -> Vectors:
        calls.append(len(token_ids))
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait(10)
        return encode(token_ids)

    monkeypatch.setattr(engine, "encode", counted)
    async with LocalEmbedder(engine) as embedder:
        first = asyncio.create_task(embedder.embed(QUESTION, tenant="a", urgent=True))
        await begun.wait()
        rest = [asyncio.create_task(embedder.embed(QUESTION, tenant=f"{n}", urgent=True)) for n in range(15)]
        await asyncio.sleep(0)
        goes_on.set()
        await asyncio.gather(first, *rest)
    assert calls == [1, 15]


async def test_a_tenant_with_much_does_not_hold_up_one_with_little(engine: Engine) -> None:
    async with LocalEmbedder(engine) as embedder:
        await embedder.embed(DOCUMENT[:1])
        much = [asyncio.create_task(embedder.embed(DOCUMENT, tenant="much")) for _ in range(12)]
        await asyncio.sleep(0)
        assert (await embedder.embed(DOCUMENT[:1], tenant="little")).shape == (1, 384)
        assert sum(task.done() for task in much) <= 4
        await asyncio.gather(*much)


async def test_tenants_take_turns_by_tokens() -> None:
    queue = _Queue(10_000, turn=100)
    for tenant, size, count in (("long", 100, 20), ("short", 10, 200), ("few", 50, 2)):
        queue.put(tenant, request([[7] * size] * count))
    assert sizes(queue.take(600)) == {100: 3, 10: 20, 50: 2}
    assert queue.tokens == 4100 - 600
    assert sizes(queue.take(1_000_000)) == {100: 17, 10: 180}
    assert (queue.tokens, queue.take(100)) == (0, [])


def sizes(taken: Sequence[tuple[_Request, int]]) -> Counter[int]:
    return Counter(len(waiting.token_ids[index]) for waiting, index in taken)


async def test_the_more_tenants_wait_the_less_each_may_have_waiting() -> None:
    queue = _Queue(1000, turn=100)
    hundred = [[7] * 100]
    for _ in range(10):
        queue.put("a", request(hundred))
    with pytest.raises(Busy, match="1000 tokens of a are waiting"):
        queue.put("a", request(hundred))
    for _ in range(5):
        queue.put("b", request(hundred))
    with pytest.raises(Busy):
        queue.put("b", request(hundred))
    queue.put("c", request(hundred * 50))  # who has nothing waiting is never refused
    queue.take(1_000_000)
    queue.put("a", request(hundred * 10))


def request(texts: Sequence[Sequence[int]]) -> _Request:
    done = asyncio.get_running_loop().create_future()
    return _Request(texts, np.empty((len(texts), 1), np.float32), len(texts), done)


async def test_cancelled_texts_are_left_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    encode = engine.encode

    def counted(token_ids: Sequence[Sequence[int]]) -> Vectors:
        calls.append(len(token_ids))
        return encode(token_ids)

    monkeypatch.setattr(engine, "encode", counted)
    async with LocalEmbedder(engine, window=0.05) as embedder:
        given_up = asyncio.create_task(embedder.embed(QUESTION * 5))
        kept = asyncio.create_task(embedder.embed(QUESTION))
        await asyncio.sleep(0.01)
        given_up.cancel()
        assert (await kept).shape == (1, 384)
    assert calls == [1]


async def test_texts_that_the_bus_does_not_take_are_no_outage(
    nats_url: str, nc: Client, engine: Engine, model: str
) -> None:
    async with serving(nats_url, engine), NatsEmbedder(nc, model) as embedder:
        await embedder.embed(QUESTION)
        with pytest.raises(ValueError, match="more than the bus takes"):
            await embedder.embed([[7] * (nc.max_payload // 4)])


async def test_closing_ends_those_who_wait(engine: Engine) -> None:
    embedder = LocalEmbedder(engine)
    waiting = asyncio.create_task(embedder.embed(DOCUMENT * 5))
    await asyncio.sleep(0.05)
    await embedder.close()
    with pytest.raises(Unavailable):
        await waiting


async def test_vectors_are_written_as_the_docstring_says(engine: Engine) -> None:
    body = pack([[101, 102], [101, 7, 102]])
    assert np.frombuffer(body, "<u4").tolist() == [2, 2, 3, 101, 102, 101, 7, 102]
