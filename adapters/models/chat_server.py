"""A chat model behind a server: one request, its answer in pieces, and the rules that all kinds of servers share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import httpx2

from adapters.egress.client import Egress
from adapters.models.chunk import BROKEN_OFF, UNNAMED, Chunk, error_in, storable, storable_json
from adapters.models.faults import Fault, ServerError
from adapters.models.reasoning import Splitter
from adapters.models.server import PATIENCE, Failed, ModelServer, Patience
from adapters.models.server_events import ServerEvent, server_events
from adapters.models.tool_calls import Salvage, ToolCalls
from adapters.models.withheld import Pieces, Withheld
from handlers.chat.empty_answer import empty
from handlers.ports.models import ChatRequest, Delta, ToolCall
from handlers.ports.outages import Outages

AFTERWARDS_S = 0.5
"""Time for a server to count its tokens, or to end the connection, after the end of its answer, in seconds."""

STRANGE = (AttributeError, IndexError, KeyError, OverflowError, TypeError)
"""Errors of a reader that meets an answer of another structure."""

END: Any = object()
"""The end of a stream."""


class Sent(NamedTuple):
    """A request as it is sent."""

    body: dict[str, Any]
    path: str | None = None


class Reader(Protocol):
    """Reads one answer of a kind of server."""

    def read(self, data: Any, name: str) -> Chunk:
        """The part of the answer in an event of this name.

        Raises: ServerError; for another structure ValueError, or one of `STRANGE`.
        """
        ...

    def state(self, calls: Sequence[ToolCall], extra: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """State that the server wants back with the next request; `extra` are other fields of each call."""
        ...

    async def flaw(self, at: ModelServer) -> Fault | None:
        """Why an answer that came to its end must not be used; it may ask the server."""
        ...


class Wire(Protocol):
    """The wire format of a kind of server; what it learns of one server lasts as long as its client."""

    PATH: str
    """The path of requests, without variable parts."""
    OWN: frozenset[str]
    """Parameters of a request that an app must not set."""

    def __init__(self, base_url: str) -> None: ...

    @property
    def base_url(self) -> str:
        """The base URL without an ending that belongs to the path."""
        ...

    def headers(self, key: str) -> Mapping[str, str]: ...

    def refusal(self, request: ChatRequest) -> Fault | None:
        """Why the request cannot be sent to this kind of server."""
        ...

    def sent(self, request: ChatRequest) -> Sent: ...

    def learns(self, sent: Sent, fault: Fault) -> bool:
        """True if the fault shows how the server wants its requests, and the next one is another one."""
        ...

    def reader(self, request: ChatRequest, sent: Sent) -> Reader: ...


class ChatServer:
    """The chat models of one server. The key is never part of an error, not even where a server repeats it."""

    def __init__(
        self,
        wire: Callable[[str], Wire],
        egress: Egress,
        tenant: str,
        base_url: str,
        key: str = "",
        patience: Patience = PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        """Raises: ModelError `unreachable` when the base URL is invalid."""
        self._wire = wire(base_url)
        headers = self._wire.headers(key)
        self._at = ModelServer(egress, tenant, self._wire.base_url, key, patience, self._wire.PATH, outages, headers)
        self.server, self.close = self._at.name, self._at.close
        self.rest = self._at.rest
        self._patience = patience

    @property
    def limits(self) -> dict[str, int]:
        """The limits that the headers of its last answers state, by name."""
        return self._at.limits

    async def document(self, path: str, within_s: float) -> bytes:
        """A document of the server. Raises: ModelError."""
        fault = self._at.refusal()
        try:
            if fault is None:
                async with asyncio.timeout(within_s), aclosing(await self._at.get(path)) as response:
                    return await response.aread()
        except TimeoutError:
            fault = Fault("timeout", f"{self._at.address} did not answer within {within_s:g} s.")
        except (ServerError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            fault = self._at.fault(error, answering=False, begun=False)
        raise fault.error

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As the port; `usage` is None when the server does not report it.

        What the wire learns from a fault makes another try worth it at once.
        """
        if taken := sorted(self._wire.OWN & request.parameters.keys()):
            raise Fault("bad_request", f"The model's parameters may not set {', '.join(taken)}.").error
        if fault := self._wire.refusal(request):
            raise fault.error
        sent = self._wire.sent(request)
        tried = self._at.once(
            lambda deadline: self._try(request, sent, deadline), lambda fault: self._wire.learns(sent, fault)
        )
        async with aclosing(tried) as deltas:
            async for delta in deltas:
                yield delta

    async def _try(self, request: ChatRequest, sent: Sent, deadline: float) -> AsyncGenerator[Delta, None]:
        """One request and its answer. Raises: Failed."""
        now = asyncio.get_running_loop().time
        limit = now() + self._patience.first_token
        response: httpx2.Response | None = None
        answer = _Answer(self._at.key, self._at.withheld, request, self._wire.reader(request, sent))
        begun, fault = False, None
        call = await self._at.begin()
        try:
            async with asyncio.timeout_at(min(limit, deadline)):
                response = await self._at.post(sent.body, sent.path)
            async with aclosing(_events(response)) as events:
                while True:
                    async with asyncio.timeout_at(min(limit, deadline)):
                        event = await anext(events, END)
                    if event is END:
                        break
                    if answer.done:
                        limit = min(limit, now() + AFTERWARDS_S)
                    else:
                        limit = now() + (self._patience.between_tokens if begun else self._patience.first_token)
                    if event is None:
                        continue
                    delta, alive = answer.take(event._replace(data=self._at.withheld.text(event.data)))
                    if alive and not begun:
                        begun = True
                        limit = now() + self._patience.between_tokens
                        await call.answered()
                    if delta:
                        yield delta
                if not begun and _is_json(response):
                    raise ValueError(f"{_kind(response)} is not a stream, and holds no answer.")
        except TimeoutError:
            fault = None if answer.done else self._silence(begun, now() >= deadline)
        except (ServerError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, RecursionError) as error:
            fault = self._at.fault(error, answering=response is not None, begun=begun)
        finally:
            if response is not None:
                await response.aclose()
        rest = answer.rest()
        if answer.whole:
            fault = await answer.flaw(self._at)
        else:
            fault = fault or Fault("broken_off", f"{self._at.address} {answer.ending}", not begun)
        if fault:
            await call.failed(fault)
            if begun:
                yield rest
            raise Failed(fault)
        if not begun:
            await call.answered()
        yield rest

    def _silence(self, begun: bool, late: bool) -> Fault:
        if late:
            reason = f"{self._at.address} did not finish its answer within {self._patience.total:g} s."
            return Fault("timeout", reason, outage=not begun)
        if begun:
            silent = self._patience.between_tokens
            return Fault("timeout", f"{self._at.address} fell silent for {silent:g} s in the middle of its answer.")
        reason = f"{self._at.address} did not begin to answer within {self._patience.first_token:g} s."
        return Fault("timeout", reason, outage=True)


class _Answer:
    """An answer as it comes. It is whole with a reason for its end, or with a mark of its end after words or tokens."""

    def __init__(self, key: str, withheld: Withheld, request: ChatRequest, reader: Reader) -> None:
        """Where the server repeats the key in words, they have stars instead."""
        self.done = False
        self._alive = self._text = self._thought = False
        self._withheld = withheld
        self._last = Delta()
        self._reader = reader
        self._calls = ToolCalls()
        self._salvage = Salvage(request.tools if request.tool_choice != "none" else ())
        self._logprobs: list[dict[str, Any]] = []
        self._splitter = Splitter()
        self._said, self._reasoned = Pieces(key), Pieces(key)

    @property
    def whole(self) -> bool:
        finish = self._last.finish_reason
        if finish:
            return finish.lower() not in BROKEN_OFF
        return self.done and bool(self._alive or self._last.usage)

    @property
    def ending(self) -> str:
        """Why the answer is not whole."""
        if self._last.finish_reason:
            return f"broke off its answer; it gives as the reason: {self._last.finish_reason}."
        return "ended its answer before it was whole."

    def take(self, event: ServerEvent) -> tuple[Delta | None, bool]:
        """Return what is new, and whether the model works. Raises: ServerError; ValueError."""
        if event.data.startswith("[DONE]"):
            self.done = True
        if self.done and "usage" not in event.data:
            return None, False
        is_json = event.data.lstrip().startswith(("{", "[", '"'))
        if event.name == "error" and not is_json:
            raise ServerError(event.data)
        if not event.data.strip() or (event.name not in UNNAMED and not is_json):
            return None, False
        data = json.loads(event.data)
        if error := error_in(data, event.name):
            raise ServerError(error)
        try:
            chunk, last = self._reader.read(data, event.name), self._last
        except STRANGE:
            raise ValueError("a part of the answer has an unknown structure.") from None
        if self.done:
            chunk = chunk._replace(text="", reasoning="", calls=(), logprobs=())
        self.done = self.done or chunk.done
        for piece in chunk.calls:
            self._calls.add(piece)
        self._logprobs += chunk.logprobs
        self._last = Delta(
            finish_reason=chunk.finish or last.finish_reason,
            usage=chunk.usage or last.usage,
            response_id=chunk.id or last.response_id,
            model=chunk.model or last.model,
        )
        ends = bool(chunk.finish and chunk.finish.lower() not in BROKEN_OFF)
        alive = bool(chunk.text or chunk.reasoning or chunk.calls or ends)
        self._alive = self._alive or alive
        text, reasoning = self._splitter.feed(self._said(chunk.text))
        unsaid, self._splitter.unsaid = self._splitter.unsaid, False
        if unsaid:
            reasoning = self._salvage.restart() + reasoning
        new = Delta(self._salvage.feed(text), reasoning=self._reasoned(chunk.reasoning) + reasoning, unsaid=unsaid)
        self._note(new)
        return new if new.text or new.reasoning or unsaid else None, alive

    def _note(self, new: Delta) -> None:
        self._text = (self._text and not new.unsaid) or bool(new.text.strip())
        self._thought = self._thought or new.unsaid or bool(new.reasoning.strip())

    def rest(self) -> Delta:
        """The end of the answer, with what is known of it."""
        text, thought = self._splitter.feed(self._said.rest())
        last, reasoning = self._splitter.end()
        text = self._salvage.feed(text + last)
        calls = [call._replace(arguments=storable(self._withheld.text(call.arguments))) for call in self._calls.whole()]
        held, found = self._salvage.end(calls)
        calls = calls or found
        rest = replace(
            self._last,
            text=text + held,
            reasoning=self._reasoned.rest() + thought + reasoning,
            tool_calls=tuple(calls),
            state=self._state(calls),
            logprobs=self._logprobs or None,
        )
        self._note(rest)
        self._text = self._text or bool(calls)
        return rest

    def _state(self, calls: Sequence[ToolCall]) -> dict[str, Any] | None:
        """The state as it can be recorded; None for one of another structure."""
        try:
            return storable_json(self._reader.state(calls, self._calls.extra()))
        except STRANGE:
            return None

    async def flaw(self, at: ModelServer) -> Fault | None:
        """Why a whole answer must not be used: its reader finds a reason, or reasoning is all of it."""
        if (fault := await self._reader.flaw(at)) or self._text or not self._thought:
            return fault
        error = empty(self._last.finish_reason)
        return Fault(error.code, error.reason)


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).lower()


def _is_json(response: httpx2.Response) -> bool:
    return _kind(response).startswith("application/json")


async def _events(response: httpx2.Response) -> AsyncGenerator[ServerEvent | None]:
    """The events of an answer; an answer that is not streamed is read as one. Raises: ValueError for a web page."""
    if _kind(response).startswith(("text/html", "application/xhtml")):
        raise ValueError(f"{_kind(response)} is not a stream.")
    if not _is_json(response):
        async for event in server_events(response.aiter_bytes()):
            yield event
        return
    body = bytearray()
    async for piece in response.aiter_bytes():
        yield None
        body += piece
    yield ServerEvent("", body.decode(errors="replace"))
    yield ServerEvent("", "[DONE]")
