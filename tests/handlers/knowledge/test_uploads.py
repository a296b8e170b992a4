"""Documents that end users upload: their words and files are sealed, and go with the person."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.privacy.packed import pack
from domain.aggregate import new_id
from domain.knowledge.document import Document
from domain.log import Commit, Position
from handlers.access.erase import Erase
from handlers.commands import knowledge
from handlers.knowledge.embed import LoadedRevision
from handlers.ports.people import Erased
from tests.handlers.knowledge.test_ingest import Mill, mill
from tests.memory import Memory

__all__ = ["mill"]

WORDS = "Wumpelfisch swims at six.\nIt sleeps at dusk."
MARK = b"Wumpelfisch"


def plain(memory: Memory) -> list[object]:
    """The subjects and digests of all that the log and the store of blobs hold with the mark in plain."""
    messages = [message for stream in memory.streams.values() for message in stream.messages]
    held: list[object] = [message.subject for message in messages if MARK in message.body]
    return held + [digest for digest, data in memory.blobs.items() if MARK in data]


async def packed(mill: Mill, text: str = WORDS) -> dict[str, str]:
    key, data = pack(text.encode())
    return {"digest": await mill.desk.blobs.put(mill.desk.tenant, data), "key": key}


async def erased(mill: Mill, user: str) -> Commit:
    outcome = await mill.desk.send("end_user.erase", user=user)
    [commit] = await mill.desk.commits("end_user", outcome.ids["end_user"])
    return commit


@pytest.mark.parametrize("given", ["text", "file"])
async def test_what_a_user_uploads_is_nowhere_in_plain_and_is_indexed(mill: Mill, memory: Memory, given: str) -> None:
    mill.dataset = await mill.desk.done("dataset.create", name="Rules")
    fields: dict[str, Any] = {"text": WORDS} if given == "text" else await packed(mill)
    fields |= {"dataset": mill.dataset, "name": "Wumpelfisch.txt", "metadata": {"of": "Wumpelfisch"}, "user": "ada"}
    id = await mill.desk.done("document.upload", **fields)
    document = await mill.ingested(id)
    assert (document.status, document.name, document.person) == (
        "completed",
        "Wumpelfisch.txt",
        await mill.desk.person("ada"),
    )
    assert {commit.metadata.person for commit in await mill.desk.commits("document", id)} == {document.person}
    await mill.desk.done("document.rename", document=id, name="of the Wumpelfisch")
    await mill.desk.done("document.set_metadata", document=id, metadata={"more": "Wumpelfisch"})
    await mill.desk.done("segment.add", document=id, content="What is a Wumpelfisch?", answer="A Wumpelfisch.")
    await mill.desk.fails("document.rename", document=id, name="Wumpelfisch", colour="red")
    assert plain(memory) == []
    revision = await LoadedRevision.read(mill.desk.files, mill.desk.tenant, document.person, str(document.segments))
    assert [segment.content for segment in revision.segments] == WORDS.splitlines()
    assert [entry.content for write in mill.shelf.writes for entry in write.entries] == WORDS.splitlines()
    assert mill.cache.vectors == {}


async def test_shared_knowledge_has_no_person(mill: Mill) -> None:
    id = await mill.upload()
    assert (await mill.document(id)).person is None
    assert {commit.metadata.person for commit in await mill.desk.commits("document", id)} == {None}


async def test_the_document_goes_with_its_person(mill: Mill) -> None:
    hers, others = await mill.upload(WORDS, user="ada"), await mill.upload(WORDS, user="eve")
    await mill.ingested(hers)
    await mill.ingested(others)
    commit = await erased(mill, "ada")
    asked: list[tuple[str, str, Position]] = []

    async def uploads(tenant: str, person: str, position: Position) -> list[str]:
        asked.append((tenant, person, position))
        return [hers]

    for _ in range(2):
        await Erase(mill.desk.keys, mill.desk.repository, uploads)(commit)
    assert asked == [(mill.desk.tenant, commit.subject.id, commit.position)] * 2
    document, other = await mill.document(hers), await mill.document(others)
    assert (document.deleted, document.name, other.deleted, other.name) == (True, "", False, "rules.txt")
    assert (await mill.steps(hers))[-1] == "deleted"
    last = (await mill.desk.commits("document", hers))[-1]
    assert (last.metadata.causation, last.metadata.person) == (commit.metadata.id, document.person)
    for kind, digest in (("file", document.digest), ("segments", str(document.segments))):
        with pytest.raises(Erased):
            await mill.desk.files.get(mill.desk.tenant, document.person, kind, digest)  # type: ignore[arg-type]
    assert await mill.desk.files.get(mill.desk.tenant, other.person, "file", other.digest) == WORDS.encode()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_worker_stops_where_the_person_was_erased(mill: Mill, memory: Memory, begun: bool) -> None:
    id = await mill.upload(WORDS, user="ada")
    if begun:
        await mill.ingested(id)
        await mill.desk.done("document.reprocess", document=id)
    await erased(mill, "ada")
    before = len(mill.shelf.writes)
    await mill.ingested(id)
    assert len(mill.shelf.writes) == before
    assert plain(memory) == []
    assert isinstance(await mill.document(id), Document)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"digest": "0" * 64, "user": "ada"}, ("invalid", "key")),
        ({"digest": "0" * 64, "key": "A" * 43 + "="}, ("invalid", "key")),
        ({"text": "x", "user": "ada", "key": "A" * 43 + "="}, ("invalid", "key")),
        ({"digest": "0" * 64, "user": "ada", "key": "short"}, ("invalid", "key")),
        ({"digest": "0" * 64, "user": "ada", "key": "A" * 43 + "="}, ("not_found", "digest")),
        ({"text": "x", "user": " "}, ("invalid", "user")),
    ],
)
async def test_a_user_s_file_must_be_encrypted(mill: Mill, fields: dict[str, Any], fault: tuple[str, str]) -> None:
    dataset = await mill.desk.done("dataset.create", name="Rules")
    assert await mill.desk.fails("document.upload", dataset=dataset, name="a.txt", **fields) == fault


async def test_the_key_must_be_that_of_the_blob_and_the_file_not_too_large(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = await mill.desk.done("dataset.create", name="Rules")
    known, other = await packed(mill), await packed(mill)
    sent = {"dataset": dataset, "name": "a.txt", "user": "ada"}
    assert await mill.desk.fails("document.upload", **sent, **(known | {"key": other["key"]})) == ("invalid", "key")
    monkeypatch.setattr(knowledge, "LARGEST_OF_USER", 10)
    assert await mill.desk.fails("document.upload", **sent, **known) == ("too_large", "digest")


async def test_the_same_command_again_is_the_same_document(mill: Mill, memory: Memory) -> None:
    dataset, id = await mill.desk.done("dataset.create", name="Rules"), new_id()
    fields = {"dataset": dataset, "name": "a.txt", "user": "ada", **await packed(mill)}
    first = await mill.desk.send("document.upload", fields, id=id)
    blobs = set(memory.blobs)
    assert await mill.desk.send("document.upload", fields, id=id) == first
    assert set(memory.blobs) == blobs
