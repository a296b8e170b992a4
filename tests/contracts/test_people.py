"""The contract of People."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.store import JetStreamEventStore
from adapters.privacy.packed import pack
from adapters.privacy.vault import AesVault
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.log import Metadata, Subject
from handlers.ports.log import EventStore
from handlers.ports.people import Erased, People
from tests.domain.scenario import NOW
from tests.memory import Memory, MemoryEventStore, MemoryKeys


def keys_of(place: Memory | Client) -> MemoryKeys | JetStreamKeys:
    """Those of a process of its own."""
    return MemoryKeys(place) if isinstance(place, Memory) else JetStreamKeys(place, AesVault(bytes(32)))


def store_of(place: Memory | Client) -> EventStore:
    keys = keys_of(place)
    if isinstance(place, Memory):
        assert isinstance(keys, MemoryKeys)
        return MemoryEventStore(place, keys)
    assert isinstance(keys, JetStreamKeys)
    return JetStreamEventStore(place, keys)


@pytest.fixture
def people(place: Memory | Client) -> People:
    return keys_of(place)


async def test_who_goes_by_a_name_stays_the_same_person(place: Memory | Client, people: People, tenant: str) -> None:
    ada = await people.person(tenant, "ada")
    assert await people.person(tenant, "ada") == ada
    assert await keys_of(place).person(tenant, "ada") == ada
    assert await people.person(tenant, "eve") != ada
    assert await people.last_person(tenant, "ada") == (ada, True)


async def test_a_name_without_a_person(people: People, tenant: str) -> None:
    person, known = await people.last_person(tenant, "ada")
    assert not known
    assert await people.person(tenant, "ada") == person


async def test_after_an_erasure_the_name_is_another_person_s(people: People, tenant: str) -> None:
    first = await people.person(tenant, "ada")
    for _ in range(2):
        await people.erase(tenant, first)
    assert await people.last_person(tenant, "ada") == (first, True)
    second = await people.person(tenant, "ada")
    assert second != first
    await people.erase(tenant, second)
    assert await people.person(tenant, "ada") not in (first, second)


async def test_an_erasure_is_of_one_tenant(people: People, tenant: str) -> None:
    ada = await people.person(tenant, "ada")
    await people.person(f"{tenant}x", "ada")
    await people.erase(f"{tenant}x", ada)
    assert await people.person(tenant, "ada") == ada
    assert await people.person(f"{tenant}x", "ada") != ada


async def test_bytes_are_sealed_for_a_person_until_the_erasure(
    place: Memory | Client, people: People, tenant: str
) -> None:
    ada, eve = await people.person(tenant, "ada"), await people.person(tenant, "eve")
    sealed = await people.seal(tenant, ada, "file", b"words")
    assert b"words" not in sealed
    assert await keys_of(place).seal(tenant, ada, "file", b"words") == sealed
    assert await keys_of(place).open(tenant, ada, "file", sealed) == b"words"
    for wrong in (
        (ada, "segments", sealed),
        (eve, "file", sealed),
        (ada, "file", sealed[:-1] + b"."),
        (ada, "file", b""),
    ):
        with pytest.raises(ValueError, match="changed, or belongs to another"):
            await people.open(tenant, *wrong)
    await people.erase(tenant, ada)
    with pytest.raises(Erased):
        await keys_of(place).open(tenant, ada, "file", sealed)
    with pytest.raises(Erased):
        await people.seal(tenant, ada, "file", b"words")


async def test_a_packed_file_needs_its_key(people: People) -> None:
    key, packed = pack(b"words")
    assert b"words" not in packed
    assert people.unpack(key, packed) == b"words"
    for wrong in ((pack(b"")[0], packed), (key, packed[:-1]), (key, b""), ("?", packed), ("AAAA", packed)):
        with pytest.raises(ValueError, match="does not decrypt"):
            people.unpack(*wrong)


async def test_words_of_a_person_are_read_until_the_erasure(
    place: Memory | Client, people: People, tenant: str
) -> None:
    store, subject = store_of(place), Subject(tenant, "conversation", new_id())
    person = await people.person(tenant, "ada")
    talk = Conversation.begin(Conversation.Started, subject.id, NOW, app=new_id(), user="ada", name="Locks")
    metadata = Metadata(new_id(), tenant, new_id(), person=person)
    await store.append(subject, talk.pending(), metadata, 0)

    async def names() -> list[str]:
        [commit] = await store_of(place).load(subject)
        assert commit.metadata.person == person
        return [event.name for event in commit.events if isinstance(event, Conversation.Started)]

    assert await names() == ["Locks"]
    await people.erase(tenant, person)
    assert await names() == [""]
