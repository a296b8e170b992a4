"""Outcomes of commands, by command id, in the stream OUTCOMES."""

from __future__ import annotations

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from adapters.jetstream import codec
from domain.log import OUTCOMES
from handlers.ports import Outcome, Unavailable

_WRONG_LAST_SEQUENCE = {10071, 10164}


class JetStreamOutcomes:
    def __init__(self, nc: Client) -> None:
        self._js = nc.jetstream()

    async def get(self, tenant: str, command: str) -> Outcome | None:
        try:
            found = await self._js.get_last_msg(OUTCOMES, f"out.{tenant}.{command}", direct=True)
        except NotFoundError:
            return None
        except nats.errors.Error as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        return codec.decode_outcome(found.data or b"", found.headers or {}, tenant)

    async def put(self, outcome: Outcome) -> None:
        body, headers = codec.encode_outcome(outcome)
        headers["Nats-Expected-Last-Subject-Sequence"] = "0"
        subject = f"out.{outcome.metadata.tenant}.{outcome.command}"
        try:
            await self._js.publish(subject, body, stream=OUTCOMES, headers=dict(headers))
        except APIError as error:
            if error.err_code not in _WRONG_LAST_SEQUENCE:
                raise Unavailable(f"OUTCOMES does not take an outcome: {error.description}") from error
        except nats.errors.Error as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
