"""Chat models behind any server that speaks the OpenAI protocol."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx2
from openai import APIError, AsyncStream, OpenAIError

from adapters.egress.client import Egress
from adapters.models.chunk import BROKEN_OFF, UNNAMED, Chunk, error_in
from adapters.models.faults import Fault
from adapters.models.openai_request import asked
from adapters.models.reasoning import Splitter
from adapters.models.server import PATIENCE, Failed, ModelServer, Patience
from adapters.models.server_events import ServerEvent, server_events
from adapters.models.withheld import Withheld, withheld
from handlers.ports.models import ChatRequest, Delta
from handlers.ports.outages import Outages

OWN = frozenset(("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"))
"""Parameters of a request that an app must not set."""

CHAT = "/chat/completions"

AFTERWARDS_S = 0.5
"""Time for a server to count its tokens, or to end the connection, after the end of its answer, in seconds."""

END: Any = object()
"""The end of a stream."""


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
        self._at = ModelServer(egress, tenant, base_url, key, patience, CHAT, outages)
        self.rest = self._at.rest
        self.rests_until = self._at.rests_until
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
            **asked(request),
            self._limit: request.max_tokens,
            "stream": True,
            **({"stream_options": {"include_usage": True}} if self._counts_usage else {}),
        }

    def _learns(self, body: dict[str, Any], fault: Fault) -> bool:
        """True if the server does not know a field of the body, which is omitted from now on."""
        if fault.code not in ("bad_request", "server_error"):  # some servers answer 500 to it
            return False
        if "stream_options" in body and re.search("stream_?options|include_?usage", fault.said, re.IGNORECASE):
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
        answer, begun, fault = _Answer(self._at.key), False, None
        call = await self._at.begin()
        try:
            async with asyncio.timeout_at(min(limit, deadline)):
                stream = await self._at.post(body)
            async with aclosing(_events(stream.response)) as events:
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
                    event = event._replace(data=withheld(event.data, self._at.key))
                    delta, alive = answer.take(event, stream.response.request)
                    if alive and not begun:
                        begun = True
                        limit = now() + self._patience.between_tokens
                        await call.answered()
                    if delta:
                        yield delta
        except TimeoutError:
            fault = None if answer.done else self._silence(begun, now() >= deadline)
        except (OpenAIError, httpx2.HTTPError, ValueError, RecursionError) as error:
            fault = self._at.fault(error, answering=stream is not None, begun=begun)
        finally:
            if stream is not None:
                await stream.close()
        rest = answer.rest()
        if not answer.whole:
            fault = fault or Fault("broken_off", f"{self._at.address} {answer.ending}", not begun)
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
    """An answer as it comes. It is whole with a reason for its end, or with the mark `[DONE]` after words or tokens."""

    def __init__(self, key: str) -> None:
        """Where the server repeats the key in words, they have stars instead."""
        self.done = False
        self._alive = False
        self._last = Delta()
        self._splitter = Splitter()
        self._said, self._reasoned = Withheld(key), Withheld(key)

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

    def take(self, event: ServerEvent, request: httpx2.Request) -> tuple[Delta | None, bool]:
        """Return what is new, and whether the model works. Raises: APIError for an error; ValueError."""
        if event.data.startswith("[DONE]"):
            self.done = True
        if self.done and "usage" not in event.data:
            return None, False
        is_json = event.data.lstrip().startswith(("{", "[", '"'))
        if event.name == "error" and not is_json:
            raise APIError(event.data, request, body=event.data)
        if not event.data.strip() or (event.name not in UNNAMED and not is_json):
            return None, False
        data = json.loads(event.data)
        if error := error_in(data, event.name):
            raise APIError("an error", request, body=error)
        chunk, last = Chunk.of(data), self._last
        if self.done:
            chunk = chunk._replace(text="", reasoning="")
        self._last = Delta(
            finish_reason=chunk.finish or last.finish_reason,
            usage=chunk.usage or last.usage,
            response_id=chunk.id or last.response_id,
            model=chunk.model or last.model,
        )
        alive = bool(chunk.text or chunk.reasoning or (chunk.finish and chunk.finish.lower() not in BROKEN_OFF))
        self._alive = self._alive or alive
        text, reasoning = self._splitter.feed(self._said(chunk.text))
        unsaid, self._splitter.unsaid = self._splitter.unsaid, False
        new = Delta(text, reasoning=self._reasoned(chunk.reasoning) + reasoning, unsaid=unsaid)
        return new if text or new.reasoning or unsaid else None, alive

    def rest(self) -> Delta:
        """The end of the answer, with what is known of it."""
        text, thought = self._splitter.feed(self._said.rest())
        last, reasoning = self._splitter.end()
        return replace(self._last, text=text + last, reasoning=self._reasoned.rest() + thought + reasoning)


async def _events(response: httpx2.Response) -> AsyncGenerator[ServerEvent | None]:
    """The events of an answer; an answer that is not streamed is read as one. Raises: ValueError for a web page."""
    kind = response.headers.get("content-type", "").lower()
    if kind.startswith(("text/html", "application/xhtml")):
        raise ValueError(f"{kind} is not a stream.")
    if not kind.startswith("application/json"):
        async for event in server_events(response.aiter_bytes()):
            yield event
        return
    body = bytearray()
    async for piece in response.aiter_bytes():
        yield None
        body += piece
    text = body.decode(errors="replace")
    data = json.loads(text)
    if not isinstance(data, dict) or not (data.get("choices") or error_in(data)):
        raise ValueError(f"{kind} is not a stream, and holds no answer.")
    yield ServerEvent("", text)
    yield ServerEvent("", "[DONE]")
