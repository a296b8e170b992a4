"""Rebuild of the index from the log while the old one is searched: all of it, or a dataset with another model."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import structlog

from domain.aggregate import new_id
from domain.embedding import EmbeddingModel, full_name
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.log import EVENTS, Commit, Metadata, commit_id
from handlers.cause import Cause
from handlers.files import Files
from handlers.knowledge.embed import Embed, LoadedRevision
from handlers.knowledge.ingest import SLICE
from handlers.knowledge.scan import Key, Scan
from handlers.knowledge.sync import differs, follow
from handlers.models.embeddings import PATIENT, Embedding, Embeddings, is_later
from handlers.ports.index import Build, Entry, Index
from handlers.ports.log import Log, Unavailable
from handlers.ports.models import ModelError
from handlers.repository import Repository
from handlers.work.progress import Progress, no_progress

log = structlog.get_logger(__name__)

WINDOW = 64
"""Number of slices between two records of the build's progress."""

DOCUMENTS = 8
"""Maximum number of concurrent documents."""

NEAR = 1000
"""Maximum number of messages to replay while writers are held up."""

ROUNDS = 5
"""Maximum rounds, each of which replays the messages of the one before; the rest is replayed while writers wait."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Searchable segments of a document, by the log."""

    tenant: str
    document: str
    dataset: str
    digest: str
    first: int
    count: int
    version: int
    person: str | None


@dataclass(frozen=True, slots=True)
class Edits:
    """Edited segments of a document."""

    tenant: str
    document: str


@dataclass(slots=True)
class Built:
    """Numbers of a build, and the documents (tenant, id) that are not in it: their segments are missing from the object
    store, or their embedding model refuses them."""

    segments: int = 0
    lost: set[Key] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Reindex:
    repository: Repository
    log: Log
    files: Files
    models: Embeddings
    embed: Embed
    index: Index

    async def __call__(self, commit: Commit) -> None:
        """React to the choice of another model for a dataset; one that refuses its documents is an outcome.

        Raises: Unavailable, to be retried.
        """
        tenant, id = commit.subject.tenant, commit.subject.id
        async with self.index.build(tenant, id) as build:
            dataset = await self.repository.get(Dataset, tenant, id)
            if dataset is None or dataset.deleted or dataset.next_embedding is None:
                return
            chosen = dataset.next_embedding
            model = full_name(tenant, chosen)
            try:
                if await build.searched() != model:
                    await self._dataset(build, tenant, id, model, commit.metadata, no_progress)
            except ModelError as error:
                if is_later(error) and build.attempt < PATIENT:
                    raise Unavailable(error.reason) from error
                await self._record(commit.metadata, id, chosen, error)
            else:
                await self._record(commit.metadata, id, chosen)

    async def all(self, progress: Progress = no_progress, *, keep_old: bool = False) -> Built:
        """Rebuild everything, each dataset with its model. Raises: Unavailable."""
        async with self.index.build() as build:
            scan = await self._scanned(progress)
            await build.begin(scan.plan, scan.sequence)
            metadata = Metadata(build.id, "", build.id, actor="index rebuild")
            return await _Work(self, build, scan, metadata, progress).run(keep_old=keep_old)

    async def dataset(self, tenant: str, id: str, progress: Progress = no_progress, *, keep_old: bool = False) -> Built:
        """Rebuild a dataset, with its model.

        Raises: KeyError when there is no such dataset; ModelError; Unavailable.
        """
        async with self.index.build(tenant, id) as build:
            dataset = await self.repository.get(Dataset, tenant, id)
            if dataset is None or dataset.deleted:
                raise KeyError(id)
            model = full_name(tenant, dataset.embedding) if dataset.embedding else self.models.default
            metadata = Metadata(commit_id(id, "index rebuild"), tenant, id, actor="index rebuild")
            return await self._dataset(build, tenant, id, model, metadata, progress, keep_old=keep_old)

    async def _dataset(
        self,
        build: Build,
        tenant: str,
        id: str,
        model: str,
        metadata: Metadata,
        progress: Progress,
        *,
        keep_old: bool = False,
    ) -> Built:
        cause = Cause(Metadata(new_id(), tenant, metadata.correlation, metadata.id, metadata.actor), "dataset", id, 1)
        dimension = await (await self.models.get(model)).dimension(cause, f"dimension:{cause.metadata.id}")
        scan = await self._scanned(progress)
        await build.begin(f"{model}:{dimension}", scan.sequence)
        work = _Work(self, build, scan, metadata, progress, only=(tenant, id), model=model)
        work.dimensions[model] = dimension
        await work.open(tenant, id)
        return await work.run(keep_old=keep_old)

    async def _scanned(self, progress: Progress) -> Scan:
        scan = Scan(self.models.default)
        async with aclosing(self.commits(0)) as chunks:
            async for commits in chunks:
                for commit in commits:
                    scan.note(commit)
                progress("scan", scan.sequence, scan.sequence)
        return scan

    async def commits(self, after: int) -> AsyncGenerator[Sequence[Commit]]:
        """The log after a sequence, up to its current end."""
        async with aclosing(self.log.read(EVENTS, after, follow=False)) as chunks:
            async for chunk in chunks:
                yield cast("Sequence[Commit]", chunk)

    async def _record(
        self, metadata: Metadata, id: str, chosen: EmbeddingModel, error: ModelError | None = None
    ) -> None:
        """Record that the dataset is searched with the model, or why it cannot be."""

        at = datetime.now(UTC)

        def end(dataset: Dataset | None) -> Dataset:
            assert dataset is not None
            if error:
                dataset.fail_reindex(at, embedding=chosen, code=error.code, reason=error.reason[:1000])
            else:
                dataset.reindexed(at, embedding=chosen)
            return dataset

        cause = metadata.caused(commit_id(metadata.id, f"{id}:reindexed"))
        await self.repository.change(Dataset, id, cause, end)


@dataclass(frozen=True, slots=True)
class _Work:
    """A build in progress: of everything, or of the dataset `only` with a `model`."""

    handler: Reindex
    build: Build
    scan: Scan
    metadata: Metadata
    progress: Progress
    only: Key | None = None
    model: str | None = None
    dimensions: dict[str, int] = field(default_factory=dict)
    """The length of the vectors of each model."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DOCUMENTS))
    built: Built = field(default_factory=Built)

    async def run(self, *, keep_old: bool) -> Built:
        await self.build.forbid(self.scan.forbidden())
        for _ in range(ROUNDS):
            before = self.build.reached
            await self._replay()
            if self.build.reached - before <= NEAR:
                break
        await self.build.complete()
        await self._add_unrecorded()
        async with self.build.swap(keep_old=keep_old):
            await self._replay()
            await self._add_unrecorded()
        return self.built

    async def _replay(self) -> None:
        slices: list[Slice | Edits] = []
        async with aclosing(self.handler.commits(self.build.reached)) as chunks:
            async for commits in chunks:
                for commit in commits:
                    await self._note(commit)
                    slices += self._slices(commit)
                    if self.scan.edited.get((commit.subject.tenant, commit.subject.id)) == commit.position.sequence:
                        slices.append(Edits(commit.subject.tenant, commit.subject.id))
                    if len(slices) >= WINDOW:
                        await self._reach(commit, slices)
                        slices = []
                await self._reach(commits[-1], slices)
                slices = []

    async def _reach(self, commit: Commit, slices: Sequence[Slice | Edits]) -> None:
        await self._write(slices)
        sequence = commit.position.sequence
        await self.build.reach(sequence, max(sequence, self.scan.sequence))
        self.progress("build", sequence, max(sequence, self.scan.sequence))

    async def _note(self, commit: Commit) -> None:
        """Remove replaced segments, and those deleted since the scan, at once, independently of the other workers.

        Of those replaced before the scan, only what an interrupted attempt has written can be there.
        """
        tenant, id, version = commit.subject.tenant, commit.subject.id, commit.position.sequence
        for event in commit.events:
            if isinstance(event, Document.Replaced):
                ids = [segment_id(id, event.segments, position) for position in range(event.count)]
                await self.build.remove(tenant, event.dataset, id, ids, version=version)
        if version <= self.scan.sequence:
            return
        self.scan.note(commit)
        for event in commit.events:
            match event:
                case Document.Deleted():
                    await self.build.delete(tenant, event.dataset, id, version=version)
                case Dataset.Deleted():
                    await self.build.delete(tenant, id, version=version)

    def _slices(self, commit: Commit) -> list[Slice]:
        tenant, id, version = commit.subject.tenant, commit.subject.id, commit.position.sequence
        person = commit.metadata.person
        found = [
            Slice(tenant, id, event.dataset, event.segments, event.first, event.count, version, person)
            for event in commit.events
            if isinstance(event, Document.Indexed)
        ]
        return [each for each in found if self._wanted(each)]

    def _wanted(self, part: Slice) -> bool:
        inside = self.only is None or self.only == (part.tenant, part.dataset)
        replaced = (part.tenant, part.document, part.digest) in self.scan.replaced
        if replaced or self.scan.hidden(part.tenant, part.document):
            return False
        return inside and not self.scan.gone(part.tenant, part.dataset, part.document)

    async def _add_unrecorded(self) -> None:
        """Add slices that workers may have written into the old index and not recorded yet.

        That is at most one slice per document, since the next is written after the one before is recorded, which may
        have happened after the last replay. Later changes of it are newer.
        """
        slices = []
        for (tenant, id), noted in self.scan.begun.items():
            document, sequence = await self.handler.repository.get_at(Document, tenant, id)
            if document is not None and document.segments is not None:
                done = max(document.done, noted)
                first, end = max(noted, done - SLICE, 0), done if document.ended else done + SLICE
                slices.append(
                    Slice(
                        tenant,
                        id,
                        document.dataset,
                        document.segments,
                        first,
                        end - first,
                        version=sequence,
                        person=document.person,
                    )
                )
        await self._write([each for each in slices if self._wanted(each)])

    async def _write(self, slices: Sequence[Slice | Edits]) -> None:
        documents = defaultdict(list)
        for part in slices:
            documents[part.tenant, part.document].append(part)
        # A failure does not cancel the others, whose calls of the model would stay open.
        ends = await asyncio.gather(*map(self._write_document, documents.values()), return_exceptions=True)
        if errors := [end for end in ends if end is not None]:
            raise errors[0]

    async def _write_document(self, slices: Sequence[Slice | Edits]) -> None:
        """In order: a document that was split again by unchanged rules is written again."""
        async with self.turns:
            revision: LoadedRevision | None = None
            for part in slices:
                try:
                    if isinstance(part, Edits):
                        await self._follow(part)
                        continue
                    if revision is None or revision.digest != part.digest:
                        revision = await LoadedRevision.read(self.handler.files, part.tenant, part.person, part.digest)
                    await self._write_slice(part, revision)
                except KeyError:
                    log.error("blob missing", tenant=part.tenant, document=part.document)
                    self.built.lost.add((part.tenant, part.document))
                    return
                except ModelError as error:
                    self._refused(part, error)
                    return

    def _refused(self, part: Slice | Edits, error: ModelError) -> None:
        """One tenant's provider does not stop a build of everything. Raises: ModelError, Unavailable."""
        if self.only is not None:
            raise error
        if is_later(error):
            raise Unavailable(error.reason) from error
        log.error("not embedded", tenant=part.tenant, document=part.document, code=error.code, reason=error.reason)
        self.built.lost.add((part.tenant, part.document))

    async def _follow(self, edits: Edits) -> None:
        """Load the current document, which may be newer than the replayed messages. Raises: KeyError, Unavailable."""
        tenant = edits.tenant
        document, sequence = await self.handler.repository.get_at(Document, tenant, edits.document)
        if document is None or document.deleted or self.only not in (None, (tenant, document.dataset)):
            return
        name, embedding, dimension = await self.open(tenant, document.dataset)
        cause = self._cause(tenant, "document", document.id, document.person)

        async def put(entries: Sequence[Entry]) -> None:
            await self.build.write(tenant, document.dataset, document.id, entries, model=name, version=sequence)

        async def remove(ids: Sequence[str]) -> None:
            await self.build.remove(tenant, document.dataset, document.id, ids, version=sequence)

        difference = await differs(self.handler.files, tenant, document, embedding, since=0)
        of = f"{self.build.id}:by hand:{sequence}"
        self.built.segments += await follow(
            self.handler.embed, cause, of, embedding, difference, put, remove, dimension
        )

    async def open(self, tenant: str, dataset: str) -> tuple[str, Embedding, int]:
        """The full name and the model of a dataset, whose version is open, and the length of its vectors.

        Raises: ModelError, Unavailable.
        """
        name = self.model or self.scan.model(tenant, dataset)
        embedding = await self.handler.models.get(name)
        async with self.asking:
            if name not in self.dimensions:
                cause = self._cause(tenant, "dataset", dataset, None)
                self.dimensions[name] = await embedding.dimension(cause, f"{self.build.id}:dimension")
        await self.build.open(name, self.dimensions[name])
        return name, embedding, self.dimensions[name]

    def _cause(self, tenant: str, noun: str, id: str, person: str | None) -> Cause:
        known = self.metadata
        metadata = Metadata(known.id, tenant, known.correlation, known.causation, known.actor, person=person)
        return Cause(metadata, noun, id, self.build.attempt)

    async def _write_slice(self, part: Slice, revision: LoadedRevision) -> None:
        name, embedding, dimension = await self.open(part.tenant, part.dataset)
        cause = self._cause(part.tenant, "document", part.document, part.person)
        entries, recorded = await self.handler.embed(
            cause,
            f"{self.build.id}:{part.first}",
            embedding,
            part.document,
            revision,
            part.first,
            part.count,
            dimension,
        )
        writing = self.build.write(part.tenant, part.dataset, part.document, entries, model=name, version=part.version)
        await asyncio.gather(writing, recorded)
        self.built.segments += len(entries)
