"""A document from its file into the index, step by step, with what goes wrong on the way."""

from __future__ import annotations

from typing import Any, cast

import pytest

from domain.knowledge.document import Document, segment_id
from domain.log import Commit
from handlers.knowledge.embed import Embed, LoadedRevision
from handlers.knowledge.ingest import SLICE, Ingest
from handlers.models.embeddings import PATIENT
from handlers.models.model_calls import ModelCalls
from handlers.ports.index import Index
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from handlers.work.dead_letters import Failure, GiveUp
from tests.handlers.desk import Desk
from tests.handlers.fakes import Cache, Lines, OneModel, Shelf, Vectorizer, Words, embedding_models
from tests.memory import Memory

TEXT = "The lock opens at six.\nIt closes at dusk."
WHOLE = ["started", "parsed", "split", "indexed", "completed"]


class Mill:
    """An ingest worker, and a knowledge base for it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.extractor, self.words, self.cache, self.shelf = Lines(), Words(), Cache(), Shelf()
        calls = ModelCalls(desk.repository)
        index, embed = cast("Index", self.shelf), Embed(self.cache)
        self.vectorizer = Vectorizer()
        models = embedding_models(desk.repository, OneModel(self.words), self.vectorizer)
        self.ingest = Ingest(desk.repository, calls, desk.files, self.extractor, models, embed, index)
        self.dataset = ""

    async def upload(self, text: str = TEXT, **fields: Any) -> str:
        self.dataset = self.dataset or await self.desk.done("dataset.create", name="Rules")
        given = {"name": "rules.txt", "text": text, **fields}
        return await self.desk.done("document.upload", dataset=self.dataset, **given)

    async def cause(self, document: str) -> Commit:
        """The last commit that asks for work on a document."""
        opens = Document.Uploaded | Document.Retried | Document.Reprocessed
        commits = await self.desk.commits("document", document)
        return [commit for commit in commits if any(isinstance(event, opens) for event in commit.events)][-1]

    async def ingested(self, document: str) -> Document:
        await self.ingest(await self.cause(document))
        return await self.document(document)

    async def document(self, id: str) -> Document:
        found = await self.desk.fold("document", id)
        assert isinstance(found, Document)
        return found

    async def steps(self, document: str) -> list[str]:
        """Events of a document since it was uploaded."""
        types = await self.desk.types("document", document)
        return [type.removeprefix("document.").partition(".")[0] for type in types][1:]

    async def last(self, document: str) -> dict[str, Any]:
        return vars((await self.desk.events("document", document))[-1])


@pytest.fixture
def mill(memory: Memory, tenant: str) -> Mill:
    return Mill(Desk(memory, tenant))


async def test_a_document_is_extracted_cut_embedded_and_indexed(mill: Mill) -> None:
    id = await mill.upload()
    document = await mill.ingested(id)
    assert (document.status, document.done, document.attempt) == ("completed", 2, 1)
    assert await mill.steps(id) == WHOLE
    assert mill.extractor.asked == [("text/plain", "rules.txt")]
    cut = await LoadedRevision.read(mill.desk.files, mill.desk.tenant, None, str(document.segments))
    assert (cut.model, [segment.content for segment in cut.segments]) == ("words", TEXT.splitlines())
    [write] = mill.shelf.writes
    assert [entry.id for entry in write.entries] == [segment_id(id, cut.digest, position) for position in (0, 1)]
    assert all(entry.vector is not None for entry in write.entries)


async def test_what_is_embedded_is_recorded_before_it_is_in_the_index(mill: Mill, memory: Memory) -> None:
    seen = list[str]()
    mill.shelf.before = lambda: seen.extend(m.headers["Headrace-Types"] for m in memory.streams["EVENTS"].messages)
    await mill.ingested(await mill.upload())
    assert [types for types in seen if types.startswith("model_call.")] == [
        "model_call.requested.v3",
        "model_call.completed.v5",
    ]


async def test_a_long_one_is_indexed_and_recorded_in_slices(mill: Mill) -> None:
    count = 2 * SLICE + 3
    id = await mill.upload("\n".join(f"Rule {number}" for number in range(count)))
    assert (await mill.ingested(id)).status == "completed"
    assert mill.shelf.positions(id) == list(range(count))
    assert [len(write.entries) for write in mill.shelf.writes] == [SLICE, SLICE, 3]
    indexed = [event for event in await mill.desk.events("document", id) if isinstance(event, Document.Indexed)]
    assert [(event.first, event.count) for event in indexed] == [(0, SLICE), (SLICE, SLICE), (2 * SLICE, 3)]
    versions = [write.version for write in mill.shelf.writes]
    assert versions == sorted(set(versions))


async def test_what_was_embedded_before_is_not_embedded_again(mill: Mill) -> None:
    await mill.ingested(await mill.upload())
    await mill.ingested(await mill.upload(f"{TEXT}\nNo bathing."))
    assert mill.words.embedded == [2, 1]


@pytest.mark.parametrize(
    ("fields", "stage", "code"),
    [
        ({"media_type": "x/broken"}, "parsing", "broken_file"),
        ({"text": "\n"}, "splitting", "no_text"),
    ],
)
async def test_what_cannot_be_read_fails_with_the_stage_and_the_reason(
    mill: Mill, fields: dict[str, str], stage: str, code: str
) -> None:
    id = await mill.upload(**fields)
    assert (await mill.ingested(id)).status == "error"
    last = await mill.last(id)
    assert (last["stage"], last["code"]) == (stage, code)
    assert last["reason"]
    assert mill.shelf.writes == []


async def test_a_file_that_is_not_in_the_object_store(mill: Mill, memory: Memory) -> None:
    id = await mill.upload()
    memory.blobs.clear()
    assert (await mill.ingested(id)).status == "error"
    assert (await mill.last(id))["code"] == "missing_file"


async def test_an_error_of_ours_fails_the_document_when_the_message_is_given_up(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mill.words, "segment", lambda tenant, text, rules: 1 / 0)
    id = await mill.upload()
    with pytest.raises(ZeroDivisionError):
        await mill.ingested(id)
    commit = (await mill.desk.commits("document", id))[0]
    failure = Failure("ingest", commit.position, str(commit.subject), "ZeroDivisionError: odd", "x:y:1", "ab", 5, 0)
    await GiveUp(mill.desk.repository, mill.desk.live)(commit.metadata, failure, commit)
    last = await mill.last(id)
    assert (last["code"], last["stage"], last["reason"]) == ("internal_error", "splitting", "ZeroDivisionError: odd")


async def test_a_model_that_is_away_is_waited_for_and_the_cut_is_kept(mill: Mill) -> None:
    id = await mill.upload()
    mill.words.away = True
    with pytest.raises(Unavailable):
        await mill.ingested(id)
    assert (await mill.document(id)).status == "indexing"
    mill.words.away = False
    document = await mill.ingested(id)
    assert (document.status, document.attempt) == ("completed", 2)
    assert len(mill.extractor.asked) == 1
    assert await mill.steps(id) == ["started", "parsed", "split", "started", "indexed", "completed"]


async def test_a_crash_costs_only_the_slices_that_were_not_recorded(mill: Mill) -> None:
    count = 3 * SLICE
    id = await mill.upload("\n".join(f"Rule {number}" for number in range(count)))

    def dies() -> None:
        if len(mill.shelf.writes) == 1:
            raise Unavailable("The index is away.")

    mill.shelf.before = dies
    with pytest.raises(Unavailable):
        await mill.ingested(id)
    assert (await mill.document(id)).done == SLICE
    mill.shelf.before = lambda: None
    assert (await mill.ingested(id)).status == "completed"
    assert mill.shelf.positions(id) == list(range(count))
    assert sum(mill.words.embedded) == count


async def test_a_log_that_is_away_loses_nothing(mill: Mill, memory: Memory) -> None:
    id = await mill.upload()
    cause = await mill.cause(id)
    memory.away = True
    with pytest.raises(Unavailable):
        await mill.ingest(cause)
    memory.away = False
    await mill.ingest(cause)
    assert await mill.steps(id) == WHOLE


async def test_a_commit_that_comes_again_changes_nothing(mill: Mill) -> None:
    id = await mill.upload()
    await mill.ingested(id)
    before = await mill.desk.commits("document", id)
    await mill.ingested(id)
    assert await mill.desk.commits("document", id) == before
    assert len(mill.shelf.writes) == 1


async def test_a_document_of_a_deleted_dataset_goes_with_it(mill: Mill) -> None:
    id = await mill.upload()
    await mill.desk.done("dataset.delete", dataset=mill.dataset)
    assert (await mill.ingested(id)).deleted
    assert mill.extractor.asked == []


async def test_one_that_is_deleted_while_it_is_in_hand_is_let_go(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await mill.upload()
    extract = mill.extractor.extract

    async def slow(*given: Any) -> Any:
        await mill.desk.done("document.delete", document=id)
        return await extract(*given)

    monkeypatch.setattr(mill.extractor, "extract", slow)
    assert (await mill.ingested(id)).deleted
    assert mill.shelf.writes == []


async def test_one_that_failed_is_tried_again(mill: Mill, memory: Memory) -> None:
    id = await mill.upload()
    blobs = dict(memory.blobs)
    memory.blobs.clear()
    await mill.ingested(id)
    memory.blobs.update(blobs)
    await mill.desk.done("document.retry", document=id)
    assert (await mill.ingested(id)).status == "completed"
    assert mill.shelf.positions(id) == [0, 1]


async def test_one_that_is_hidden_is_cut_and_not_indexed(mill: Mill) -> None:
    id = await mill.upload()
    await mill.ingested(id)
    await mill.desk.done("document.disable", document=id)
    await mill.desk.done("document.reprocess", document=id)
    document = await mill.ingested(id)
    assert (document.status, len(mill.shelf.writes)) == ("completed", 1)


async def test_it_is_cut_by_its_own_rules_or_those_of_its_dataset(mill: Mill) -> None:
    plain = await mill.upload()
    own = await mill.upload(segmentation={"mode": "custom", "max_tokens": 99})
    for id in (plain, own):
        await mill.ingested(id)
    assert [(rules.mode, rules.max_tokens) for rules in mill.words.rules][1] == ("custom", 99)
    assert mill.words.rules[0].mode == "automatic"


# --- embedding models of providers ---


REMOTE = {"embedding_provider": "lab", "embedding_model": "small"}


async def remote(mill: Mill, **fields: Any) -> str:
    """A document of a knowledge base with an embedding model of a provider."""
    await mill.desk.done("provider.register", name="lab", base_url="http://127.0.0.1:1/v1", key="k")
    mill.dataset = await mill.desk.done("dataset.create", name="Rules", **REMOTE)
    return await mill.upload(**fields)


async def test_a_document_is_embedded_by_the_model_of_a_provider(mill: Mill) -> None:
    id = await remote(mill)
    assert (await mill.ingested(id)).status == "completed"
    assert mill.vectorizer.asked == [("small", TEXT.splitlines())]
    assert mill.words.embedded == []
    assert mill.shelf.searched == {mill.dataset: f"{mill.desk.tenant}/lab/small"}
    [write] = mill.shelf.writes
    assert {len(entry.vector) for entry in write.entries if entry.vector is not None} == {3}


async def test_the_default_model_of_the_tenant_is_that_of_a_new_dataset(mill: Mill) -> None:
    await mill.desk.done("provider.register", name="lab", base_url="http://127.0.0.1:1/v1", key="k")
    await mill.desk.done("model.set_default", type="embedding", provider="lab", model="large")
    await mill.ingested(await mill.upload())
    assert mill.vectorizer.asked == [("large", TEXT.splitlines())]


async def test_a_provider_that_is_away_is_waited_for(mill: Mill) -> None:
    id = await remote(mill)
    mill.vectorizer.error = ModelError("unreachable", "No connection.", passing=True)
    with pytest.raises(Unavailable, match="No connection"):
        await mill.ingested(id)
    assert (await mill.document(id)).status == "indexing"
    mill.vectorizer.error = None
    assert (await mill.ingested(id)).status == "completed"
    assert mill.shelf.positions(id) == [0, 1]


async def test_a_provider_that_is_away_for_long_fails_the_document_which_can_be_retried(mill: Mill) -> None:
    id = await remote(mill)
    mill.vectorizer.error = ModelError("unreachable", "No connection.")
    mill.vectorizer.error.passing = True
    for _ in range(PATIENT - 1):
        with pytest.raises(Unavailable):
            await mill.ingested(id)
    assert (await mill.ingested(id)).status == "error"
    last = await mill.last(id)
    assert (last["code"], last["reason"]) == ("unreachable", "No connection.")
    mill.vectorizer.error = None
    await mill.desk.done("document.retry", document=id)
    assert (await mill.ingested(id)).status == "completed"


async def test_a_removed_provider_fails_the_document(mill: Mill) -> None:
    await mill.desk.done("provider.register", name="removed", base_url="http://127.0.0.1:1/v1", key="k")
    fields = {"embedding_provider": "removed", "embedding_model": "small"}
    mill.dataset = await mill.desk.done("dataset.create", name="Rules", **fields)
    id = await mill.upload()
    assert (await mill.ingested(id)).status == "error"
    last = await mill.last(id)
    assert (last["stage"], last["code"]) == ("indexing", "not_found")
    assert "removed" in last["reason"]


async def test_vectors_of_another_length_are_never_written_next_to_the_first(mill: Mill) -> None:
    await mill.ingested(await remote(mill))
    mill.vectorizer.dimension = 5
    id = await mill.upload("No bathing.")
    assert (await mill.ingested(id)).status == "error"
    assert (await mill.last(id))["code"] == "embedding_changed"
    assert mill.shelf.positions(id) == []


async def test_cached_vectors_of_another_length_are_made_again(mill: Mill) -> None:
    await mill.ingested(await remote(mill))
    mill.vectorizer.dimension, mill.shelf.length = 5, None
    id = await mill.upload(f"{TEXT}\nNo bathing.")
    assert (await mill.ingested(id)).status == "completed"
    assert [texts for _, texts in mill.vectorizer.asked][1:] == [["No bathing."], TEXT.splitlines()]
    assert {len(entry.vector) for entry in mill.shelf.writes[-1].entries if entry.vector is not None} == {5}


async def test_a_provider_needs_a_name_of_its_model(mill: Mill) -> None:
    await remote(mill)
    wrong = {"embedding_provider": "lab", "segmentation": {"mode": "automatic"}}
    assert await mill.desk.fails("dataset.configure", dataset=mill.dataset, **wrong) == ("invalid", "embedding_model")
    assert await mill.desk.fails("dataset.create", name="x", embedding_provider="nobody", embedding_model="m") == (
        "not_found",
        "embedding_provider",
    )
