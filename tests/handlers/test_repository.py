from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from domain.aggregate import Aggregate, Event, Rejection, new_id
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.log import EVENTS, Commit, Metadata, Position, Subject
from domain.models.quota import Definition, window
from domain.models.quota_window import QuotaWindow
from handlers.ports.log import Conflict, SavedSnapshot, Snapshots, Unavailable
from handlers.repository import SNAPSHOT_EVERY, TRIES, Repository
from tests.memory import Memory, MemoryEventStore, MemorySnapshots

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)


@pytest.fixture
def repository(memory: Memory) -> Repository:
    return Repository(MemoryEventStore(memory), MemorySnapshots(memory))


def caused(tenant: str, id: str | None = None) -> Metadata:
    return Metadata(id or new_id(), tenant, new_id())


def make(id: str) -> Callable[[Dataset | None], Dataset]:
    return lambda known: known or Dataset.begin(Dataset.Created, id, NOW, name="Rules", description="")


def remove(dataset: Dataset | None) -> Dataset:
    assert dataset is not None
    dataset.delete(NOW)
    return dataset


class Talk:
    """A conversation that grows by as many changes as are wanted."""

    def __init__(self, repository: Repository, tenant: str) -> None:
        self.repository = repository
        self.tenant = tenant
        self.id = new_id()
        self.causes: list[str] = []

    @property
    def subject(self) -> Subject:
        return Subject(self.tenant, "conversation", self.id)

    async def grow(self, changes: int) -> None:
        for _ in range(changes):
            id = new_id()
            self.causes.append(id)
            await self.repository.change(Conversation, self.id, caused(self.tenant, id), self.decide(id))

    def decide(self, id: str) -> Callable[[Conversation | None], Conversation]:
        def decide(talk: Conversation | None) -> Conversation:
            talk = talk or Conversation.begin(Conversation.Started, self.id, NOW, app=self.id, user="ada", name="Talk")
            talk.ask(NOW, message=id, app=self.id, configuration=1, query=id, inputs={}, user="ada")
            talk.stopped(NOW, message=id, answer=id)
            return talk

        return decide

    async def fold(self, store: MemoryEventStore) -> Conversation:
        folded = None
        for commit in await store.load(self.subject):
            for event in commit.events:
                folded = event.mutate(folded)
        assert isinstance(folded, Conversation)
        return folded


class Interrupted(MemoryEventStore):
    """A store whose aggregate another writer changes just before each of the first appends."""

    def __init__(self, memory: Memory, others: int) -> None:
        super().__init__(memory)
        self.others = others
        self.loads: list[int] = []

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        self.loads.append(after)
        return await super().load(subject, after=after, limit=limit)

    async def append(self, subject: Subject, events: Sequence[Event], metadata: Metadata, expected: int) -> Position:
        if self.others:
            self.others -= 1
            raise Conflict(str(subject))
        return await super().append(subject, events, metadata, expected)


async def test_what_is_not_there_is_none(repository: Repository, tenant: str) -> None:
    assert await repository.get(Dataset, tenant, new_id()) is None


async def test_a_change_is_committed_and_can_be_got(repository: Repository, tenant: str) -> None:
    id = new_id()
    change = await repository.change(Dataset, id, caused(tenant), make(id))
    assert (change.version, change.position.stream, change.aggregate.id) == (1, EVENTS, id)
    got = await repository.get(Dataset, tenant, id)
    assert got is not None
    assert vars(got) == vars(change.aggregate)


async def test_a_change_goes_on_from_the_last(repository: Repository, tenant: str) -> None:
    id = new_id()
    first = await repository.change(Dataset, id, caused(tenant), make(id), new=True)
    second = await repository.change(Dataset, id, caused(tenant), remove)
    assert (second.version, second.aggregate.deleted) == (2, True)
    assert second.position.sequence > first.position.sequence


@pytest.mark.parametrize("new", [False, True])
async def test_the_same_cause_again_changes_nothing(
    memory: Memory, repository: Repository, tenant: str, new: bool
) -> None:
    id, metadata = new_id(), caused(tenant)
    first = await repository.change(Dataset, id, metadata, make(id), new=new)
    await repository.change(Dataset, id, caused(tenant), remove)
    for again in (repository, Repository(MemoryEventStore(memory), MemorySnapshots(memory))):
        change = await again.change(Dataset, id, metadata, make(id), new=new)
        assert (change.position, change.version) == (first.position, 1)
        assert change.aggregate.deleted
    assert len(await MemoryEventStore(memory).load(Subject(tenant, "dataset", id))) == 2


async def test_what_was_done_is_known(repository: Repository, tenant: str) -> None:
    id, metadata = new_id(), caused(tenant)
    assert await repository.done(Dataset, id, metadata) is None
    change = await repository.change(Dataset, id, metadata, make(id))
    done = await repository.done(Dataset, id, metadata)
    assert done is not None
    assert (done.position, done.version) == (change.position, change.version)
    assert await repository.done(Dataset, id, caused(tenant)) is None


async def test_a_decision_that_changes_nothing_commits_nothing(
    memory: Memory, repository: Repository, tenant: str
) -> None:
    id = new_id()
    first = await repository.change(Dataset, id, caused(tenant), make(id))
    again = await repository.change(Dataset, id, caused(tenant), make(id))
    assert (again.position, again.version) == (first.position, 1)
    assert len(await MemoryEventStore(memory).load(Subject(tenant, "dataset", id))) == 1


async def test_a_decision_that_is_refused_commits_nothing(memory: Memory, repository: Repository, tenant: str) -> None:
    def refuse(dataset: Dataset | None) -> Dataset:
        raise Rejection("no", "No.")

    id = new_id()
    with pytest.raises(Rejection):
        await repository.change(Dataset, id, caused(tenant), refuse)
    assert await MemoryEventStore(memory).load(Subject(tenant, "dataset", id)) == []


async def test_a_conflict_is_decided_again(memory: Memory, tenant: str) -> None:
    store = Interrupted(memory, others=TRIES - 1)
    id, decisions = new_id(), 0

    def decide(known: Dataset | None) -> Dataset:
        nonlocal decisions
        decisions += 1
        return make(id)(known)

    change = await Repository(store, MemorySnapshots(memory)).change(Dataset, id, caused(tenant), decide)
    assert (decisions, change.version) == (TRIES, 1)


async def test_too_many_conflicts_are_left_for_later(memory: Memory, tenant: str) -> None:
    store = Interrupted(memory, others=TRIES)
    id = new_id()
    with pytest.raises(Unavailable):
        await Repository(store, MemorySnapshots(memory)).change(Dataset, id, caused(tenant), make(id))
    assert await store.load(Subject(tenant, "dataset", id)) == []


async def test_other_processes_are_noticed(memory: Memory, tenant: str) -> None:
    """Three repositories, each with turns of its own, change one conversation at once."""
    talks = [Talk(Repository(MemoryEventStore(memory), MemorySnapshots(memory)), tenant) for _ in range(3)]
    for talk in talks:
        talk.id = talks[0].id

    async def insist(talk: Talk) -> None:
        for _ in range(10):
            id = new_id()
            while True:
                try:
                    await talk.repository.change(Conversation, talk.id, caused(tenant, id), talk.decide(id))
                except Unavailable:
                    continue
                break

    await asyncio.gather(*(insist(talk) for talk in talks))
    whole = await talks[0].fold(MemoryEventStore(memory))
    assert len(whole.messages) == 30


async def test_what_was_read_is_read_again_only_where_it_has_changed(memory: Memory, tenant: str) -> None:
    store, other = Interrupted(memory, others=0), Repository(MemoryEventStore(memory), MemorySnapshots(memory))
    id, reader = new_id(), Repository(store, MemorySnapshots(memory))
    await other.change(Dataset, id, caused(tenant), make(id))
    first = await reader.get(Dataset, tenant, id)
    store.loads.clear()
    assert await reader.get(Dataset, tenant, id) is first
    assert store.loads == []
    await other.change(Dataset, id, caused(tenant), remove)
    second = await reader.get(Dataset, tenant, id)
    assert first is not None
    assert second is not None
    assert (first.deleted, second.deleted) == (False, True)


async def test_several_are_read_at_once_without_those_that_there_are_not(repository: Repository, tenant: str) -> None:
    ids = [new_id() for _ in range(3)]
    for id in ids[:2]:
        await repository.change(Dataset, id, caused(tenant), make(id))
    for _ in range(2):
        assert list(await repository.all(Dataset, tenant, ids)) == ids[:2]
    await repository.change(Dataset, ids[0], caused(tenant), remove)
    assert [each.deleted for each in (await repository.all(Dataset, tenant, ids)).values()] == [True, False]
    assert await repository.all(Dataset, tenant, []) == {}


async def test_what_was_read_is_no_part_of_a_change(memory: Memory, repository: Repository, tenant: str) -> None:
    id = new_id()
    await repository.change(Dataset, id, caused(tenant), make(id))
    read = await repository.get(Dataset, tenant, id)
    await repository.change(Dataset, id, caused(tenant), remove)
    assert read is not None
    assert not read.deleted


async def test_words_of_a_person_are_read_every_time(memory: Memory, tenant: str) -> None:
    store, id = Interrupted(memory, others=0), new_id()
    repository = Repository(store, MemorySnapshots(memory))
    await repository.change(Dataset, id, Metadata(new_id(), tenant, new_id(), person="ada"), make(id))
    await repository.get(Dataset, tenant, id)
    store.loads.clear()
    await repository.get(Dataset, tenant, id)
    assert 0 in store.loads


async def test_a_delivered_commit_saves_the_read_of_what_it_begins_or_goes_on(memory: Memory, tenant: str) -> None:
    store, other = Interrupted(memory, others=0), Repository(MemoryEventStore(memory), MemorySnapshots(memory))
    talk, elsewhere = Talk(Repository(store, MemorySnapshots(memory)), tenant), Talk(other, tenant)
    elsewhere.id = talk.id
    for version in (2, 3):
        await elsewhere.grow(1)
        talk.repository.follow((await MemoryEventStore(memory).load(talk.subject))[-1])
        assert store.loads == []
        await talk.grow(1)
        assert len(await MemoryEventStore(memory).load(talk.subject)) == 2 * (version - 1)
    causes = zip(elsewhere.causes, talk.causes, strict=True)
    assert list((await talk.fold(store)).messages) == [cause for pair in causes for cause in pair]


async def test_an_old_commit_that_is_delivered_again_harms_nothing(memory: Memory, tenant: str) -> None:
    talk = Talk(Repository(MemoryEventStore(memory), MemorySnapshots(memory)), tenant)
    await talk.grow(3)
    other = Talk(Repository(MemoryEventStore(memory), MemorySnapshots(memory)), tenant)
    other.id = talk.id
    commits = await MemoryEventStore(memory).load(talk.subject)
    for commit in (commits[0], commits[2]):
        other.repository.follow(commit)
    await other.grow(1)
    assert len((await talk.fold(MemoryEventStore(memory))).messages) == 4


class Lagging(MemoryEventStore):
    """A store whose quick reads are of some server that has not heard of the newest commits."""

    def __init__(self, memory: Memory, lag: int) -> None:
        super().__init__(memory)
        self.lag = lag

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        known = await super().load(subject)
        return [commit for commit in known[: len(known) - self.lag] if commit.position.sequence > after][:limit]

    async def load_from_leader(self, subject: Subject, *, after: int) -> list[Commit]:
        return await super().load(subject, after=after)


async def test_what_a_lagging_server_does_not_know_is_there(
    memory: Memory, tenant: str, repository: Repository
) -> None:
    id, cause = new_id(), caused(tenant)
    made = await repository.change(Dataset, id, cause, make(id))
    lagging = Repository(Lagging(memory, 1), MemorySnapshots(memory))
    found = await lagging.get(Dataset, tenant, id)
    assert found is not None
    done = await lagging.done(Dataset, id, cause)
    assert done is not None
    assert done.position == made.position
    assert (await lagging.change(Dataset, id, cause, remove)).position == made.position


async def test_a_refusal_of_what_is_past_is_not_believed(memory: Memory, tenant: str, repository: Repository) -> None:
    """Nor is anything else that goes wrong with it."""
    for wrong in (Rejection("not_found", "There is none.", "dataset"), KeyError("dataset")):
        id = new_id()
        await repository.change(Dataset, id, caused(tenant), make(id))

        def decide(known: Dataset | None, wrong: Exception = wrong) -> Dataset:
            if known is None:
                raise wrong
            return remove(known)

        change = await Repository(Lagging(memory, 1), MemorySnapshots(memory)).change(
            Dataset, id, caused(tenant), decide
        )
        assert (change.version, change.aggregate.deleted) == (2, True)


async def test_that_nothing_changes_is_not_believed_of_what_is_past(
    memory: Memory, tenant: str, repository: Repository
) -> None:
    id = new_id()

    def rename(name: str) -> Callable[[Conversation | None], Conversation]:
        def decide(talk: Conversation | None) -> Conversation:
            talk = talk or Conversation.begin(Conversation.Started, id, NOW, app=id, user="ada", name="Old")
            talk.rename(NOW, name=name)
            return talk

        return decide

    for name in ("Old", "New"):
        await repository.change(Conversation, id, caused(tenant), rename(name))
    lagging = Repository(Lagging(memory, 1), MemorySnapshots(memory))
    change = await lagging.change(Conversation, id, caused(tenant), rename("Old"))
    assert (change.version, change.aggregate.name) == (3, "Old")


async def test_a_refusal_that_stands_is_given(memory: Memory, tenant: str) -> None:
    def decide(known: Dataset | None) -> Dataset:
        raise Rejection("not_found", "There is none.", "dataset")

    with pytest.raises(Rejection, match="There is none"):
        await Repository(Lagging(memory, 1), MemorySnapshots(memory)).change(Dataset, new_id(), caused(tenant), decide)


async def test_a_long_one_is_loaded_from_its_snapshot(memory: Memory, tenant: str) -> None:
    store = Interrupted(memory, others=0)
    talk = Talk(Repository(store, MemorySnapshots(memory)), tenant)
    await talk.grow(2 * SNAPSHOT_EVERY + 60)
    taken = await MemorySnapshots(memory).get(talk.subject)
    assert taken is not None
    assert len(taken.commits) == 2 * (SNAPSHOT_EVERY + 1)
    store.loads.clear()
    got = await talk.repository.get(Conversation, tenant, talk.id)
    assert store.loads == [0, taken.sequence]
    assert got is not None
    whole = await talk.fold(store)
    assert vars(got) == vars(whole)
    assert list(got.messages) == list(whole.messages) == talk.causes
    assert got.version == 2 * (2 * SNAPSHOT_EVERY + 60) + 1


async def test_a_cause_from_before_the_snapshot_changes_nothing(memory: Memory, tenant: str) -> None:
    talk = Talk(Repository(MemoryEventStore(memory), MemorySnapshots(memory)), tenant)
    await talk.grow(SNAPSHOT_EVERY + 30)
    commits = await MemoryEventStore(memory).load(talk.subject)

    def forbidden(talk: Conversation | None) -> Conversation:
        raise AssertionError("decided again")

    for place in (0, 1, SNAPSHOT_EVERY - 1, SNAPSHOT_EVERY, SNAPSHOT_EVERY + 29):
        again = caused(tenant, talk.causes[place])
        change = await talk.repository.change(Conversation, talk.id, again, forbidden)
        assert change.position == commits[place].position
        assert change.version == commits[place].events[-1].originator_version
    assert len(await MemoryEventStore(memory).load(talk.subject)) == SNAPSHOT_EVERY + 30


class NoSnapshots:
    """Snapshots that are all lost, and cannot be put."""

    puts = 0

    async def get(self, subject: Subject) -> SavedSnapshot | None:
        return None

    async def put(self, subject: Subject, taken: SavedSnapshot) -> None:
        self.puts += 1
        raise Unavailable("The bucket is full.")


async def test_snapshots_are_only_a_cache(memory: Memory, tenant: str) -> None:
    lost: Snapshots = NoSnapshots()
    talk = Talk(Repository(MemoryEventStore(memory), lost), tenant)
    await talk.grow(SNAPSHOT_EVERY + 20)
    got = await talk.repository.get(Conversation, tenant, talk.id)
    assert got is not None
    assert vars(got) == vars(await talk.fold(MemoryEventStore(memory)))
    found = Talk(Repository(MemoryEventStore(memory), MemorySnapshots(memory)), tenant)
    found.id = talk.id
    await found.grow(1)
    assert await MemorySnapshots(memory).get(talk.subject) is not None


async def test_tenants_are_apart(repository: Repository, tenant: str) -> None:
    id = new_id()
    await repository.change(Dataset, id, caused(tenant), make(id))
    assert await repository.get(Dataset, "other", id) is None


async def test_kinds_are_apart(repository: Repository, tenant: str) -> None:
    id = new_id()
    await repository.change(Dataset, id, caused(tenant), make(id))
    kind: type[Aggregate] = Conversation
    assert await repository.get(kind, tenant, id) is None


class Counting(MemoryEventStore):
    """Counts the commits that are read."""

    read = 0

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        commits = await super().load(subject, after=after, limit=limit)
        self.read += len(commits)
        return commits


async def test_of_what_many_processes_change_only_what_is_new_is_read(memory: Memory, tenant: str) -> None:
    limits = Definition(
        scope="tenant", subject="", unit="calls", period="day", limit=1000.0, hard=True, time_zone="UTC", rolling=0
    )
    of = window("tenant/q", limits, "", NOW)
    store = Counting(memory)
    one, other = (Repository(each, MemorySnapshots(memory)) for each in (store, MemoryEventStore(memory)))

    async def take(repository: Repository, lease: str, needed: int = 1) -> QuotaWindow:
        def decide(known: QuotaWindow | None) -> QuotaWindow:
            known = known or QuotaWindow.open(NOW, of)
            known.grant(NOW, lease, needed, needed, 1000, NOW)
            return known

        return (await repository.change(QuotaWindow, of.id, caused(tenant), decide)).aggregate

    for number in range(40):
        await take(other, f"other {number}")
    await take(one, "first")
    store.read = 0
    for number in range(3):
        await take(other, f"more {number}")
    assert len((await take(one, "second")).leases) == 45
    assert 3 <= store.read <= 9  # the store reads them too, to tell a conflict from what was discarded
    await take(other, "last")
    store.read = 0
    for _ in range(2):
        refused = await take(one, "large", 1000)
        assert "large" not in refused.leases
        assert "last" in refused.leases
    assert store.read <= 3
