"""Messages that were given up, as they came, in the stream DEAD on `dead.<consumer>.<dead letter>`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError

from adapters.jetstream.codec import TIME
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.size import RESTORED, TOO_LARGE, size_of
from adapters.jetstream.streams import COMMANDS, DEAD, LARGEST
from domain.access.actor import ANON, CommandSubject
from handlers.ports.log import TooLarge, Unavailable
from handlers.work.dead_letters import Failure

log = structlog.get_logger(__name__)

WITHHELD = "Headrace-Withheld"
"""Marks a message without its body, which cannot be sent again: it came from an archive, which keeps no words of
people, or is too large to keep with its reason."""

_OURS = ("Nats-", "Headrace-Letter-", TIME)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class JetStreamDeadLetters:
    def __init__(self, nc: Client, *, timeout_s: float = 5.0) -> None:
        self._nc = nc
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)

    async def keep(self, letter: str, id: str, headers: Mapping[str, str], data: bytes, failure: Failure) -> None:
        """Keep the message of this id, with the reason in its headers; without its body, where both do not fit.

        Raises: Unavailable.
        """
        headers = {
            **_sendable(headers),
            "Nats-Msg-Id": f"{letter}:{failure.position.sequence}",
            "Headrace-Id": id,
            "Headrace-Letter-Subject": failure.subject,
            "Headrace-Letter-Sequence": str(failure.position.sequence),
            "Headrace-Letter-Reason": " ".join(failure.reason.split()),
            "Headrace-Letter-Where": failure.where,
            "Headrace-Letter-Stack": failure.stack,
            "Headrace-Letter-Failures": str(failure.failures),
            "Headrace-Letter-Deaths": str(failure.deaths),
        }
        if size_of(data, headers) + RESTORED > self._nc.max_payload:
            headers[WITHHELD], data = "1", b""
        try:
            await self._js.publish(_subject(failure.consumer, letter), data, stream=DEAD, headers=headers)
        except nats.errors.Error as error:
            raise Unavailable(f"The dead letters take nothing: {error!r}") from error

    async def get(self, consumer: str, letter: str) -> Msg | None:
        """The message that is kept for a dead letter. Raises: Unavailable."""
        return await self._reader.last(DEAD, _subject(consumer, letter))

    async def send_again(self, consumer: str, letter: str) -> None:
        kept = await self.get(consumer, letter)
        if kept is None or WITHHELD in (kept.headers or {}):
            log.warning("no message is kept to send again", consumer=consumer, letter=letter)
            return
        stored = kept.headers or {}
        headers = {name: value for name, value in stored.items() if not name.startswith(_OURS)}
        subject = CommandSubject.of(stored["Headrace-Letter-Subject"])
        if subject.is_old:
            subject = subject._replace(actor=ANON)
        try:
            await self._js.publish(str(subject), kept.data, stream=COMMANDS, headers=headers)
        except APIError as error:
            if error.err_code == TOO_LARGE:
                raise TooLarge(size_of(kept.data, headers), LARGEST) from error
            raise Unavailable(f"COMMANDS takes nothing: {error!r}") from error
        except nats.errors.Error as error:
            raise Unavailable(f"COMMANDS takes nothing: {error!r}") from error

    async def remove(self, consumer: str, letter: str, until: datetime) -> None:
        while (kept := await self.get(consumer, letter)) and _time(kept) <= until:
            try:
                await self._js.delete_msg(DEAD, sequence(kept))
            except nats.errors.Error as error:
                raise Unavailable(f"The dead letters cannot be removed: {error!r}") from error


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """The sender's own headers, without those that this client refuses to send."""
    return {
        name: value.encode(errors="replace").decode()
        for name, value in headers.items()
        if _NAME.fullmatch(name) and not name.startswith(_OURS)
    }


def _time(kept: Msg) -> datetime:
    headers = kept.headers or {}
    return datetime.fromisoformat(headers.get(TIME) or headers["Nats-Time-Stamp"])


def _subject(consumer: str, letter: str) -> str:
    return f"dead.{consumer}.{letter}"
