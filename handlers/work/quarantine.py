"""The quarantine: what in the log is no commit freezes its aggregate, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from domain.log import EVENTS, Commit, Position, Quarantined, Recorded, Subject
from domain.work.quarantine import Quarantine
from handlers.ports.log import Log


class HoldingLog:
    """A log that holds back the commits that follow in a frozen aggregate: they are in quarantine, too.

    `frozen` are the messages in quarantine before the first that is read, with their aggregates.
    """

    def __init__(self, log: Log, frozen: Iterable[tuple[int, Subject, bool]] = ()) -> None:
        self._log = log
        self._frozen: dict[Subject, dict[int, bool]] = {}
        for sequence, subject, newer in frozen:
            self._frozen.setdefault(subject, {})[sequence] = newer

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        async with aclosing(self._log.read(stream, after, follow=follow)) as chunks:
            async for messages in chunks:
                yield [self._held(message) for message in messages]

    def _held(self, message: Recorded) -> Recorded:
        match message:
            case Quarantined(position=Position(stream=stream)) if stream == EVENTS:
                self._frozen.setdefault(message.subject, {})[message.position.sequence] = message.newer
            case Commit() if message.subject in self._frozen:
                first, newer = next(iter(self._frozen[message.subject].items()))
                reason = f"waits for the end of the quarantine of {EVENTS} {first}."
                return Quarantined(
                    message.subject, message.metadata, message.position, message.at, reason, newer, held_by=first
                )
            case Commit() if message.subject.noun == Quarantine.TOPIC:
                for stream, sequence in discards(message):
                    if stream == EVENTS:
                        self._release(sequence)
        return message

    def _release(self, sequence: int) -> None:
        for subject, found in list(self._frozen.items()):
            if found.pop(sequence, None) is not None and not found:
                del self._frozen[subject]


def discards(commit: Commit) -> list[Position]:
    """The messages that a commit discards from the quarantine."""
    return [
        Position(event.stream, event.sequence) for event in commit.events if isinstance(event, Quarantine.Discarded)
    ]
