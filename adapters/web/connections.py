"""Connections of an HTTP server that end by themselves: slow clients hold none for ever."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 512
"""Maximum number of connections. uvicorn's `limit_concurrency` also counts idle ones, and would refuse good requests
instead of closing those."""

ARRIVAL_S = 20.0
"""Time for a whole request to arrive, from the connection or from the last response, in seconds."""

STALL_S = 60.0
"""Time in which a client must take some of a response that it is being sent, in seconds."""


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with limits. Where there are too many connections, the one that has waited longest ends."""

    connections_limit = CONNECTIONS
    arrival_s = ARRIVAL_S
    stall_s = STALL_S

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._arrival: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self.connections_limit:
            others = (cast(BoundedProtocol, each) for each in self.connections)
            waiting = [each for each in others if each._arrival is not None]
            min(waiting, key=lambda each: cast(asyncio.TimerHandle, each._arrival).when()).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(self.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall:
            self._stall.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in filter(None, (self._arrival, self._stall)):
            timer.cancel()

    def _watch(self) -> None:
        """Limit the time in which a request arrives; bytes that trickle in do not extend it."""
        arriving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing()
        if not arriving and self._arrival:
            self._arrival.cancel()
            self._arrival = None
        elif arriving and not self._arrival:
            self._arrival = self.loop.call_later(self.arrival_s, self.transport.abort)
