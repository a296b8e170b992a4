"""The proxy of a plugin: hosts that its manifest names, at addresses that the guard permits, and nothing else.

The name `*` stands for every host. Files that a plugin uploads end here.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Collection
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

import structlog

from adapters.egress.client import Egress, Refused
from adapters.plugins.uploads import HOST, Uploads

log = structlog.get_logger(__name__)

MOST_HEAD = 64 * 1024
"""Maximum size of the head of a request, in bytes."""

MOST_CONNECTIONS = 64
"""Maximum number of connections of a plugin at a time."""

CONNECT_S, IDLE_S = 10.0, 300.0
"""Time limits of a connection: until it is made, and without a byte, in seconds."""

UPLOAD_S = 60.0
"""Time limit of an upload, in seconds."""

PORTS = (80, 443)
"""Ports of a host that is named without one."""


class Proxy:
    """An HTTP proxy on a listening socket: tunnels, and requests without TLS. Use it as a context manager."""

    def __init__(
        self,
        listening: socket.socket,
        egress: Egress,
        tenant: str,
        hosts: Collection[str],
        label: dict[str, str],
        uploads: Uploads,
    ) -> None:
        self._listening = listening
        self._egress = egress
        self._tenant = tenant
        self._hosts = hosts
        self._label = label
        self._uploads = uploads
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listening.setblocking(False)
        self._server = await asyncio.start_server(self._serve, sock=self._listening, limit=MOST_HEAD)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) > MOST_CONNECTIONS:
                await _answer(writer, 503, "Too many connections.")
            else:
                await self._pass(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            log.info("plugin.connection", **self._label, reason=str(error) or repr(error))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass(self, reader: StreamReader, writer: StreamWriter) -> None:
        async with asyncio.timeout(CONNECT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        first, _, rest = head.partition(b"\r\n")
        method, target, _ = first.decode("ascii").split(" ")
        host, port, path = _target(method, target)
        if host == HOST and method == "POST":
            async with asyncio.timeout(UPLOAD_S):
                status, said = await self._uploads.receive(self._tenant, path, head, reader)
            await _answer(writer, status, said, "application/json" if status == 201 else "text/plain")
            return
        if not self._is_named(host, port):
            log.warning("plugin.refused", **self._label, host=f"{host}:{port}", reason="not in its manifest")
            await _answer(writer, 403, f"{host}:{port} is not in the manifest of the plugin.")
            return
        try:
            async with asyncio.timeout(CONNECT_S):
                found, sending = await self._egress.connect(self._tenant, host, port)
        except (Refused, OSError) as error:
            log.warning("plugin.refused", **self._label, host=f"{host}:{port}", reason=str(error))
            await _answer(writer, 403 if isinstance(error, Refused) else 502, str(error))
            return
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                sending.write(f"{method} {path} HTTP/1.1\r\n".encode() + _closing(rest))
            await _both(reader, writer, found, sending)
        finally:
            sending.close()

    def _is_named(self, host: str, port: int) -> bool:
        return "*" in self._hosts or f"{host}:{port}" in self._hosts or (host in self._hosts and port in PORTS)


def _target(method: str, target: str) -> tuple[str, int, str]:
    """Host, port and path of a request. Raises: ValueError."""
    parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
    if not parts.hostname or (method != "CONNECT" and parts.scheme != "http"):
        raise ValueError(f"{target[:200]!r} is no address of a proxy's request.")
    port = parts.port or (443 if method == "CONNECT" else 80)
    path = parts.path or "/"
    return parts.hostname.lower(), port, f"{path}?{parts.query}" if parts.query else path


def _closing(head: bytes) -> bytes:
    """The fields of a request, such that its connection serves no further one."""
    kept = [
        line
        for line in head.split(b"\r\n")
        if line and line.partition(b":")[0].strip().lower() not in (b"connection", b"proxy-connection", b"keep-alive")
    ]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


async def _both(reader: StreamReader, writer: StreamWriter, found: StreamReader, sending: StreamWriter) -> None:
    """Pass bytes both ways until both sides have ended."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_copy(reader, sending))
        group.create_task(_copy(found, writer))


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError, TimeoutError):
        while True:
            async with asyncio.timeout(IDLE_S):
                data = await reader.read(2**16)
            if not data:
                break
            writer.write(data)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()


async def _answer(writer: StreamWriter, status: int, said: str, media_type: str = "text/plain") -> None:
    body = said.encode()
    phrase = "Created" if status == 201 else "Refused"
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    await writer.drain()
