"""Three servers, some of which die, sleep, or lose sight of the others: nothing is lost, doubled or seen wrongly."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import nats
import orjson
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerInfo

from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import BLOBS, COMMANDS, CONSUMERS, SNAPSHOTS, STREAMS, set_up
from adapters.jetstream.workers.commands import subscribe_commands
from adapters.jetstream.workers.consumers import Consumers
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.log import EVENTS, OUTCOMES, Commit, Metadata, Outcome, Position, Recorded, Subject
from handlers.ports.log import Unavailable
from handlers.repository import Repository
from tests.handlers.desk import Desk
from tests.nats_cluster import NatsCluster, Node, once_there

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    async with NatsCluster(folder, cuttable=True) as cluster, connected(*cluster.nodes) as nc:
        await once_there(lambda: set_up(nc.jetstream(timeout=15), replicas=3))
        yield cluster
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
async def whole(cluster: NatsCluster) -> None:
    """All three run and see each other."""
    await cluster.ready()


@asynccontextmanager
async def connected(*nodes: Node) -> AsyncIterator[Client]:
    async def quiet(error: Exception) -> None: ...

    nc = await nats.connect(
        [node.url for node in nodes],
        error_cb=quiet,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        ping_interval=1,
        dont_randomize=True,
    )
    yield nc
    await nc.close()


async def bystanders(cluster: NatsCluster) -> list[Node]:
    """Those who lead neither stream of the log, and then the others."""
    leaders = {await cluster.leader(stream) for stream in (EVENTS, OUTCOMES)}
    return [node for _, node in sorted(enumerate(cluster.nodes), key=lambda place: place[0] in leaders)]


# --- what is there --------------------------------------------------------------------------------------------


async def test_everything_is_kept_three_times(cluster: NatsCluster) -> None:
    async with connected(*cluster.nodes) as nc:
        js = nc.jetstream()
        for stream in [*(str(it.name) for it in STREAMS), f"OBJ_{BLOBS}", f"KV_{SNAPSHOTS}"]:
            info = await js.stream_info(stream)
            assert info.config.num_replicas == 3
            assert info.cluster is not None
            assert len(info.cluster.replicas or []) == 2
        for consumer, (stream, _) in CONSUMERS.items():
            place = (await js.consumer_info(stream, consumer)).cluster
            assert place is not None
            assert len(place.replicas or []) == 2


# --- reads that lag -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [12, pytest.param(200, marks=pytest.mark.long)])
async def test_what_is_acknowledged_is_seen_at_once_by_everyone(cluster: NatsCluster, tenant: str, turns: int) -> None:
    """By way of another server each time, which may not have heard of it."""
    async with AsyncExitStack() as stack:
        ncs = [await stack.enter_async_context(connected(node)) for node in cluster.nodes]
        desks = [Desk(nc, tenant) for nc in ncs]

        async def live(number: int) -> None:
            for turn in range(turns):
                makes, names, takes = (desks[(number + turn + step) % 3] for step in range(3))
                dataset = await makes.done("dataset.create", name="Rules")
                digest = await names.blobs.put(tenant, f"{number} {turn}".encode())
                document = await takes.send("document.upload", dataset=dataset, name="a.txt", digest=digest)
                assert document.status == "accepted", document
                await names.done("document.delete", document=document.command)
                assert await takes.fails("document.retry", document=document.command) == ("not_found", "document")
                assert await makes.outcomes.get(tenant, document.command) == document
                assert await makes.blobs.get(tenant, digest) == f"{number} {turn}".encode()

        await asyncio.gather(*(live(number) for number in range(6)))


async def test_what_one_server_does_not_know_yet_is_not_refused(cluster: NatsCluster, tenant: str) -> None:
    """It is cut off from the others, and what it sees is the past."""
    lost, other, _ = await bystanders(cluster)
    async with connected(lost) as nc, connected(other) as elsewhere:
        store = JetStreamEventStore(nc, timeout_s=1)
        blind = Repository(store, JetStreamSnapshots(nc))
        desk = Desk(elsewhere, tenant)
        await desk.done("dataset.create", name="Others")  # reads the keys, which the lost server may lead
        lost.cut(from_clients=False)
        try:
            dataset = await desk.done("dataset.create", name="Rules")
            with pytest.raises(Unavailable):
                await blind.get(Dataset, tenant, dataset)
            with pytest.raises(Unavailable):
                await blind.done(Dataset, dataset, Metadata(new_id(), tenant, new_id()))

            def refuse(known: Dataset | None) -> Dataset:
                assert known is not None, "believed"
                return known

            with pytest.raises(Unavailable):
                await blind.change(Dataset, dataset, Metadata(new_id(), tenant, new_id()), refuse)
            with pytest.raises(Unavailable):
                await JetStreamOutcomes(nc, timeout_s=1).get(tenant, dataset)
        finally:
            lost.mend()
        await cluster.ready()
        assert await once_there(partial(blind.get, Dataset, tenant, dataset)) is not None


async def test_commits_that_a_server_has_not_heard_of_are_read_from_the_leader(
    cluster: NatsCluster, tenant: str
) -> None:
    lost, other, _ = await bystanders(cluster)
    async with connected(lost) as nc, connected(other) as elsewhere:
        talk = Talk(Repository(JetStreamEventStore(elsewhere), JetStreamSnapshots(elsewhere)), tenant, new_id())
        await talk.say()
        store = JetStreamEventStore(nc)
        begun = await store.load(talk.subject)
        await talk.say()
        await talk.say()
        rest = await store.load_from_leader(talk.subject, after=begun[-1].position.sequence)
        assert [*begun, *rest] == await JetStreamEventStore(elsewhere).load(talk.subject)
        assert [commit.metadata.id for commit in [*begun, *rest]] == list(talk.said)


async def test_a_leader_that_the_others_do_not_hear_is_not_believed(cluster: NatsCluster, tenant: str) -> None:
    """It leads for some seconds more, while the others may elect another."""
    lost = cluster.nodes[await cluster.leader(EVENTS)]
    async with connected(lost) as nc:
        store = JetStreamEventStore(nc)

        async def insist() -> None:
            while True:
                assert await store.load_from_leader(Subject(tenant, "dataset", new_id()), after=0) == []
                await asyncio.sleep(0.05)

        lost.cut(from_clients=False)
        try:
            with pytest.raises(Unavailable, match="has not heard from the others"):
                await insist()
        finally:
            lost.mend()


async def test_a_server_that_sleeps_does_not_keep_readers_waiting_for_good(cluster: NatsCluster, tenant: str) -> None:
    """The others go on giving it requests until they notice."""
    asleep, one, two = await bystanders(cluster)
    async with connected(one) as nc, connected(two) as elsewhere:
        made = [Talk(Desk(nc, tenant).repository, tenant, new_id()) for _ in range(20)]
        await asyncio.gather(*(talk.say() for talk in made))
        asleep.pause()
        try:
            for via in (nc, elsewhere):
                loads = [JetStreamEventStore(via, timeout_s=30).load(talk.subject) for talk in made]
                assert [len(commits) for commits in await asyncio.gather(*loads)] == [1] * 20
        finally:
            asleep.resume()


# --- commands that come again ---------------------------------------------------------------------------------


async def test_a_command_that_comes_again_is_known_though_other_servers_were_restarted(
    cluster: NatsCluster, tenant: str
) -> None:
    """COMMANDS has forgotten its id, the worker noticed nothing, and the command would be accepted by now."""
    near, *others = cluster.nodes
    async with connected(near) as nc, dispatching(near, nc, tenant):
        js, outcomes = nc.jetstream(timeout=20), JetStreamOutcomes(nc, timeout_s=20)

        async def send(name: str, payload: bytes, id: str) -> Outcome | None:
            waiting: int | None = None
            async with asyncio.timeout(120):
                while waiting is None:
                    with suppress(nats.errors.Error):  # leaders change
                        await js.publish(f"cmd.{tenant}.anon.{name}", payload, headers={"Headrace-Id": id})
                        waiting = 1
                while waiting or await once_there(partial(outcomes.get, tenant, id)) is None:
                    with suppress(nats.errors.Error):
                        waiting = (await js.stream_info(COMMANDS)).state.messages
            return await once_there(partial(outcomes.get, tenant, id))

        await send("app.create", b'{"name": "First"}', new_id())
        id, app = new_id(), new_id()
        configure = orjson.dumps({"app": app, "model": {"provider": "builtin", "name": "extractive"}})
        first = await send("app.configure", configure, id)
        assert first is not None
        assert (first.status, first.code) == ("rejected", "not_found")
        await send("app.create", b'{"name": "Guide"}', app)
        for node in others:
            await node.stop()
            node.start()
            await cluster.ready()
        while cluster.nodes[await cluster.leader(COMMANDS)] is near:
            await once_there(partial(nc.request, f"$JS.API.STREAM.LEADER.STEPDOWN.{COMMANDS}", b"", timeout=5))
        assert await send("app.configure", configure, id) == first
        assert len(await once_there(partial(Desk(nc, tenant).commits, "app", app))) == 1


@asynccontextmanager
async def dispatching(node: Node, nc: Client, tenant: str) -> AsyncIterator[None]:
    """A worker that takes commands."""
    desk = Desk(nc, tenant)

    async def begin() -> Consumers:
        consumers = Consumers(node.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, ping_interval=1)
        subscribe_commands(consumers, desk.dispatch, desk.repository)
        try:
            await consumers.start()
        except BaseException:
            await consumers.stop()
            raise
        return consumers

    consumers = await once_there(begin)
    yield
    await consumers.stop()


# --- a storm --------------------------------------------------------------------------------------------------


@dataclass
class Talk:
    """A conversation that someone goes on with, until each change is acknowledged."""

    repository: Repository
    tenant: str
    id: str
    said: dict[str, Position] = field(default_factory=dict)

    async def say(self) -> None:
        id = new_id()
        metadata = Metadata(id, self.tenant, new_id())

        def decide(talk: Conversation | None) -> Conversation:
            talk = talk or Conversation.begin(Conversation.Started, self.id, NOW, app=self.id, user="ada", name="Talk")
            talk.ask(NOW, message=id, app=self.id, configuration=1, query=id, inputs={}, user="ada")
            talk.stopped(NOW, message=id, answer=id)
            return talk

        while id not in self.said:
            try:
                self.said[id] = (await self.repository.change(Conversation, self.id, metadata, decide)).position
            except Unavailable:
                await asyncio.sleep(0.05)

    @property
    def subject(self) -> Subject:
        return Subject(self.tenant, "conversation", self.id)


@pytest.mark.long
async def test_a_storm_loses_nothing_and_doubles_nothing(cluster: NatsCluster, tenant: str) -> None:
    """Writers on conversations that they share and on some of their own, and one who follows the log, while the leader
    is killed, the server that serves the follower is killed, and the leader is cut off."""
    over = asyncio.Event()
    followed: list[Commit] = []
    async with AsyncExitStack() as stack:
        ncs = [
            await stack.enter_async_context(connected(*cluster.nodes[number % 3 :], *cluster.nodes[: number % 3]))
            for number in range(7)
        ]
        shared = new_id(), new_id()
        talks = [
            Talk(Repository(JetStreamEventStore(nc, timeout_s=2), JetStreamSnapshots(nc)), tenant, id)
            for number, nc in enumerate(ncs[:6])
            for id in (shared[number % 2], new_id())
        ]
        log = JetStreamLog(ncs[6])
        begin = await once_there(partial(log.last, EVENTS))

        async def speak(talk: Talk) -> None:
            while not over.is_set():
                await talk.say()
                await asyncio.sleep(random.uniform(0, 0.05))

        speaking = [asyncio.create_task(speak(talk)) for talk in talks]
        following = asyncio.create_task(follow(ncs[6], begin, followed))
        try:
            for blow in (leader_dies, reader_dies, leader_is_cut_off):
                await progress(talks)
                await blow(cluster)
                await progress(talks)
        finally:
            over.set()
            await asyncio.gather(*speaking)
        last = await once_there(partial(log.last, EVENTS))
        async with asyncio.timeout(120):
            while not followed or followed[-1].position.sequence < last:
                await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

        async def all_since() -> list[Recorded]:
            return [commit async for batch in log.read(EVENTS, begin, follow=False) for commit in batch]

        read = await once_there(all_since)
    assert followed == read
    assert [commit.position.sequence for commit in read] == list(range(begin + 1, last + 1))
    acknowledged = {id: position for talk in talks for id, position in talk.said.items()}
    assert {commit.metadata.id: commit.position for commit in read} == acknowledged
    for talk in talks:
        events = [event for commit in read if commit.subject == talk.subject for event in commit.events]
        assert [event.originator_version for event in events] == list(range(1, len(events) + 1))


async def follow(nc: Client, after: int, seen: list[Commit]) -> None:
    while True:
        try:
            async with aclosing(JetStreamLog(nc).read(EVENTS, after)) as batches:
                async for batch in batches:
                    seen.extend(commit for commit in batch if isinstance(commit, Commit))
                    after = batch[-1].position.sequence
        except Unavailable:
            await asyncio.sleep(0.05)


async def progress(talks: list[Talk]) -> None:
    """Until everyone has been heard since."""
    before = [len(talk.said) for talk in talks]
    async with asyncio.timeout(120):
        while any(len(talk.said) < count + 3 for talk, count in zip(talks, before, strict=True)):
            await asyncio.sleep(0.02)


async def leader_dies(cluster: NatsCluster) -> None:
    await dies(cluster, cluster.nodes[await cluster.leader(EVENTS)])


async def reader_dies(cluster: NatsCluster) -> None:
    """Kill the leader of the follower's consumer."""
    async with connected(*cluster.nodes) as nc:
        js = nc.jetstream()
        readers: list[ConsumerInfo] = []
        async with asyncio.timeout(120):
            while len(readers) != 1:  # it may be asking for a new one just now
                readers = [it for it in await once_there(partial(js.consumers_info, EVENTS)) if it.push_bound]
        [reader] = readers
    assert reader.cluster is not None
    [node] = [node for node in cluster.nodes if node.name == reader.cluster.leader]
    await dies(cluster, node)


async def dies(cluster: NatsCluster, node: Node) -> None:
    node.kill()
    await cluster.leader(EVENTS)
    node.start()
    await cluster.ready()


async def leader_is_cut_off(cluster: NatsCluster) -> None:
    node = cluster.nodes[await cluster.leader(EVENTS)]
    node.cut()
    await cluster.leader(EVENTS)
    node.mend()
    await cluster.ready()


# --- no leader -----------------------------------------------------------------------------------------------


async def test_without_a_majority_everything_waits_and_nothing_is_lost(cluster: NatsCluster, tenant: str) -> None:
    left, one, two = await bystanders(cluster)
    async with connected(left) as nc:
        store = JetStreamEventStore(nc, timeout_s=1)
        talk = Talk(Repository(store, JetStreamSnapshots(nc)), tenant, new_id())
        await talk.say()
        one.kill()
        two.kill()
        speaking = asyncio.create_task(talk.say())
        with pytest.raises(Unavailable):
            await JetStreamOutcomes(nc, timeout_s=1).get(tenant, new_id())
        with pytest.raises(Unavailable):
            await talk.repository.get(Conversation, tenant, new_id())
        assert not speaking.done()
        one.start()
        two.start()
        await cluster.ready()
        await asyncio.wait_for(speaking, 120)
        commits = await once_there(partial(store.load, talk.subject))
        assert {commit.metadata.id: commit.position for commit in commits} == talk.said
