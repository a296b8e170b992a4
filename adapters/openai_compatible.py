"""Chat models behind any server that speaks the OpenAI protocol."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from ssl import SSLContext
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI, AsyncStream, DefaultAsyncHttpx2Client, OpenAIError, omit

from adapters.faults import Fault, fault_of
from adapters.token_usage import usage_of
from adapters.tracing import requesting
from handlers.ports import ChatRequest, ChatUsage, Delta, ModelError

OWN = frozenset(("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"))
"""Parameters of a request that are not for an app to set."""

CHAT = "/chat/completions"

LONGEST_NAME = 255
"""Characters that are kept of a name that a server gives."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds, and how often to try.

    `first_token` runs from the request to the first piece of the answer, `between_tokens` from one sign of life to the
    next, `total` over all tries and the pauses between them.
    """

    connect: float = 5
    first_token: float = 60
    between_tokens: float = 30
    total: float = 600
    tries: int = 3
    pause: float = 0.3
    longest_pause: float = 20


PATIENCE = Patience()


class Failed(Exception):
    """One try failed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class OpenAICompatible:
    """The models of one server. It learns what the server refuses (`stream_options`, `max_tokens`) and leaves it out.

    Neither the key nor what a server repeats of it is ever part of an error.
    """

    def __init__(self, base_url: str, key: str = "", patience: Patience = PATIENCE) -> None:
        """Raises: ModelError `unreachable` when the base URL is none."""
        self._address = address(base_url)
        self._key = key
        self._patience = patience
        self._counts_usage = True
        self._limit = "max_tokens"
        http = DefaultAsyncHttpx2Client(verify=_tls(), timeout=httpx2.Timeout(None, connect=patience.connect))
        self._client = AsyncOpenAI(base_url=base_url, api_key=key or "none", max_retries=0, http_client=http)
        self._client.organization = self._client.project = None

    @property
    def server(self) -> str:
        parts = urlsplit(self._address)
        return parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"

    async def close(self) -> None:
        await self._client.close()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Like the port; `usage` is None when the server does not count."""
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
            if arrived or not fault.passing or tries >= self._patience.tries:
                break
            pause = fault.pause or self._patience.pause * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
            if pause > self._patience.longest_pause or now() + pause > deadline:
                fault = fault._replace(reason=f"{fault.reason} The next try would have to wait {pause:.0f} s.")
                break
            await asyncio.sleep(pause)
        # Outside of the except clause, so that no library's error (with the request's headers) hangs on to it.
        raise fault.error

    def _refusal(self, request: ChatRequest) -> Fault | None:
        if not (self._key.isascii() and self._key.isprintable()):
            return Fault("unauthorized", "The provider's key has characters that cannot be sent; register it again.")
        if taken := sorted(OWN & request.parameters.keys()):
            return Fault("bad_request", f"The model's parameters may not set {', '.join(taken)}.")
        return None

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
        """Whether the fault says that something in the body is unknown to the server, which is then left out."""
        if fault.code != "bad_request":
            return False
        if "stream_options" in body and re.search("stream_options|include_usage", fault.reason):
            self._counts_usage = False
            return True
        if "max_tokens" in body and "max_completion_tokens" in fault.reason:
            self._limit = "max_completion_tokens"
            return True
        return False

    async def _try(self, body: dict[str, Any], deadline: float) -> AsyncGenerator[Delta, None]:
        """One request and its answer. Raises: Failed."""
        now = asyncio.get_running_loop().time
        limit = now() + self._patience.first_token
        stream: AsyncStream[object] | None = None
        last, begun, fault = Delta(), False, None
        try:
            async with asyncio.timeout_at(min(limit, deadline)):
                with requesting("POST", CHAT, self._address):
                    stream = await self._client.post(
                        CHAT,
                        cast_to=object,
                        body=body,
                        options={} if self._key else {"headers": {"Authorization": omit}},
                        stream=True,
                        stream_cls=AsyncStream[object],
                    )
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
                if begun := begun or piece.alive:
                    limit = now() + self._patience.between_tokens
                if piece.text:
                    yield Delta(piece.text)
        except TimeoutError:
            fault = self._silence(begun, now() >= deadline)
        except (OpenAIError, httpx2.HTTPError, ValueError, RecursionError) as error:
            fault = fault_of(error, self._address, self._key, answering=stream is not None, begun=begun)
        finally:
            if stream is not None:
                await stream.close()
        if last.finish_reason is None:
            raise Failed(
                fault or Fault("broken_off", f"{self._address} ended its answer before it was whole.", not begun)
            )
        yield last

    def _silence(self, begun: bool, late: bool) -> Fault:
        if late:
            return Fault("timeout", f"{self._address} did not finish its answer within {self._patience.total:g} s.")
        if begun:
            silent = self._patience.between_tokens
            return Fault("timeout", f"{self._address} fell silent for {silent:g} s in the middle of its answer.")
        return Fault("timeout", f"{self._address} did not begin to answer within {self._patience.first_token:g} s.")


class Piece(NamedTuple):
    """What a chunk of a streamed answer says; `alive` when it shows that the model is at work.

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
        """Raises: ValueError when it is not shaped like one."""
        try:
            return cls._read(chunk)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError("a chunk has an unknown shape.") from None

    @classmethod
    def _read(cls, chunk: Any) -> Piece:
        said = usage_of(chunk.get("usage")), _name(chunk.get("id")), _name(chunk.get("model"))
        if not chunk.get("choices"):
            return cls("", False, None, *said)
        choice = chunk["choices"][0]
        delta = choice.get("delta") or {}
        text = delta.get("content") or delta.get("refusal") or ""
        if not isinstance(text, str):
            raise TypeError
        alive = bool(text or delta.get("reasoning_content") or delta.get("reasoning") or choice.get("finish_reason"))
        return cls(_storable(text), alive, _name(str(choice.get("finish_reason") or "")), *said)


def _name(value: object) -> str | None:
    return _storable(value[:LONGEST_NAME]) if value and isinstance(value, str) else None


def _storable(text: str) -> str:
    """JSON can hold halves of characters that no text may; each becomes a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def address(base_url: str) -> str:
    """A base URL without the credentials and the query that it may hold. Raises: ModelError."""
    try:
        parts = urlsplit(base_url)
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        httpx2.URL(base_url)
    except (ValueError, httpx2.InvalidURL):
        parts = urlsplit("")
    if parts.scheme in ("http", "https") and parts.hostname:
        return f"{parts.scheme}://{host}{port}{parts.path}"
    raise ModelError("unreachable", "The provider's base URL is not the address of a server; register it again.")


@cache
def _tls() -> SSLContext:
    return httpx2.create_ssl_context()
