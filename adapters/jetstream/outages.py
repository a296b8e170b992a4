"""Outages of providers in a key-value bucket, by tenant and provider; an entry without a body has ended.

Writes to the bucket also pass on plain NATS, where the workers hear of them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError, NotFoundError

from adapters.jetstream.streams import NOT_LAST, OUTAGES
from handlers.ports.log import Unavailable
from handlers.ports.outages import Decide, Outage

STREAM = f"KV_{OUTAGES}"

TRIES = 10
"""Maximum number of attempts at a change when other processes are quicker."""


class NatsOutages:
    def __init__(self, nc: Client, *, timeout_s: float = 2.0) -> None:
        self._nc = nc
        self._js = nc.jetstream(timeout=timeout_s)
        self._known: dict[str, Outage] = {}

    async def start(self) -> None:
        """Listen for changes."""
        await self._nc.subscribe(_subject("*", "*"), cb=self._hear)

    def known(self, tenant: str, provider: str) -> Outage | None:
        return self._known.get(_subject(tenant, provider))

    async def change(self, tenant: str, provider: str, decide: Decide) -> Outage | None:
        subject = _subject(tenant, provider)
        try:
            for _ in range(TRIES):
                before, revision = await self._load(subject)
                outage = decide(before)
                if outage is before or await self._write(subject, outage, revision):
                    self._note(subject, outage)
                    return outage
        except nats.errors.Error as error:
            raise Unavailable(f"The outages of providers cannot be shared: {error!r}") from error
        raise Unavailable(f"Others have changed the outage {TRIES} times meanwhile.")

    async def _load(self, subject: str) -> tuple[Outage | None, int]:
        """The outage, and the sequence of its entry."""
        try:
            found = await self._js.get_last_msg(STREAM, subject)
        except NotFoundError:
            return None, 0
        return entry(found.data or b""), int(found.seq or 0)

    async def _write(self, subject: str, outage: Outage | None, revision: int) -> bool:
        body = orjson.dumps(asdict(outage)) if outage else b""
        try:
            await self._js.publish(
                subject, body, stream=STREAM, headers={"Nats-Expected-Last-Subject-Sequence": str(revision)}
            )
        except APIError as error:
            if error.err_code not in NOT_LAST:
                raise
            return False
        return True

    async def _hear(self, message: Msg) -> None:
        self._note(message.subject, entry(message.data))

    def _note(self, subject: str, outage: Outage | None) -> None:
        if outage:
            self._known[subject] = outage
        else:
            self._known.pop(subject, None)


async def outages(nc: Client) -> dict[tuple[str, str], Outage]:
    """All outages, by tenant and provider. Raises: nats.errors.Error."""
    found, js = {}, nc.jetstream(timeout=2.0)
    for subject in (await js.stream_info(STREAM, subjects_filter=_subject("*", "*"))).state.subjects or {}:
        _, _, tenant, provider = subject.split(".")
        with suppress(NotFoundError):
            if outage := entry((await js.get_last_msg(STREAM, subject)).data or b""):
                found[tenant, provider] = outage
    return found


def entry(data: bytes) -> Outage | None:
    """An entry of the bucket; None where it has ended, or is of another version."""
    with suppress(ValueError, TypeError):
        return Outage(**orjson.loads(data))
    return None


def _subject(tenant: str, provider: str) -> str:
    return f"$KV.{OUTAGES}.{tenant}.{provider}"
