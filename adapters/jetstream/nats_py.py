"""Every liberty taken with nats-py: what it keeps private and is used here, and what of it is replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import orjson
from nats.aio import transport
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

API = "$JS.API"
IMPORTED_API = "$JS.HEADRACE.API"
"""Prefix of requests to JetStream in an account without streams: the server itself answers those under `$JS.API`."""

NO_STREAMS = 10039
"""JetStream's error code in such an account."""

CHECKED_VERSION = "2.16.0"
"""The version of nats-py that this file was checked against."""

Raw = tuple[bytes, bytes, bytes, bytes]
"""Subject, reply subject, data and headers of a message, as they were received; empty where there are none."""

# nats-py starts TLS on an open connection, of which asyncio warns whenever the server ends it.
logging.getLogger("asyncio").addFilter(lambda record: "eof_received() has no effect" not in record.getMessage())

_build_message = Client._build_message
_process_msg = Client._process_msg
_request = Client.request


async def connect(servers: str | list[str], **options: Any) -> Client:
    """Connect to NATS. All connections of this process read messages under any subject, and hear cancellations.

    Options and errors are those of `nats.connect`, which leaves its socket open when the server refuses it.
    An address of a WebSocket loads what they need.
    """
    if any(server.strip().startswith("ws") for server in ([servers] if isinstance(servers, str) else servers)):
        vars(transport).update({name: import_module(name) for name in ("aiohttp", "multidict")})
    Client._build_message = _build_from_any_subject  # type: ignore[method-assign, assignment]
    Client._parse_header_lines = staticmethod(header_lines)  # type: ignore[method-assign]
    Client.request = _request_unless_cancelled  # type: ignore[method-assign]
    client = Client()
    try:
        await client.connect(servers, **options)
    except BaseException:
        await client.close()
        raise
    return client


async def find_streams(nc: Client, within: float = 5.0) -> None:
    """Have this connection use the imported requests to JetStream, when its account has no streams.

    Raises: nats.errors.TimeoutError, NoRespondersError.
    """
    info = orjson.loads((await nc.request(f"{API}.INFO", b"", timeout=within)).data)
    if info.get("error", {}).get("err_code") == NO_STREAMS:
        nc.jetstream = partial(nc.jetstream, prefix=IMPORTED_API)  # type: ignore[method-assign]


def api(nc: Client) -> str:
    """The prefix of requests to JetStream on this connection."""
    return str(nc.jetstream()._prefix)


def divert(subscription: Subscription, take: Callable[[Raw], None]) -> None:
    """Hand each message of a subscription to `take` as it arrives; nats-py neither parses nor queues it."""
    Client._process_msg = _process_or_divert  # type: ignore[method-assign, assignment]
    subscription.take = take  # type: ignore[attr-defined]


def whole(nc: Client, parts: Raw) -> Msg:
    """The message of these parts, as nats-py gives it to a callback."""
    subject, reply, data, headers = parts
    stated = header_lines(headers.partition(b"\r\n")[2])
    return Msg(nc, subject.decode(errors="replace"), reply.decode(), data, stated)


def status(parts: Raw) -> str:
    """The status that the server sends in place of a message; empty for a message."""
    return parts[3][9:12].decode() if parts[3][8:9] == b" " else ""


def header_lines(raw: bytes) -> dict[str, str]:
    """Headers as NATS sends them after the line with its version; nats-py takes three times as long."""
    lines = [line.partition(":") for line in raw.decode(errors="replace").split("\r\n")]
    return {name: value.strip() for name, colon, value in lines if colon}


def server_info(nc: Client) -> dict[str, Any]:
    """The last INFO of the server: `server_name`, `cluster`, `jetstream` and others."""
    return nc._server_info


def connection_of(message: Msg) -> Client:
    """The connection that a message came over."""
    return message._client


def _build_from_any_subject(self: Client, sid: int, subject: bytes, *rest: Any) -> Any:
    """The server takes subjects that are not UTF-8; nats-py would stop reading for good at the first of them."""
    text = subject if subject.isascii() else subject.decode(errors="replace").encode()
    return _build_message(self, sid, text, *rest)


async def _request_unless_cancelled(self: Client, *arguments: Any, **options: Any) -> Msg:
    """Before Python 3.12, `wait_for` swallows a cancellation that comes together with the answer."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    answer = await _request(self, *arguments, **options)
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
    return answer


async def _process_or_divert(self: Client, sid: int, *parts: bytes) -> None:
    take = getattr(self._subs.get(sid), "take", None)
    if take:
        try:
            take((*parts[:3], parts[3] or b""))
        except Exception as error:  # which would end the reading of the connection
            await self._error_cb(error)
    else:
        await _process_msg(self, sid, *parts)
