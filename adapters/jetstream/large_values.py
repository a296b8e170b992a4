"""Large values of commits, which are blobs: fetched before the commits are decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from nats.aio.msg import Msg

from adapters.jetstream.bulk import Stored, tenant_of
from adapters.jetstream.codec import Fetched, Name, references
from adapters.many import each
from handlers.ports.log import Blobs

FETCHES = 16
"""Maximum number of blobs that are fetched at a time."""

AT_ONCE = 64 * 2**20
"""Bytes of large values from which the messages after them wait for the next part."""

Message = TypeVar("Message", bound=Msg | Stored)


async def fetch(blobs: Blobs, messages: Iterable[Msg | Stored]) -> Fetched:
    """The large values of these messages of EVENTS, without those that are missing or were changed.

    Raises: Unavailable.
    """
    found: dict[Name, bytes] = {}

    async def get(name: Name) -> None:
        with suppress(KeyError, ValueError):  # decoding the commit says so
            found[name] = await blobs.get(*name)

    await each(
        {(tenant_of(message), digest) for message in messages for digest in references(message.data)}, get, FETCHES
    )
    return found


def parts(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """The messages in order, in parts whose large values fit into memory together."""
    start = size = 0
    for end, message in enumerate(messages, 1):
        size += sum(references(message.data).values())
        if size > AT_ONCE:
            yield messages[start:end]
            start, size = end, 0
    if start < len(messages):
        yield messages[start:]
