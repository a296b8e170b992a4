"""Outcomes of commands, by command id, in the stream OUTCOMES."""

from __future__ import annotations

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError

from adapters.jetstream import codec
from adapters.jetstream.direct import DirectReader, decoded, sequence
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.publisher import Publisher
from adapters.jetstream.size import TOO_LARGE, largest, size_of
from adapters.tracing import publishing
from domain.log import NOT_FINAL, OUTCOMES, Outcome, Verdict
from handlers.ports.log import TooLarge, Unavailable


class JetStreamOutcomes:
    def __init__(self, nc: Client, keys: JetStreamKeys | None = None, *, timeout_s: float = 5.0) -> None:
        self._nc = nc
        self._keys = keys
        self._publisher = Publisher(nc, OUTCOMES, timeout_s=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)

    async def get(self, tenant: str, command: str) -> Outcome | None:
        found = await self._reader.last(OUTCOMES, f"out.{tenant}.{command}")
        return await self._outcome(found) if found else None

    async def put(self, outcome: Outcome) -> None:
        subject = f"out.{outcome.metadata.tenant}.{outcome.command}"
        if await self._publish(subject, outcome, 0):
            return
        # Refused because of another write, which may still fail: only a stored outcome is final.
        last = await self._reader.last(OUTCOMES, subject)
        if last is None:
            raise Unavailable("OUTCOMES refuses an outcome.")
        known = await self._outcome(last)
        if known is None or known.code == NOT_FINAL != outcome.code:
            after = sequence(last)
            if not await self._publish(subject, outcome, after):
                raise Unavailable("OUTCOMES has another outcome.")

    async def _publish(self, subject: str, outcome: Outcome, after: int) -> bool:
        """Publish if the subject's last message is at sequence `after`, 0 for none; False when it is not."""
        body, headers = codec.encode_outcome(outcome)
        headers["Nats-Expected-Last-Subject-Sequence"] = str(after)
        if after:
            headers["Nats-Msg-Id"] += f".{after}"
        if self._keys:
            headers = self._keys.macs.sign(OUTCOMES, subject, headers, body)
        try:
            with publishing(OUTCOMES):
                ack = await self._publisher.publish(subject, body, headers)
        except APIError as error:
            if error.err_code == TOO_LARGE:
                raise TooLarge(size_of(body, headers), largest(self._nc)) from error
            return False
        except nats.errors.MaxPayloadError as error:
            raise TooLarge(size_of(body, headers), largest(self._nc)) from error
        except nats.errors.Error as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        return after > 0 or not ack.duplicate

    async def _outcome(self, message: Msg) -> Outcome | None:
        """None for a message that is no outcome, and decides nothing: it is in quarantine. Raises: Unavailable."""
        if self._keys:
            await self._keys.macs.load()
        found = decoded(OUTCOMES, message, self._keys or codec.NO_CIPHERS, {})
        return found.events[0] if isinstance(found, Verdict) else None
