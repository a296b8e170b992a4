"""The contract of EventStore."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import orjson
import pytest
from nats.aio.client import Client

from adapters.jetstream import codec
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.size import size_of
from adapters.jetstream.store import LARGEST_VALUES, JetStreamEventStore
from adapters.jetstream.streams import set_up
from adapters.privacy.vault import AesVault
from domain.aggregate import Event, new_id
from domain.chat.app import App, features, settings
from domain.chat.conversation import Conversation
from domain.log import EVENTS, Commit, Metadata, Position, Subject
from handlers.ports.log import Conflict, EventStore, TooLarge, Unavailable
from ops.servers.embedded import EmbeddedNats
from tests.golden import make
from tests.memory import Memory, MemoryEventStore

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)


@pytest.fixture
def store(place: Memory | Client) -> EventStore:
    return MemoryEventStore(place) if isinstance(place, Memory) else JetStreamEventStore(place)


@pytest.fixture
def subject(tenant: str) -> Subject:
    return Subject(tenant, "app", new_id())


def created(subject: Subject, name: str = "Guide") -> App:
    return App.begin(App.Created, subject.id, NOW, name=name, description="")


def configured(app: App, prompt: str, datasets: Sequence[str] = ()) -> list[Event]:
    app.configure(
        NOW,
        model={"provider": "builtin", "name": "extractive", "max_tokens": 1, "context_window": 256, "parameters": {}},
        prompt=prompt,
        variables=[],
        datasets=list(datasets),
        retrieval=settings({"mode": "hybrid", "top_k": 4, "score_threshold": None}),
        features=features({}),
    )
    return app.pending()


def caused(subject: Subject, id: str | None = None) -> Metadata:
    return Metadata(id or new_id(), subject.tenant, correlation=new_id(), causation=new_id(), actor="ada")


async def whole(store: EventStore, subject: Subject, *, after: int = 0) -> list[Commit]:
    """All of it, though a server of several may lag."""
    commits = await store.load(subject, after=after)
    return [*commits, *await store.load_from_leader(subject, after=commits[-1].position.sequence if commits else after)]


async def limited(store: EventStore, subject: Subject, limit: int, *, after: int = 0) -> list[Commit]:
    """Return the first `limit` commits, once a server that may lag has heard of them."""
    while len(commits := await store.load(subject, after=after, limit=limit)) < limit:
        assert len(await whole(store, subject, after=after)) >= limit
    return commits


async def test_an_aggregate_without_commits_is_empty(store: EventStore, subject: Subject) -> None:
    assert await whole(store, subject) == []


async def test_a_commit_is_loaded_as_it_was_appended(store: EventStore, subject: Subject) -> None:
    app = created(subject, "Führung 水门 هويس")
    configured_events = [*app.pending(), *configured(app, "Be brief.")]
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    metadata = Metadata(new_id(), subject.tenant, new_id(), new_id(), "Jürgen", trace)
    before = datetime.now(UTC) - timedelta(seconds=1)
    position = await store.append(subject, configured_events, metadata, 0)
    [commit] = await whole(store, subject)
    assert commit.events == configured_events
    assert commit.metadata == metadata
    assert (commit.subject, commit.position) == (subject, position)
    assert position.stream == EVENTS
    assert before < commit.at < datetime.now(UTC) + timedelta(seconds=1)


async def test_commits_are_loaded_in_order_after_and_limited(store: EventStore, subject: Subject) -> None:
    app = created(subject)
    positions = [await store.append(subject, app.pending(), caused(subject), 0)]
    for number in range(4):
        positions.append(
            await store.append(subject, configured(app, f"{number}"), caused(subject), positions[-1].sequence)
        )
    assert [commit.position for commit in await whole(store, subject)] == positions
    assert [commit.position for commit in await whole(store, subject, after=positions[2].sequence)] == positions[3:]
    assert [commit.position for commit in await limited(store, subject, 2)] == positions[:2]
    third = await limited(store, subject, 1, after=positions[1].sequence)
    assert [commit.position for commit in third] == [positions[2]]
    assert await whole(store, subject, after=positions[-1].sequence) == []


async def test_the_ends_are_those_of_aggregates_with_commits(store: EventStore, subject: Subject) -> None:
    other, none = subject._replace(id=new_id()), subject._replace(id=new_id())
    for each in (subject, other):
        await store.append(each, created(each).pending(), caused(each), 0)
    ends, through = await store.ends([subject, none, other])
    assert list(ends) == [subject, other]
    for each in (subject, other):
        assert [commit.position.sequence for commit in await whole(store, each)] == [ends[each]]
    assert through >= ends[subject]
    later, _ = await store.ends([subject, none, other], after=ends[subject])
    assert {other: ends[other]}.items() <= later.items() <= ends.items()


async def test_a_wrong_expectation_is_a_conflict(store: EventStore, subject: Subject) -> None:
    app = created(subject)
    first = await store.append(subject, app.pending(), caused(subject), 0)
    events = configured(app, "Be brief.")
    for wrong in (0, first.sequence - 1, first.sequence + 1):
        with pytest.raises(Conflict):
            await store.append(subject, events, caused(subject), wrong)
    assert len(await whole(store, subject)) == 1


async def test_the_first_commit_of_an_aggregate_expects_none(store: EventStore, subject: Subject) -> None:
    with pytest.raises(Conflict):
        await store.append(subject, created(subject).pending(), caused(subject), 7)
    assert await whole(store, subject) == []


async def test_the_same_commit_again_is_a_success(store: EventStore, subject: Subject) -> None:
    app, metadata = created(subject), caused(subject)
    events = app.pending()
    first = await store.append(subject, events, metadata, 0)
    assert await store.append(subject, events, metadata, 0) == first
    assert await store.append(subject, events, metadata, first.sequence) == first
    assert len(await whole(store, subject)) == 1


async def test_a_commit_that_others_followed_is_a_conflict(store: EventStore, subject: Subject) -> None:
    app, metadata = created(subject), caused(subject)
    events = app.pending()
    first = await store.append(subject, events, metadata, 0)
    await store.append(subject, configured(app, "Be brief."), caused(subject), first.sequence)
    with pytest.raises(Conflict):
        await store.append(subject, events, metadata, 0)


async def test_of_twenty_racers_one_wins(store: EventStore, subject: Subject) -> None:
    async def race(number: int) -> Position | Conflict:
        try:
            return await store.append(subject, created(subject, f"{number}").pending(), caused(subject), 0)
        except Conflict as conflict:
            return conflict

    results = await asyncio.gather(*(race(number) for number in range(20)))
    [won] = [result for result in results if isinstance(result, Position)]
    [commit] = await whole(store, subject)
    assert commit.position == won


async def test_twenty_racers_with_the_same_commit_all_win(store: EventStore, subject: Subject) -> None:
    """A racer that meets the commit while it is on its way may have to try again."""
    metadata, events = caused(subject), created(subject).pending()

    async def race() -> Position:
        while True:
            with suppress(Conflict):
                return await store.append(subject, events, metadata, 0)

    positions = await asyncio.gather(*(race() for _ in range(20)))
    assert len(set(positions)) == 1
    assert len(await whole(store, subject)) == 1


async def test_a_commit_whose_acknowledgement_was_lost_is_found(
    nc: Client, store: EventStore, subject: Subject
) -> None:
    """The message went out before, and its acknowledgement was lost."""
    metadata, events = caused(subject), created(subject).pending()
    body, headers = codec.encode_commit(events, metadata)
    await nc.publish(str(subject), body, headers=headers)
    await nc.flush()
    position = await store.append(subject, events, metadata, 0)
    [commit] = await whole(store, subject)
    assert commit.position == position
    assert commit.events == events


async def test_a_connection_that_ends_while_it_appends_loses_nothing(
    nc: Client, store: EventStore, subject: Subject
) -> None:
    """However far the append came, doing it again on another connection makes it one commit."""
    metadata, events = caused(subject), created(subject).pending()
    for delay in (0.0, 0.0005, 0.001, 0.002):
        breaking = await nats.connect(nc.servers[0].geturl(), allow_reconnect=False)
        append = asyncio.create_task(JetStreamEventStore(breaking, timeout_s=0.2).append(subject, events, metadata, 0))
        await asyncio.sleep(delay)
        await breaking.close()
        [outcome] = await asyncio.gather(append, return_exceptions=True)
        assert isinstance(outcome, Position | Unavailable), outcome
    position = await store.append(subject, events, metadata, 0)
    assert [commit.position for commit in await whole(store, subject)] == [position]


async def test_a_server_that_is_away_is_unavailable(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> None:
    async def quiet(error: Exception) -> None: ...

    async with EmbeddedNats(tmp_path_factory.mktemp("away")) as server:
        nc = await nats.connect(server.url, error_cb=quiet, reconnect_time_wait=0.05)
        store = JetStreamEventStore(nc, timeout_s=0.3)
        await server.stop()
        with pytest.raises(Unavailable):
            await store.append(subject, created(subject).pending(), caused(subject), 0)
        with pytest.raises(Unavailable):
            await whole(store, subject)
        with suppress(ConnectionError):
            await nc.close()


async def test_streams_that_were_never_made_are_unavailable(
    subject: Subject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with EmbeddedNats(tmp_path_factory.mktemp("bare")) as server:
        nc = await nats.connect(server.url)
        store = JetStreamEventStore(nc, timeout_s=0.3)
        with pytest.raises(Unavailable):
            await store.append(subject, created(subject).pending(), caused(subject), 0)
        with pytest.raises(Unavailable):
            await whole(store, subject)
        await nc.close()


async def test_thousands_of_commits_are_loaded_in_order(store: EventStore, subject: Subject) -> None:
    app = created(subject)
    expected = (await store.append(subject, app.pending(), caused(subject), 0)).sequence
    noise = Subject(subject.tenant, "app", new_id())
    await store.append(noise, created(noise).pending(), caused(noise), 0)
    for number in range(2499):
        expected = (await store.append(subject, configured(app, f"{number}"), caused(subject), expected)).sequence
    commits = await whole(store, subject)
    assert [commit.events[0].originator_version for commit in commits] == list(range(1, 2501))
    sequences = [commit.position.sequence for commit in commits]
    assert sequences == sorted(set(sequences))
    assert len(await limited(store, subject, 1001)) == 1001
    assert len(await limited(store, subject, 2500)) == 2500
    assert await store.load_from_leader(subject, after=sequences[-1]) == []


async def test_loads_at_once_do_not_mix(store: EventStore, tenant: str) -> None:
    subjects = [Subject(tenant, "app", new_id()) for _ in range(50)]
    for subject in subjects:
        await store.append(subject, created(subject, subject.id).pending(), caused(subject), 0)
    loaded = await asyncio.gather(*(whole(store, subject) for subject in subjects))
    assert [[commit.subject for commit in commits] for commits in loaded] == [[subject] for subject in subjects]


async def test_tenants_are_apart(store: EventStore) -> None:
    """Also where both use the same ids."""
    id = new_id()
    ours, theirs = Subject("ours", "app", id), Subject("theirs", "app", id)
    first = await store.append(ours, created(ours, "Ours").pending(), caused(ours), 0)
    assert await whole(store, theirs) == []
    second = await store.append(theirs, created(theirs, "Theirs").pending(), caused(theirs), 0)
    assert second.sequence > first.sequence
    assert [event.name for [found] in [await whole(store, theirs)] for event in found.events] == ["Theirs"]  # type: ignore[attr-defined]
    assert [found.position for found in await whole(store, ours)] == [first]


async def test_an_id_of_another_aggregates_commit_is_not_mistaken_for_success(store: EventStore, tenant: str) -> None:
    """The stream drops what has the id of an earlier message; the caller must not believe that it was stored."""
    first, other = Subject(tenant, "app", new_id()), Subject(tenant, "app", new_id())
    metadata = caused(first)
    await store.append(first, created(first).pending(), metadata, 0)
    with pytest.raises(Unavailable):
        await store.append(other, created(other).pending(), metadata, 0)
    assert await whole(store, other) == []


async def test_a_commit_has_as_many_bytes_as_fit_and_not_one_more(store: EventStore, subject: Subject) -> None:
    metadata = caused(subject)
    body, headers = codec.encode_commit(configured(created(subject), "", [""]), metadata)
    room = store.largest - size_of(body, {**headers, "Nats-Expected-Last-Subject-Sequence": "0"})
    with pytest.raises(TooLarge) as caught:
        await store.append(subject, configured(created(subject), "", texts(room + 1)), metadata, 0)
    assert (caught.value.size, caught.value.limit) == (store.largest + 1, store.largest)
    assert f"{store.largest:,}" in str(caught.value)
    assert await whole(store, subject) == []
    events = configured(created(subject), "", texts(room))
    position = await store.append(subject, events, metadata, 0)
    [commit] = await whole(store, subject)
    assert (commit.position, commit.events) == (position, events)


async def test_the_headers_count(store: EventStore, subject: Subject) -> None:
    """The client looks at the body alone, and the server ends the connection over what is larger."""
    long = Metadata(new_id(), subject.tenant, "c" * 40_000, new_id(), "ada")
    with pytest.raises(TooLarge):
        await store.append(subject, configured(created(subject), "", texts(store.largest - 40_000)), long, 0)


def texts(size: int) -> list[str]:
    """Short texts, with the quotes and commas of JSON of this size, of which one empty text is part already."""
    lengths = [997] * (size // 1000 - 1)
    return [*("x" * length for length in lengths), "x" * (size - 1000 * len(lengths))]


# --- large values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [codec.LARGE, codec.LARGE + 1, 5 * 2**20])
async def test_a_text_of_any_size_is_read_as_it_was_written(store: EventStore, subject: Subject, size: int) -> None:
    events = configured(created(subject), "é" + "x" * (size - 2), ["~a/b", "short"])
    await store.append(subject, events, caused(subject), 0)
    [commit] = await whole(store, subject)
    assert commit.events == events


async def test_a_text_may_be_larger_than_a_message(nc: Client, store: EventStore, subject: Subject) -> None:
    events = configured(created(subject), "x" * (nc.max_payload + 1))
    await store.append(subject, events, caused(subject), 0)
    [commit] = await whole(store, subject)
    assert commit.events == events


async def test_only_values_above_16_kib_are_blobs(nc: Client, store: EventStore, subject: Subject) -> None:
    js, blobs = nc.jetstream(), JetStreamBlobs(nc)
    short, long = "x" * codec.LARGE, "é" * (codec.LARGE // 2) + "x"
    await store.append(subject, configured(created(subject, short), long), caused(subject), 0)
    message = await js.get_last_msg(EVENTS, str(subject))
    [first, second] = orjson.loads(message.data or b"")
    digest = hashlib.sha256(long.encode()).hexdigest()
    assert (first["state"]["name"], "blobs" in first) == (short, False)
    assert (second["state"]["prompt"], second["blobs"]) == ({"blob": digest, "bytes": codec.LARGE + 1}, ["/prompt"])
    assert (message.headers or {})["Headrace-Schema"] == "2"
    assert await blobs.get(subject.tenant, digest) == long.encode()


async def test_a_value_that_looks_like_a_reference_is_none(nc: Client, subject: Subject) -> None:
    secret = await JetStreamBlobs(nc).put(subject.tenant, b"a file of another user")
    call = {"blob": secret, "bytes": 22}
    event = Conversation.Asked
    asked = Conversation.begin(Conversation.Started, subject.id, NOW, app="a", user="ada", name="x")
    asked.ask(NOW, message="m", app="a", configuration=1, query="q", inputs=call, user="ada")  # type: ignore[arg-type]
    store = JetStreamEventStore(nc)
    await store.append(subject, asked.pending(), caused(subject), 0)
    [commit] = await whole(store, subject)
    [found] = [each.inputs for each in commit.events if isinstance(each, event)]
    assert found == call


async def test_words_of_a_person_are_a_sealed_blob_that_is_named_alike_when_it_is_written_again(
    nc: Client, subject: Subject
) -> None:
    keys = JetStreamKeys(nc, AesVault(bytes(32)))
    store, person = JetStreamEventStore(nc, keys), await keys.person(subject.tenant, "ada")
    name = "a secret name " * 2000

    async def start(id: str) -> dict[str, Any]:
        conversation = Subject(subject.tenant, "conversation", id)
        started = Conversation.begin(Conversation.Started, id, NOW, app="a", user="ada", name=name)
        metadata = Metadata(new_id(), subject.tenant, new_id(), person=person)
        await store.append(conversation, started.pending(), metadata, 0)
        [commit] = await whole(store, conversation)
        assert vars(commit.events[0])["name"] == name
        [stored] = orjson.loads((await nc.jetstream().get_last_msg(EVENTS, str(conversation))).data or b"")
        assert (stored["state"]["name"], "blobs" in stored) == ("", False)
        return dict(stored["sealed"])

    first, second = await start("one"), await start("two")
    assert first == second
    sealed = await JetStreamBlobs(nc).get(subject.tenant, first["blob"])
    assert len(sealed) == first["bytes"]
    assert b"secret" not in sealed
    await keys.erase(subject.tenant, person)
    [commit] = await whole(JetStreamEventStore(nc, keys), Subject(subject.tenant, "conversation", "one"))
    assert vars(commit.events[0])["name"] == ""


async def test_a_missing_or_changed_value_is_waited_for(nc: Client, store: EventStore, subject: Subject) -> None:
    blobs, long = JetStreamBlobs(nc), "x" * 20_000
    digest = hashlib.sha256(long.encode()).hexdigest()
    await store.append(subject, configured(created(subject), long), caused(subject), 0)
    await blobs.write(subject.tenant, digest, b"other bytes")
    await missed(store, subject)
    await blobs.remove([it async for some in blobs.all() for it in some if it.digest == digest])
    await missed(store, subject)
    await blobs.put(subject.tenant, long.encode())
    assert len(await whole(store, subject)) == 1


async def missed(store: EventStore, subject: Subject) -> None:
    """Wait until the commits cannot be loaded: every server of a cluster has heard that the blob changed."""
    async with asyncio.timeout(10):
        with suppress(codec.MissingBlob):
            while await whole(store, subject):
                await asyncio.sleep(0.05)


async def test_values_that_no_reader_could_hold_are_too_large(store: EventStore, subject: Subject) -> None:
    with pytest.raises(TooLarge) as caught:
        await store.append(subject, created(subject, "x" * (LARGEST_VALUES + 1)).pending(), caused(subject), 0)
    assert caught.value.size == LARGEST_VALUES + 1
    assert await whole(store, subject) == []


def swollen(value: Any, text: str) -> Iterator[Any]:
    """The value with the text in the place of each text in it, one at a time."""
    if isinstance(value, str):
        yield text
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: each} for each in swollen(inner, text))
    elif isinstance(value, list) and value:
        yield from ([each, *value[1:]] for each in swollen(value[0], text))


@pytest.mark.parametrize("topic", sorted(topic for topic, kind in codec.event_types().items() if topic == kind.TOPIC))
async def test_any_text_of_an_event_may_be_large(store: EventStore, subject: Subject, topic: str) -> None:
    stored = orjson.loads(make.path(topic).read_bytes())
    text, expected = "x" * (codec.LARGE + 1), 0
    fields = {name: value for name, value in stored["state"].items() if name not in ("timestamp", "originator_topic")}
    for name, value in fields.items():
        for large in swollen(value, text):
            state = {**stored["state"], name: large}
            event = codec._decode_event(subject.id, {**stored, "state": state})
            expected = (await store.append(subject, [event], caused(subject), expected)).sequence
            [*_, commit] = await whole(store, subject)
            assert [vars(found) for found in commit.events] == [vars(event)]


async def test_a_stream_that_takes_less_is_no_outage(
    subject: Subject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with EmbeddedNats(tmp_path_factory.mktemp("narrow")) as server:
        nc = await nats.connect(server.url)
        js = nc.jetstream()
        await set_up(js)
        await js.update_stream((await js.stream_info(EVENTS)).config.evolve(max_msg_size=2000))
        store = JetStreamEventStore(nc)
        with pytest.raises(TooLarge) as caught:
            await store.append(subject, created(subject, "x" * 2000).pending(), caused(subject), 0)
        assert (caught.value.limit, caught.value.size > 2000) == (2000, True)
        await store.append(subject, created(subject).pending(), caused(subject), 0)
        await nc.close()


@pytest.fixture(autouse=True)
async def nothing_is_lost(place: Memory | Client) -> AsyncIterator[None]:
    """The log has no gap, whatever was tried."""
    yield
    if isinstance(place, Client):
        state = (await place.jetstream().stream_info(EVENTS)).state
        assert state.messages == state.last_seq
