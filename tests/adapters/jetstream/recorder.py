"""The library's recorder interfaces over the event store, so that the library's own test cases can be run on it.

A commit is one message about one aggregate, and so is an insert here. The position of an event in the application's
sequence is its place among the events of the tenant, counted from 1 along the log.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import pairwise
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any, TypeVar
from uuid import UUID

import nats
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    StoredEvent,
)

from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import set_up
from domain.aggregate import Event, new_id
from domain.log import EVENTS, Commit, Metadata, Subject
from handlers.ports.log import Conflict

T = TypeVar("T")


class Recorded(Event):
    """An event of the library: a topic and bytes."""

    TOPIC = "library.recorded.v1"
    topic: str
    data: str


class Connection:
    """A NATS connection on an event loop in a thread of its own, for callers that do not await."""

    def __init__(self, url: str) -> None:
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()
        self.nc = self.run(nats.connect(url))
        self.run(set_up(self.nc.jetstream()))

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:  # a subscription's thread may ask once more after it was stopped
            coroutine.close()
            raise RuntimeError("The connection is closed.")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.begin(coroutine).result(timeout=60)

    def close(self) -> None:
        ending = self.begin(self._end())
        self._closed = True
        ending.result(timeout=60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await self._cancel_others()
        await self.nc.close()
        await self._cancel_others()
        await self._loop.shutdown_asyncgens()

    async def _cancel_others(self) -> None:
        """Cancel all other tasks, except those of nats-py while the connection is open."""
        running = asyncio.all_tasks() - {asyncio.current_task()}
        others = [task for task in running if self.nc.is_closed or not _is_of_nats(task)]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _is_of_nats(task: asyncio.Task[Any]) -> bool:
    return str(getattr(task.get_coro(), "__qualname__", "")).startswith(("Client.", "Subscription."))


class JetStreamAggregateRecorder(AggregateRecorder):
    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant
        self._store = JetStreamEventStore(connection.nc)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        if stored_events:
            self._connection.run(self._append(stored_events))
        return None

    async def _append(self, stored: Sequence[StoredEvent]) -> int:
        """The sequence of the commit of the events. Raises: IntegrityError when a version is taken."""
        subject = self._subject(stored[0].originator_id)
        if any(event.originator_id != stored[0].originator_id for event in stored):
            raise IntegrityError("A commit is about one aggregate.")
        commits = await self._store.load(subject)
        last = commits[-1].events[-1:] if commits else []
        versions = [event.originator_version for event in (*last, *stored)]
        if any(later <= earlier for earlier, later in pairwise(versions)):
            raise IntegrityError(f"Versions {versions} of {subject} are not in order.")
        id = new_id()
        expected = commits[-1].position.sequence if commits else 0
        try:
            position = await self._store.append(subject, _events(stored), Metadata(id, self._tenant, id), expected)
        except Conflict as conflict:
            raise IntegrityError(str(conflict)) from conflict
        return position.sequence

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        commits = self._connection.run(self._store.load(self._subject(originator_id)))
        found = [event for commit in commits for event in _stored(commit)]
        found = [event for event in found if gt is None or event.originator_version > gt]
        found = [event for event in found if lte is None or event.originator_version <= lte]
        return (found[::-1] if desc else found)[:limit]

    def _subject(self, originator_id: UUID | str) -> Subject:
        return Subject(self._tenant, "library", str(originator_id))


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    def __init__(self, connection: Connection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self._log = JetStreamLog(connection.nc)
        self._reading = Lock()
        self._read_to = connection.run(self._log.last(EVENTS))
        self._notifications: list[Notification] = []
        self._ids: dict[int, list[int]] = {}

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        if not stored_events:
            return None
        sequence = self._connection.run(self._append(stored_events))
        self._catch_up()
        return self._ids[sequence]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        self._catch_up()
        first = 0 if start is None else max(start - inclusive_of_start, 0)
        found = self._notifications[first:stop]
        return [event for event in found if not topics or event.topic in topics][:limit]

    def max_notification_id(self) -> int | None:
        self._catch_up()
        return len(self._notifications) or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> JetStreamSubscription:
        return JetStreamSubscription(self, gt, topics)

    def _catch_up(self) -> None:
        """Number what has been appended, by whomever, since the last look."""
        with self._reading:
            self._connection.run(self._read())

    async def _read(self) -> None:
        async for batch in self._log.read(EVENTS, self._read_to, follow=False):
            for commit in batch:
                assert isinstance(commit, Commit)
                self._read_to = commit.position.sequence
                if commit.subject.tenant != self._tenant:
                    continue
                first = len(self._notifications) + 1
                numbered = [Notification(**vars(event), id=id) for id, event in enumerate(_stored(commit), first)]
                self._notifications += numbered
                self._ids[self._read_to] = [notification.id for notification in numbered]

    def follow(self, flag: Flag) -> Future[None]:
        """Set the flag whenever something was committed, until it is cancelled."""

        async def follow() -> None:
            async for _ in self._log.read(EVENTS, self._read_to):
                flag.set()

        return self._connection.begin(follow())


class JetStreamSubscription(ListenNotifySubscription[JetStreamApplicationRecorder]):
    """Looks again when something was committed."""

    def __init__(self, recorder: JetStreamApplicationRecorder, gt: int | None, topics: Sequence[str]) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._following = recorder.follow(self._has_been_notified)

    def stop(self) -> None:
        super().stop()
        self._following.cancel()


def _events(stored: Sequence[StoredEvent]) -> list[Recorded]:
    return [
        Recorded(
            originator_id=str(event.originator_id),
            originator_version=event.originator_version,
            timestamp=datetime.now(UTC),
            topic=event.topic,
            data=b64encode(event.state).decode(),
        )
        for event in stored
    ]


def _stored(commit: Commit) -> list[StoredEvent]:
    return [
        StoredEvent(event.originator_id, event.originator_version, event.topic, b64decode(event.data))
        for event in commit.events
        if isinstance(event, Recorded)
    ]
