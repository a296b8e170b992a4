"""Chat models behind any server that speaks the OpenAI protocol."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple

import httpx2
from openai import AsyncStream, OpenAIError

from adapters.egress.client import Egress
from adapters.models.circuit import LocalOutages
from adapters.models.faults import Fault
from adapters.models.server import PATIENCE, Failed, ModelServer, Patience, name_of, storable
from adapters.models.token_usage import usage_of
from handlers.ports.models import ChatRequest, ChatUsage, Delta
from handlers.ports.outages import Outages

OWN = frozenset(("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"))
"""Parameters of a request that an app must not set."""

CHAT = "/chat/completions"


class OpenAICompatible:
    """The models of one server. Fields that the server refuses (`stream_options`, `max_tokens`) are omitted then.

    The key is never part of an error, not even where a server repeats it.
    """

    def __init__(
        self,
        egress: Egress,
        tenant: str,
        base_url: str,
        key: str = "",
        patience: Patience = PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        """Raises: ModelError `unreachable` when the base URL is invalid."""
        self._at = ModelServer(egress, tenant, base_url, key, patience, CHAT, outages or LocalOutages())
        self.cut_off = self._at.cut_off
        self._patience = patience
        self._counts_usage = True
        self._limit = "max_tokens"

    @property
    def server(self) -> str:
        return self._at.name

    async def close(self) -> None:
        await self._at.close()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As the port; `usage` is None when the server does not report it."""
        if fault := self._refusal(request):
            raise fault.error
        now = asyncio.get_running_loop().time
        deadline = now() + self._patience.total
        tries = 0
        while True:
            arrived = False
            body = self._body(request)
            try:
                async with aclosing(self._try(body, deadline)) as deltas:
                    async for delta in deltas:
                        arrived = True
                        yield delta
                return
            except Failed as failed:
                fault = failed.fault
            if not arrived and self._learns(body, fault):
                continue
            tries += 1
            # Outside of the except clause, so that the library's error (with the request's headers) is not its context.
            if arrived:
                raise fault.error
            await self._at.pause(fault, tries, deadline)

    def _refusal(self, request: ChatRequest) -> Fault | None:
        if taken := sorted(OWN & request.parameters.keys()):
            return Fault("bad_request", f"The model's parameters may not set {', '.join(taken)}.")
        return self._at.refusal()

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        return {
            **{name: value for name, value in request.parameters.items() if value is not None},
            "model": request.model,
            "messages": [message._asdict() for message in request.messages],
            self._limit: request.max_tokens,
            "stream": True,
            **({"stream_options": {"include_usage": True}} if self._counts_usage else {}),
        }

    def _learns(self, body: dict[str, Any], fault: Fault) -> bool:
        """True if the server does not know a field of the body, which is omitted from now on."""
        if fault.code != "bad_request":
            return False
        if "stream_options" in body and re.search("stream_options|include_usage", fault.said):
            self._counts_usage = False
            return True
        if "max_tokens" in body and "max_completion_tokens" in fault.said:
            self._limit = "max_completion_tokens"
            return True
        return False

    async def _try(self, body: dict[str, Any], deadline: float) -> AsyncGenerator[Delta, None]:
        """One request and its answer. Raises: Failed."""
        now = asyncio.get_running_loop().time
        limit = now() + self._patience.first_token
        stream: AsyncStream[object] | None = None
        last, begun, fault = Delta(), False, None
        call = await self._at.begin()
        try:
            async with asyncio.timeout_at(min(limit, deadline)):
                stream = await self._at.post(body)
            if (kind := stream.response.headers.get("content-type", "")).startswith(("application/json", "text/html")):
                raise ValueError(f"{kind} is not a stream.")
            while True:
                async with asyncio.timeout_at(min(limit, deadline)):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                piece = Piece.of(chunk)
                last = Delta(
                    finish_reason=piece.finish or last.finish_reason,
                    usage=piece.usage or last.usage,
                    response_id=piece.id or last.response_id,
                    model=piece.model or last.model,
                )
                if piece.alive:
                    if not begun:
                        await call.answered()
                    begun = True
                if begun:
                    limit = now() + self._patience.between_tokens
                if piece.text:
                    yield Delta(piece.text)
        except TimeoutError:
            fault = self._silence(begun, now() >= deadline)
        except (OpenAIError, httpx2.HTTPError, ValueError, RecursionError) as error:
            fault = self._at.fault(error, answering=stream is not None, begun=begun)
        finally:
            if stream is not None:
                await stream.close()
        if last.finish_reason is None:
            fault = fault or Fault("broken_off", f"{self._at.address} ended its answer before it was whole.", not begun)
            await call.failed(fault)
            raise Failed(fault)
        yield last

    def _silence(self, begun: bool, late: bool) -> Fault:
        if late:
            reason = f"{self._at.address} did not finish its answer within {self._patience.total:g} s."
            return Fault("timeout", reason, outage=not begun)
        if begun:
            silent = self._patience.between_tokens
            return Fault("timeout", f"{self._at.address} fell silent for {silent:g} s in the middle of its answer.")
        reason = f"{self._at.address} did not begin to answer within {self._patience.first_token:g} s."
        return Fault("timeout", reason, outage=True)


class Piece(NamedTuple):
    """A chunk of a streamed answer; `alive` when it shows that the model works.

    `id` and `model` are the server's own names of the answer and of the model.
    """

    text: str
    alive: bool
    finish: str | None
    usage: ChatUsage | None
    id: str | None
    model: str | None

    @classmethod
    def of(cls, chunk: object) -> Piece:
        """Raises: ValueError for another structure."""
        try:
            return cls._read(chunk)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError("a chunk has an unknown shape.") from None

    @classmethod
    def _read(cls, chunk: Any) -> Piece:
        said = usage_of(chunk.get("usage")), name_of(chunk.get("id")), name_of(chunk.get("model"))
        if not chunk.get("choices"):
            return cls("", False, None, *said)
        choice = chunk["choices"][0]
        delta = choice.get("delta") or {}
        text = delta.get("content") or delta.get("refusal") or ""
        if not isinstance(text, str):
            raise TypeError
        alive = bool(text or delta.get("reasoning_content") or delta.get("reasoning") or choice.get("finish_reason"))
        return cls(storable(text), alive, name_of(str(choice.get("finish_reason") or "")), *said)
