"""The log's ports in memory, for unit tests: they pass the contract suites of the real ones, in tests/contracts.

Messages are kept as the real log has them, by the same codec, so that no test shares an object with the past.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

import orjson

from adapters.jetstream import codec
from adapters.jetstream.keys import ERASED, Held, Key, MissingKey
from adapters.jetstream.size import HEADROOM, size_of
from adapters.privacy.packed import unpack
from domain.access.account import Account
from domain.access.api_key import ApiKey
from domain.access.bus_login import BusLogin
from domain.access.end_user import EndUser, person_id
from domain.access.register import Register
from domain.access.tenant import Tenant
from domain.aggregate import Event
from domain.chat.conversation import Conversation
from domain.log import EVENTS, NOT_FINAL, OUTCOMES, Commit, Metadata, Outcome, Position, Recorded, Subject, Verdict
from domain.models.model_call import ModelCall
from domain.models.quota_window import QuotaWindow
from domain.workflows.run import Run
from handlers.ports.counters import Counter
from handlers.ports.log import Conflict, Ends, SavedSnapshot, TooLarge, Unavailable
from handlers.ports.people import Erased
from handlers.ports.quotas import ExpiredLease, Spent
from handlers.ports.sql_roles import NotAllowed, Role

LARGEST = 8 * 2**20 - HEADROOM
"""Bytes of the largest commit, as on the embedded server."""


LARGEST_VALUES = LARGEST * 3 // 4
"""Bytes of the large values of a commit; fewer than a real server takes, so that tests need less memory."""


class Message(NamedTuple):
    subject: str
    body: bytes
    headers: dict[str, str]
    at: datetime


class Stream:
    """Messages in order; the first has sequence 1."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ids: set[str] = set()
        self._of: defaultdict[str, list[int]] = defaultdict(list)
        self._grown = asyncio.Event()

    def keep(self, message: Message) -> int:
        """The sequence of the message."""
        self.messages.append(message)
        self.ids.add(message.headers["Nats-Msg-Id"])
        self._of[message.subject].append(len(self.messages))
        self._grown.set()
        self._grown = asyncio.Event()
        return len(self.messages)

    def of(self, subject: str, after: int = 0) -> list[tuple[int, Message]]:
        """The messages of a subject after a sequence, each with its own."""
        sequences = self._of.get(subject, [])
        return [(sequence, self.messages[sequence - 1]) for sequence in sequences[bisect_right(sequences, after) :]]

    def last(self, subject: str) -> tuple[int, Message | None]:
        """The last message of a subject; None at 0 when there is none."""
        sequence = self._of.get(subject, [0])[-1]
        return sequence, self.messages[sequence - 1] if sequence else None

    async def grows(self) -> None:
        await self._grown.wait()


@dataclass
class Memory:
    """The contents of a server; ports that share one are processes on one log. One that is `away` does not answer."""

    streams: dict[str, Stream] = field(default_factory=lambda: {EVENTS: Stream(), OUTCOMES: Stream()})
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    snapshots: dict[Subject, tuple[bytes, str | None]] = field(default_factory=dict)
    keys: dict[tuple[str, str], Held] = field(default_factory=dict)
    names: bytes = bytes(32)
    frames: list[dict[str, Any]] = field(default_factory=list)
    counters: defaultdict[Counter, int] = field(default_factory=lambda: defaultdict(int))
    waiting: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    heard: list[Callable[[Commit], None]] = field(default_factory=list)
    away: bool = False

    async def answers(self) -> None:
        """Let others have their turn, as a server does. Raises: Unavailable."""
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("The memory is away.")


class MemoryEventStore:
    def __init__(self, memory: Memory, keys: MemoryKeys | None = None) -> None:
        self._memory = memory
        self._events = memory.streams[EVENTS]
        self._keys = keys

    @property
    def largest(self) -> int:
        return LARGEST

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        await self._memory.answers()
        return [_commit(*each, self._keys, self._memory.blobs) for each in self._events.of(str(subject), after)[:limit]]

    async def load_from_leader(self, subject: Subject, *, after: int) -> list[Commit]:
        return await MemoryEventStore.load(self, subject, after=after)

    async def ends(self, subjects: Sequence[Subject], *, after: int = 0) -> Ends:
        await self._memory.answers()
        ends = {subject: end for subject in subjects if (end := self._events.last(str(subject))[0]) > after}
        return Ends(ends, len(self._events.messages))

    async def append(self, subject: Subject, events: Sequence[Event], metadata: Metadata, expected: int) -> Position:
        await self._memory.answers()
        cipher = await self._keys.of(subject.tenant, metadata.person) if self._keys and metadata.person else None
        large: dict[str, bytes] = {}
        body, headers = codec.encode_commit(events, metadata, cipher, large)
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        if (size := size_of(body, headers)) > self.largest:
            raise TooLarge(size, self.largest)
        if (values := sum(map(len, large.values()))) > LARGEST_VALUES:
            raise TooLarge(values, LARGEST_VALUES)
        last, message = self._events.last(str(subject))
        if message and message.headers["Nats-Msg-Id"] == metadata.id:
            return Position(EVENTS, last)
        if last != expected:
            raise Conflict(str(subject))
        if metadata.id in self._events.ids:
            raise Unavailable(f"EVENTS holds commit {metadata.id} of another aggregate.")
        self._memory.blobs |= {(subject.tenant, digest): data for digest, data in large.items()}
        message = Message(str(subject), body, headers, datetime.now(UTC))
        sequence = self._events.keep(message)
        for hear in self._memory.heard:
            hear(_commit(sequence, message, self._keys, self._memory.blobs))
        return Position(EVENTS, sequence)


class MemoryLog:
    def __init__(self, memory: Memory, keys: MemoryKeys | None = None) -> None:
        self._memory = memory
        self._keys = keys

    async def last(self, stream: str) -> int:
        """The sequence of the stream's last message; 0 when there is none."""
        await self._memory.answers()
        return len(self._memory.streams[stream].messages)

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        kept = self._memory.streams[stream]
        while True:
            await self._memory.answers()
            if batch := list(enumerate(kept.messages, 1))[after:]:
                after = batch[-1][0]
                yield [
                    _commit(*each, self._keys, self._memory.blobs) if stream == EVENTS else _verdict(*each)
                    for each in batch
                ]
            if not follow or after > len(kept.messages):
                return
            if after == len(kept.messages):
                await kept.grows()


class MemoryOutcomes:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def get(self, tenant: str, command: str) -> Outcome | None:
        await self._memory.answers()
        sequence, found = self._memory.streams[OUTCOMES].last(f"out.{tenant}.{command}")
        return _verdict(sequence, found).events[0] if found else None

    async def put(self, outcome: Outcome) -> None:
        known = await self.get(outcome.metadata.tenant, outcome.command)
        if known is None or known.code == NOT_FINAL != outcome.code:
            subject = f"out.{outcome.metadata.tenant}.{outcome.command}"
            message = Message(subject, *codec.encode_outcome(outcome), datetime.now(UTC))
            self._memory.streams[OUTCOMES].keep(message)


class MemoryBlobs:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def put(self, tenant: str, data: bytes) -> str:
        await self._memory.answers()
        digest = hashlib.sha256(data).hexdigest()
        self._memory.blobs.setdefault((tenant, digest), data)
        return digest

    async def get(self, tenant: str, digest: str) -> bytes:
        await self._memory.answers()
        if (tenant, digest) not in self._memory.blobs:
            raise KeyError(digest)
        data = self._memory.blobs[tenant, digest]
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"The bytes of blob {digest} have changed.")
        return data

    async def size(self, tenant: str, digest: str) -> int | None:
        await self._memory.answers()
        data = self._memory.blobs.get((tenant, digest))
        return None if data is None else len(data)

    async def keep(self, tenant: str, digest: str) -> int | None:
        return await self.size(tenant, digest)


class MemorySnapshots:
    def __init__(self, memory: Memory, keys: MemoryKeys | None = None) -> None:
        self._memory = memory
        self._keys = keys

    async def get(self, subject: Subject) -> SavedSnapshot | None:
        await self._memory.answers()
        data, person = self._memory.snapshots.get(subject, (b"", None))
        if not data or (self._keys and person and await self._keys.of(subject.tenant, person) is ERASED):
            return None
        fields = orjson.loads(data)
        commits = {id: (sequence, version) for id, sequence, version in fields["commits"]}
        return SavedSnapshot(codec.decode_snapshot(fields["snapshot"]), fields["sequence"], commits, person)

    async def put(self, subject: Subject, taken: SavedSnapshot) -> None:
        await self._memory.answers()
        fields = {
            "snapshot": codec.encode_snapshot(taken.snapshot),
            "sequence": taken.sequence,
            "commits": [[id, *place] for id, place in taken.commits.items()],
        }
        self._memory.snapshots[subject] = orjson.dumps(fields), taken.person


class MemoryKeys:
    """The people, and the keys that the codec seals their words with."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._erased: set[tuple[str, str]] = set()
        self.on_erased: Callable[[], None] = lambda: None

    def get(self, tenant: str, person: str) -> Held:
        if (tenant, person) not in self._memory.keys:
            raise MissingKey(tenant, person)
        if (key := self._memory.keys[tenant, person]) is ERASED and (tenant, person) not in self._erased:
            self._erased.add((tenant, person))
            self.on_erased()
        return key

    def check(self, position: Position, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """Accept every message: nothing else writes to the memory."""

    async def of(self, tenant: str, person: str) -> Held:
        await self._memory.answers()
        return self.get(tenant, person)

    async def make(self, tenant: str, person: str) -> None:
        await self._memory.answers()
        self._memory.keys.setdefault((tenant, person), Key(os.urandom(32)))

    async def key_of_names(self) -> bytes:
        return self._memory.names

    async def person(self, tenant: str, user: str) -> str:
        person = self._id(tenant, user, self._erasures(tenant, user))
        await self.make(tenant, person)
        return person

    async def last_person(self, tenant: str, user: str) -> tuple[str, bool]:
        await self._memory.answers()
        erasures = self._erasures(tenant, user)
        person = self._id(tenant, user, erasures)
        if (tenant, person) in self._memory.keys:
            return person, True
        return self._id(tenant, user, max(0, erasures - 1)), erasures > 0

    async def erase(self, tenant: str, person: str) -> None:
        await self._memory.answers()
        self._memory.keys[tenant, person] = ERASED
        self.get(tenant, person)

    async def seal(self, tenant: str, person: str, kind: str, plain: bytes) -> bytes:
        return self._living(await self.of(tenant, person)).seal_blob(tenant, kind, plain)

    async def open(self, tenant: str, person: str, kind: str, sealed: bytes) -> bytes:
        return self._living(await self.of(tenant, person)).open_blob(tenant, kind, sealed)

    def unpack(self, key: str, packed: bytes) -> bytes:
        return unpack(key, packed)

    def _living(self, held: Held) -> Key:
        if not isinstance(held, Key):
            raise Erased
        return held

    def _id(self, tenant: str, user: str, erasures: int) -> str:
        return person_id(self._memory.names, tenant, user, erasures)

    def _erasures(self, tenant: str, user: str) -> int:
        """Number of erased people of this name."""
        erasures = 0
        while self._memory.keys.get((tenant, self._id(tenant, user, erasures))) is ERASED:
            erasures += 1
        return erasures


class MemoryRegistry:
    """The register, folded from the memory at each look."""

    def __init__(self, memory: Memory, keys: MemoryKeys) -> None:
        self._memory = memory
        self._keys = keys

    async def now(self) -> Register:
        await self._memory.answers()
        register = Register()
        for sequence, message in enumerate(self._memory.streams[EVENTS].messages, 1):
            if message.subject.split(".")[2] in (Tenant.TOPIC, Account.TOPIC, ApiKey.TOPIC, BusLogin.TOPIC):
                register.take(_commit(sequence, message, self._keys, self._memory.blobs))
        return register

    async def again(self) -> Register:
        return await self.now()


class MemoryLive:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def publish(self, tenant: str, conversation: str, message: str, frame: dict[str, Any]) -> None:
        self._memory.frames.append(orjson.loads(orjson.dumps(frame)))


class MemoryStops:
    def __init__(self, memory: Memory) -> None:
        self._watched: dict[tuple[str, str, str], tuple[asyncio.Event, str | None]] = {}
        memory.heard.append(self._hear)

    def watch(self, tenant: str, conversation: str, message: str, *, person: str | None = None) -> asyncio.Event:
        return self._watched.setdefault((tenant, conversation, message), (asyncio.Event(), person))[0]

    def unwatch(self, tenant: str, conversation: str, message: str) -> None:
        self._watched.pop((tenant, conversation, message), None)

    def _hear(self, commit: Commit) -> None:
        for (tenant, conversation, message), (stop, person) in self._watched.items():
            for event in commit.events if commit.subject.tenant == tenant else ():
                if isinstance(event, Conversation.StopRequested):
                    asked = (commit.subject.id, event.message) == (conversation, message)
                elif isinstance(event, Run.StopRequested | Run.Answered | Run.TimedOut):
                    asked = commit.subject.id == conversation == message
                else:
                    asked = isinstance(event, EndUser.Erased) and commit.subject.id == person
                if asked:
                    stop.set()


def _commit(sequence: int, message: Message, keys: MemoryKeys | None, blobs: codec.Fetched) -> Commit:
    position = Position(EVENTS, sequence)
    ciphers = keys or codec.NO_CIPHERS
    return codec.decode_commit(message.subject, message.body, message.headers, position, message.at, ciphers, blobs)


def _verdict(sequence: int, message: Message) -> Verdict:
    position = Position(OUTCOMES, sequence)
    return codec.decode_verdict(message.subject, message.body, message.headers, position, message.at)


class MemoryCounters:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def add(self, counter: Counter, amount: int) -> int:
        await self._memory.answers()
        self._memory.counters[counter] += amount
        return self._memory.counters[counter]


class MemoryWaiting:
    """Works that began; a test ends them."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def count(self, tenant: str, quantity: str) -> int:
        return self._memory.waiting[tenant, quantity]

    def begin(self, tenant: str, quantity: str) -> None:
        self._memory.waiting[tenant, quantity] += 1


class MemoryQuotas:
    """Leases that have run out for `grace_s`, by the log, and what a test says is spent."""

    def __init__(self, memory: Memory, keys: MemoryKeys | None = None, grace_s: float = 0.0) -> None:
        self._log = MemoryLog(memory, keys)
        self._grace = timedelta(seconds=grace_s)
        self.reached: list[Spent] = []

    async def expired(self) -> Sequence[ExpiredLease]:
        now, windows, calls = datetime.now(UTC), dict[Subject, QuotaWindow](), defaultdict[str, list[str]](list)
        async for batch in self._log.read(EVENTS, 0, follow=False):
            for message in batch:
                for event in message.events:
                    if isinstance(event, ModelCall.Reserved):
                        for grant in event.grants:
                            calls[grant["lease"]].append(event.originator_id)
                    elif isinstance(event, QuotaWindow.Event):
                        window = event.mutate(windows.get(message.subject))
                        windows[message.subject] = cast("QuotaWindow", window)
        return [
            ExpiredLease(subject.tenant, subject.id, id, lease["until"], calls[id])
            for subject, window in windows.items()
            for id, lease in window.leases.items()
            if datetime.fromisoformat(lease["until"]) + self._grace <= now
        ]

    async def spent(self) -> Sequence[Spent]:
        return self.reached


class MemorySqlRoles:
    """Roles of SQL logins, with their tenants and verifiers; as a managed database, it may refuse to change them."""

    def __init__(self) -> None:
        self.roles: dict[str, tuple[str, str]] = {}
        self.refusing = False
        self.changed: list[str] = []

    async def held(self) -> Mapping[str, Role]:
        return {role: Role(*found) for role, found in self.roles.items()}

    async def make(self, tenant: str, role: str, verifier: str) -> None:
        self._allowed()
        if self.roles.get(role, (tenant,))[0] != tenant:
            raise NotAllowed(f"The role {role} belongs to another tenant.")
        self.changed.append(role)
        self.roles[role] = tenant, verifier

    async def end(self, role: str) -> None:
        self._allowed()
        self.changed.append(role)
        self.roles.pop(role, None)

    def _allowed(self) -> None:
        if self.refusing:
            raise NotAllowed("The user may not make roles.")
