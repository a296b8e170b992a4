"""The log, audited while it is read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from nats.aio.msg import Msg

from adapters.jetstream.bulk import Stored
from adapters.jetstream.codec import Fetched, references
from adapters.jetstream.keys import MissingKey
from adapters.jetstream.log import JetStreamLog, position
from domain.log import EVENTS, OUTCOMES, Commit, Quarantined, Recorded, Verdict
from handlers.work.audit import Audit
from handlers.work.progress import Progress


class Unreadable(Exception):
    """A message cannot be decoded; the audit has the reason."""


class AuditedLog:
    """A log that gives each message to the audit when it is first read, so that one reading serves all who need it."""

    def __init__(self, log: JetStreamLog, audit: Audit) -> None:
        self._log = log
        self._audit = audit

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        """As the port. Raises: Unreadable, after the messages before it; Unavailable."""
        async with aclosing(self._log.messages(stream, after, follow=follow)) as chunks:
            async for messages in chunks:
                await self._load_keys(stream, messages)
                async for part, blobs in self._log.whole(stream, messages):
                    found: list[Recorded] = []
                    for message in part:
                        if (recorded := self._take(stream, message, blobs)) is None:
                            yield found
                            raise Unreadable(f"{stream} {position(stream, message).sequence} cannot be read.")
                        found.append(recorded)
                    yield found

    async def finish(self, progress: Progress) -> None:
        """Audit what was not read yet, and finish the audit. Raises: Unavailable."""
        last = {}
        for stream in (EVENTS, OUTCOMES):
            last[stream] = await self._log.last(stream)
            async with aclosing(self._log.messages(stream, self._audit.last[stream], follow=False)) as chunks:
                async for messages in chunks:
                    await self._load_keys(stream, messages)
                    async for part, blobs in self._log.whole(stream, messages):
                        for message in part:
                            self._take(stream, message, blobs)
                    progress(stream, self._audit.last[stream], last[stream])
        self._audit.finish(last)

    async def _load_keys(self, stream: str, messages: Sequence[Msg | Stored]) -> None:
        with suppress(MissingKey):  # each message that needs it says so
            await self._log.load_keys(stream, messages)

    def _take(self, stream: str, message: Msg | Stored, blobs: Fetched) -> Recorded | None:
        """Decode a message, and audit it the first time; None for one that cannot be decoded."""
        at = position(stream, message)
        new = at.sequence > self._audit.last[stream]
        if new and stream == EVENTS:
            self._audit.name_blobs(message.subject.split(".")[1], references(message.data), at.sequence)
        try:
            recorded = self._log.recorded(stream, message, blobs)
        except Exception as error:
            if new:
                self._audit.unreadable(at, f"{type(error).__name__}: {error}")
            return None
        if new:
            match recorded:
                case Commit():
                    self._audit.commit(recorded)
                case Verdict():
                    self._audit.verdict(recorded)
                case Quarantined():
                    self._audit.unreadable(at, recorded.reason)
        return recorded
