"""Replies to requests: the only place that publishes to a subject that another process has named."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import nats.errors
import structlog
from nats.aio.msg import Msg

from adapters.jetstream.nats_py import connection_of

log = structlog.get_logger(__name__)

INBOXES = ("_INBOX.", "_R_.")
"""Prefixes of reply subjects: of an inbox of the same account, and of another's."""


async def respond(message: Msg, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """Answer a request at its inbox; any other reply subject gets no answer.

    NATS checks where a client publishes, not the reply that it names. An answer has the rights of this process, which
    may write the log. A connection that is being closed sends nothing. Raises: nats.errors.Error.
    """
    if not message.reply.startswith(INBOXES):
        log.warning("not answered", subject=message.subject, reply=message.reply[:100])
        return
    with suppress(nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError):
        await connection_of(message).publish(message.reply, body, headers=dict(headers) if headers else None)
