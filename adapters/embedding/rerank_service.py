"""Reranking as a service: questions of all workers go through one cross-encoder, one at a time.

A request on `rerank.<model>` is JSON, `{"query", "texts"}`. The answer has `Headrace-Status`

- `ok`: the body is `{"scores", "tokens", "identity"}`, the scores in the order of the texts;
- `busy`: the queue is full, retry later; `bad_request`, `failed`: the body is the reason, a sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from adapters.embedding.cross_encoder import CrossEncoderEngine
from adapters.jetstream.reply import respond
from adapters.model_files import model_name, subject
from handlers.ports.models import ChatUsage, ModelError, Reranking

log = structlog.get_logger(__name__)

WAITING = 1024
"""Maximum number of queued texts; further requests are refused as busy."""

PATIENCE_S = 20.0
"""Maximum wait for an answer, in seconds: the caller can do without one."""

DRAIN_S = 1.0
"""Maximum time to drain requests when the service stops, in seconds."""

LONGEST = 8192
"""Maximum number of characters of a text that are sent; no cross-encoder in use reads that many."""

PAYLOAD = 512 * 1024
"""Maximum size of the texts in a request, in bytes."""

STATUS = "Headrace-Status"
_CODES = {"busy": "rate_limited", "bad_request": "bad_request", "failed": "server_error"}


def rerank_subject(model: str) -> str:
    """The NATS subject of a model's reranking service."""
    return subject(model).replace("embed.", "rerank.", 1)


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    query: str
    texts: list[str]


class _Answer(BaseModel):
    scores: list[FiniteFloat]
    tokens: int
    identity: str


async def serve(nc: Client, engine: CrossEncoderEngine, *, waiting: int = WAITING) -> None:
    """Answer requests with this model until cancelled; those in progress are then answered `busy`."""
    thread = ThreadPoolExecutor(1, "rerank")
    at_work: dict[asyncio.Task[None], int] = {}

    async def take(message: Msg) -> None:
        try:
            asked = _Request.model_validate_json(message.data)
        except ValidationError as error:
            await _reply(message, "bad_request", f"A request is a query and texts: {error.errors()[0]['msg']}.")
            return
        if at_work and sum(at_work.values()) + len(asked.texts) > waiting:
            await _reply(message, "busy", f"{sum(at_work.values())} texts are waiting for the reranker.")
            return
        task = asyncio.create_task(_answer(message, asked, engine, thread))
        at_work[task] = len(asked.texts)
        task.add_done_callback(at_work.pop)

    subscription = await nc.subscribe(rerank_subject(engine.name), queue="rerank", cb=take)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        with suppress(nats.errors.Error, TimeoutError):  # requests under way get an answer, too
            await asyncio.wait_for(subscription.drain(), DRAIN_S)  # type: ignore[no-untyped-call]
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)
        await asyncio.to_thread(thread.shutdown)


async def _answer(message: Msg, asked: _Request, engine: CrossEncoderEngine, thread: ThreadPoolExecutor) -> None:
    try:
        loop = asyncio.get_running_loop()
        scores, tokens = await loop.run_in_executor(thread, engine.score, asked.query, asked.texts)
        answer = _Answer(scores=scores, tokens=tokens, identity=engine.identity)
        await _reply(message, "ok", answer.model_dump_json())
    except asyncio.CancelledError:
        await _reply(message, "busy", "The reranker is being stopped.")
    except Exception as error:
        log.exception("reranking failed")
        await _reply(message, "failed", f"{type(error).__name__}: {error}")


async def _reply(message: Msg, status: str, body: str) -> None:
    await respond(message, body.encode(), {STATUS: status})


class NatsReranker:
    """A Reranker that sends each request once to the service of a model: the caller can do without an answer."""

    server = ""

    def __init__(self, nc: Client, model: str, *, patience: float = PATIENCE_S) -> None:
        self._nc = nc
        self.model = model_name(model)
        self._subject = rerank_subject(model)
        self._patience = patience

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> Reranking:
        answers = await asyncio.gather(*(self._ask(query, part) for part in _parts(texts)))
        return Reranking(
            scores=[score for answer in answers for score in answer.scores],
            usage=ChatUsage(sum(answer.tokens for answer in answers), 0),
            model=answers[0].identity if answers else None,
        )

    async def _ask(self, query: str, texts: Sequence[str]) -> _Answer:
        body = orjson.dumps({"query": query[:LONGEST], "texts": texts})
        try:
            message = await self._nc.request(self._subject, body, timeout=self._patience)
        except nats.errors.NoRespondersError:
            raise ModelError("unreachable", f"No reranker answers on {self._subject}.") from None
        except nats.errors.TimeoutError:
            raise ModelError("timeout", f"The reranker did not answer within {self._patience:g} s.") from None
        except nats.errors.Error as error:
            raise ModelError("unreachable", f"The bus does not answer: {error}") from None
        status = (message.headers or {}).get(STATUS, "")
        if status != "ok":
            raise ModelError(_CODES.get(status, "server_error"), message.data.decode(errors="replace"))
        try:
            answer = _Answer.model_validate_json(message.data)
        except ValidationError as error:
            raise ModelError("server_error", f"The reranker sent no scores: {error.errors()[0]['msg']}.") from None
        if len(answer.scores) != len(texts):
            raise ModelError("server_error", f"The reranker gave {len(answer.scores)} scores for {len(texts)} texts.")
        return answer


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The truncated texts, in groups that fit a request."""
    part, size = list[str](), 0
    for text in texts:
        sent = text[:LONGEST]
        if part and size + len(sent.encode()) > PAYLOAD:
            yield part
            part, size = [], 0
        part.append(sent)
        size += len(sent.encode())
    if part:
        yield part
