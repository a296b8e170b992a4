"""Loads aggregates from their commits, and changes them: load, decide, append, and retry on a conflict."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar, cast
from weakref import WeakValueDictionary

from domain.aggregate import Aggregate, Snapshot
from domain.log import EVENTS, Commit, Metadata, Position, Subject
from handlers.ports.log import Conflict, Ends, EventStore, SavedSnapshot, Snapshots, Unavailable

A = TypeVar("A", bound=Aggregate)

TRIES = 5
"""Maximum attempts at a change while other processes change the same aggregate."""

SNAPSHOT_EVERY = 100
"""Number of commits between two snapshots."""

REMEMBERED = 1000
"""Number of latest commits whose ids a snapshot keeps, to recognize a repeated cause."""

RECENT = 200
"""Maximum number of aggregates kept in memory after their last change; the log confirms or refuses that state."""

READ = 500
"""Maximum number of aggregates kept in memory after they were read; the log says whether they have changed since."""


class Change(NamedTuple, Generic[A]):
    """An aggregate after a change, with the position of its commit; that of the last one, if nothing changed."""

    aggregate: A
    position: Position
    version: int


@dataclass(slots=True)
class Loaded(Generic[A]):
    """An aggregate (None before its first commit), the sequence of its last commit, and its commits by id."""

    aggregate: A | None = None
    sequence: int = 0
    commits: dict[str, tuple[int, int]] = field(default_factory=dict)
    since_snapshot: int = 0
    person: str | None = None
    """The data subject: that of the first commit that has one holds for all that follow."""
    through: int = 0
    """The sequence of EVENTS up to which no other commit followed."""

    def copy(self) -> Loaded[A]:
        return dataclasses.replace(self, aggregate=deepcopy(self.aggregate), commits=dict(self.commits))

    def change(self, commit: str) -> Change[A] | None:
        """The change of the commit with this id, None when there is none."""
        if self.aggregate is None or commit not in self.commits:
            return None
        sequence, version = self.commits[commit]
        return Change(self.aggregate, Position(EVENTS, sequence), version)


class Repository:
    def __init__(self, store: EventStore, snapshots: Snapshots) -> None:
        self._store = store
        self._snapshots = snapshots
        self._turns: WeakValueDictionary[Subject, asyncio.Lock] = WeakValueDictionary()
        self._recent: dict[Subject, Loaded[Any]] = {}
        self._known: dict[Subject, Loaded[Any]] = {}

    @property
    def largest(self) -> int:
        """Maximum bytes of a stored commit."""
        return self._store.largest

    async def get(self, kind: type[A], tenant: str, id: str) -> A | None:
        """The current aggregate, None when there is none: to be read only, since others read it too."""
        return (await self.all(kind, tenant, [id])).get(id)

    async def all(self, kind: type[A], tenant: str, ids: Sequence[str]) -> dict[str, A]:
        """As `get`, of up to 1000 aggregates: those that there are, by id."""
        found = await self._current(kind, [Subject(tenant, kind.TOPIC, id) for id in ids])
        return {id: loaded.aggregate for id, loaded in zip(ids, found, strict=True) if loaded.aggregate is not None}

    async def get_at(self, kind: type[A], tenant: str, id: str) -> tuple[A | None, int]:
        """As `get`, and the sequence of its last commit (0 when there is none)."""
        [loaded] = await self._current(kind, [Subject(tenant, kind.TOPIC, id)])
        return loaded.aggregate, loaded.sequence

    def known(self, kind: type[A], tenant: str, id: str) -> A | None:
        """The aggregate as it was last read here, None when it was not: for what never changes about it."""
        loaded: Loaded[A] | None = self._known.get(Subject(tenant, kind.TOPIC, id))
        return loaded.aggregate if loaded else None

    async def first(self, kind: type[Aggregate], tenant: str, id: str) -> Commit | None:
        """The first commit of the aggregate, None when there is none."""
        subject = Subject(tenant, kind.TOPIC, id)
        commits = await self._store.load(subject, limit=1) or await self._store.load_from_leader(subject, after=0)
        return commits[0] if commits else None

    async def commits(self, kind: type[Aggregate], tenant: str, id: str) -> Sequence[Commit]:
        """All commits of the aggregate, oldest first."""
        subject = Subject(tenant, kind.TOPIC, id)
        commits = await self._store.load(subject)
        after = commits[-1].position.sequence if commits else 0
        return [*commits, *await self._store.load_from_leader(subject, after=after)]

    def forget(self) -> None:
        """Drop the aggregates in memory, as when a person is erased."""
        self._recent.clear()

    def follow(self, commit: Commit) -> None:
        """Take in a commit that was delivered, so that the next change needs no read: one that begins its aggregate, or
        follows the state in memory."""
        version, loaded = commit.events[0].originator_version, self._recent.get(commit.subject)
        if version == 1 and loaded is None:
            self._remember(commit.subject, _fold(Loaded(), [commit]))
        elif loaded and loaded.aggregate is not None and version == loaded.aggregate.version + 1:
            _fold(loaded, [commit])

    async def done(self, kind: type[A], id: str, metadata: Metadata) -> Change[A] | None:
        """The change already committed under `metadata.id`, None when there is none."""
        subject = Subject(metadata.tenant, kind.TOPIC, id)
        return (await self._load(kind, subject, certain=True)).change(metadata.id)

    async def change(
        self, kind: type[A], id: str, metadata: Metadata, decide: Callable[[A | None], A], *, new: bool = False
    ) -> Change[A]:
        """Commit the events of `decide` under `metadata.id`; a repeated id changes nothing.

        With `new`, first assume that there is no aggregate yet, without a read. Changes of one aggregate take turns in
        this process; the expected sequence detects those of other processes. `decide` may refuse or find nothing to do
        only on the state that the stream's leader has.
        Raises: the errors of `decide`, TooLarge, Unavailable.
        """
        subject = Subject(metadata.tenant, kind.TOPIC, id)
        async with self._turns.setdefault(subject, asyncio.Lock()):
            guess: Loaded[A] | None = Loaded() if new else self._recent.pop(subject, None)
            for attempt in range(TRIES):
                certain = attempt > 0
                loaded = guess or await self._load(kind, subject, certain=certain)
                guess = None
                before = loaded.copy() if kind.CONTENDED else None
                try:
                    if change := await self._commit(subject, loaded, metadata, decide, certain=certain):
                        return change
                except Conflict:
                    await asyncio.sleep(random.uniform(0.0, 0.01) * 2**attempt)
                except Unavailable:
                    raise
                except Exception:  # of a stale state: a broken rule, a missing part
                    if certain:
                        raise
                if before:
                    guess = await self._newer(subject, before)
        raise Unavailable(f"Other processes changed {subject} during {TRIES} attempts in a row.")

    async def _commit(
        self, subject: Subject, loaded: Loaded[A], metadata: Metadata, decide: Callable[[A | None], A], *, certain: bool
    ) -> Change[A] | None:
        """The committed change; None when there is nothing to commit on a state that may be stale."""
        if known := loaded.change(metadata.id):
            return known
        aggregate = decide(loaded.aggregate)
        events = aggregate.pending()
        if not events:
            if certain:
                self._remember(subject, loaded)
            return Change(aggregate, Position(EVENTS, loaded.sequence), aggregate.version) if certain else None
        loaded.person = loaded.person or metadata.person
        if metadata.person != loaded.person:
            metadata = dataclasses.replace(metadata, person=loaded.person)
        position = await self._store.append(subject, events, metadata, loaded.sequence)
        loaded.aggregate, loaded.sequence = aggregate, position.sequence
        loaded.commits[metadata.id] = (position.sequence, aggregate.version)
        loaded.since_snapshot += 1
        if loaded.since_snapshot > SNAPSHOT_EVERY and await self._snapshot(subject, loaded):
            loaded.since_snapshot = 0
        self._remember(subject, loaded)
        return Change(aggregate, position, aggregate.version)

    def _remember(self, subject: Subject, loaded: Loaded[Any]) -> None:
        self._recent[subject] = loaded
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    async def _newer(self, subject: Subject, loaded: Loaded[A]) -> Loaded[A]:
        """The state with all commits since, as the stream's leader has them."""
        loaded = _fold(loaded, await self._store.load(subject, after=loaded.sequence))
        return _fold(loaded, await self._store.load_from_leader(subject, after=loaded.sequence))

    async def _current(self, kind: type[A], subjects: Sequence[Subject]) -> list[Loaded[A]]:
        """The current aggregates: those in memory, where the log has nothing newer. Words of a person are not kept."""
        known: dict[Subject, Loaded[A]] = {
            subject: loaded for subject in subjects if (loaded := self._known.get(subject))
        }
        after = min((max(loaded.sequence, loaded.through) for loaded in known.values()), default=0)
        ends, through = await self._store.ends(list(known), after=after) if known else Ends({}, 0)

        async def current(subject: Subject) -> Loaded[A]:
            if loaded := known.get(subject):
                end = ends.get(subject, loaded.sequence if loaded.sequence <= through else 0)
                if end == loaded.sequence:
                    loaded.through = max(loaded.through, through)
                    return loaded
            self._known.pop(subject, None)
            loaded = await self._load(kind, subject, certain=True)
            if loaded.aggregate is not None and loaded.person is None:
                self._known[subject] = loaded
                if len(self._known) > READ:
                    del self._known[next(iter(self._known))]
            return loaded

        return await asyncio.gather(*map(current, subjects))

    async def _load(self, kind: type[A], subject: Subject, *, certain: bool) -> Loaded[A]:
        """The current aggregate; a recent state unless it must be `certain`."""
        loaded: Loaded[A] = await self._read(subject)
        return _fold(loaded, await self._store.load_from_leader(subject, after=loaded.sequence)) if certain else loaded

    async def _read(self, subject: Subject) -> Loaded[A]:
        commits = await self._store.load(subject, limit=SNAPSHOT_EVERY + 1)
        if len(commits) <= SNAPSHOT_EVERY:
            return _fold(Loaded(), commits)
        if taken := await self._snapshots.get(subject):
            loaded = Loaded(cast("A", taken.snapshot.mutate(None)), taken.sequence, taken.commits, person=taken.person)
        else:
            loaded = _fold(Loaded(), commits)
        return _fold(loaded, await self._store.load(subject, after=loaded.sequence))

    async def _snapshot(self, subject: Subject, loaded: Loaded[A]) -> bool:
        """Save a snapshot, and return whether it was saved; if not, the next change tries again."""
        latest = dict(list(loaded.commits.items())[-REMEMBERED:])
        snapshot = Snapshot.of(cast("A", loaded.aggregate))
        try:
            await self._snapshots.put(subject, SavedSnapshot(snapshot, loaded.sequence, latest, loaded.person))
        except Unavailable:
            return False
        return True


def folded(kind: type[A], commits: Iterable[Commit]) -> A | None:
    """The aggregate that all of its commits make, the oldest first; None for none."""
    aggregate: Any = None
    for commit in commits:
        for event in commit.events:
            aggregate = event.mutate(aggregate)
    return cast("A | None", aggregate)


def _fold(loaded: Loaded[A], commits: Sequence[Commit]) -> Loaded[A]:
    for commit in commits:
        for event in commit.events:
            loaded.aggregate = cast("A", event.mutate(loaded.aggregate))
        loaded.sequence = commit.position.sequence
        loaded.person = loaded.person or commit.metadata.person
        loaded.commits[commit.metadata.id] = (loaded.sequence, commit.events[-1].originator_version)
    loaded.since_snapshot += len(commits)
    return loaded
