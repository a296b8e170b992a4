"""How often a message has failed, in a key-value bucket: where the death of a worker cannot erase it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from adapters.jetstream.streams import FAILURES
from handlers.ports.log import Unavailable


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a message: how often it was given back, how often it failed by itself, and how often a worker
    took it alone and has not given it back."""

    returned: int = 0
    failures: int = 0
    alone: int = 0


class Failures:
    """The failures of one consumer's messages. What is handled at once is never written down."""

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer

    async def of(self, message: Msg) -> Past:
        """Raises: Unavailable."""
        if message.metadata.num_delivered == 1:
            return Past()
        try:
            found = await message._client.jetstream().get_last_msg(f"KV_{FAILURES}", self._key(message))
        except NotFoundError:
            return Past()
        except nats.errors.Error as error:
            raise Unavailable(f"The failures cannot be read: {error!r}") from error
        return Past(**orjson.loads(found.data or b"{}"))

    async def add(self, message: Msg, *, returned: int = 0, failures: int = 0, alone: int = 0) -> Past:
        """What is known from now on. Raises: Unavailable."""
        past = await self.of(message)
        past = Past(past.returned + returned, past.failures + failures, max(0, past.alone + alone))
        try:
            await message._client.jetstream().publish(self._key(message), orjson.dumps(asdict(past)))
        except nats.errors.Error as error:
            raise Unavailable(f"The failures cannot be written: {error!r}") from error
        return past

    def _key(self, message: Msg) -> str:
        return f"$KV.{FAILURES}.{self._consumer}.{message.metadata.sequence.stream}"
