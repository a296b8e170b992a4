"""Annotations of apps: embeds their questions, and finds the one that a question is close enough to."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from domain.chat.annotation import Annotation
from domain.chat.app import AnnotationReply, App
from domain.embedding import full_name
from domain.log import Commit, Metadata, commit_id
from handlers.cause import Cause
from handlers.models.embeddings import Embeddings, waits
from handlers.ports.annotations import Annotations
from handlers.ports.documents import Vectors
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from handlers.repository import Repository

STEP = "annotation"
"""Step of the call that embeds a question to find its annotation."""

BATCH = 64
"""Number of questions that are embedded by one call."""


@dataclass(frozen=True, slots=True)
class Match:
    """An annotation whose answer a question gets."""

    annotation: str
    answer: str
    score: float
    embedding_model: str


@dataclass(frozen=True, slots=True)
class MatchAnnotation:
    repository: Repository
    models: Embeddings
    annotations: Annotations

    async def __call__(self, cause: Cause, app: App, query: str) -> Match | None:
        """The closest annotation, if it reaches the threshold of the app. Raises: ModelError, Unavailable."""
        reply, model = app.annotation_reply, app.annotation_model
        if reply is None or not reply["enabled"] or model is None:
            return None
        embedding = await self.models.get(model)
        identity, tenant = embedding.identity, cause.metadata.tenant
        vectors, recorded = await embedding.embed(cause, STEP, [embedding.input(query)], urgent=True)
        found, _ = await asyncio.gather(self.annotations.nearest(tenant, app.id, identity, vectors[0]), recorded)
        if found is None or found.score < reply["score_threshold"]:
            return None
        # The tables follow the log: what was removed or edited a moment ago is seen in the log alone.
        annotation = await self.repository.get(Annotation, tenant, found.annotation)
        if annotation is None or annotation.deleted or identity not in annotation.embedded:
            return None
        if not (annotation.question and annotation.answer):
            return None
        return Match(annotation.id, annotation.answer, round(found.score, 6), model)


@dataclass(frozen=True, slots=True)
class Annotate:
    """Embeds the question of an annotation with the models of its app."""

    repository: Repository
    models: Embeddings

    async def __call__(self, commit: Commit) -> None:
        """React to an annotation that was created or edited. Raises: Unavailable, to be retried."""
        tenant, id = commit.subject.tenant, commit.subject.id
        annotation = await self.repository.get(Annotation, tenant, id)
        app = annotation and await self.repository.get(App, tenant, annotation.app)
        if not annotation or not app or app.deleted or app.annotation_reply is None:
            return
        wanted = self.wanted(tenant, app.annotation_reply)
        cause = Cause(commit.metadata, Annotation.TOPIC, id, 1)
        for model in dict.fromkeys(filter(None, (app.annotation_model, wanted))):
            await self.embed(cause, model, [annotation], commit.at)

    def wanted(self, tenant: str, reply: AnnotationReply) -> str:
        """The full name of the model that was chosen."""
        chosen = reply["embedding"]
        return full_name(tenant, chosen) if chosen else self.models.default

    async def embed(self, cause: Cause, model: str, annotations: Sequence[Annotation], since: datetime) -> None:
        """Embed the questions that the model has not embedded yet, by recorded calls.

        Raises: ModelError; Unavailable, also for an error that may end by itself, in work begun not long `since`.
        """
        try:
            await self._embed(cause, model, annotations)
        except ModelError as error:
            if waits(error, since):
                raise Unavailable(error.reason) from error
            raise

    async def _embed(self, cause: Cause, model: str, annotations: Sequence[Annotation]) -> None:
        embedding = await self.models.get(model)
        identity = embedding.identity
        lacking = [it for it in annotations if not it.deleted and it.question and identity not in it.embedded]
        if not lacking:
            return
        step = f"embed:{identity}"
        cause = await self.models.calls.next_attempt(cause, step)
        inputs = [embedding.input(annotation.question) for annotation in lacking]
        vectors, recorded = await embedding.embed(cause, step, inputs)
        await recorded
        changes = [
            self._keep(cause.metadata, annotation, identity, vector)
            for annotation, vector in zip(lacking, vectors, strict=True)
        ]
        await asyncio.gather(*changes)

    def _keep(self, metadata: Metadata, annotation: Annotation, identity: str, vector: Vectors) -> Awaitable[object]:
        at, packed = datetime.now(UTC), pack(vector)
        revision = annotation.revision

        def decide(known: Annotation | None) -> Annotation:
            assert known is not None
            known.embed(at, revision=revision, embedding_model=identity, vector=packed)
            return known

        cause = metadata.caused(commit_id(metadata.id, f"{annotation.id}:{revision}:{identity}"))
        return self.repository.change(Annotation, annotation.id, cause, decide)


@dataclass(frozen=True, slots=True)
class AnnotateAll:
    """Embeds all annotations of an app with the model that was chosen, while the old one is used."""

    annotate: Annotate
    annotations: Annotations

    async def __call__(self, commit: Commit) -> None:
        """React to another setting of an app's stored answers. Raises: Unavailable, to be retried."""
        tenant, id, repository = commit.subject.tenant, commit.subject.id, self.annotate.repository
        app = await repository.get(App, tenant, id)
        if app is None or app.deleted or app.annotation_reply is None or not app.annotation_reply["enabled"]:
            return
        model = self.annotate.wanted(tenant, app.annotation_reply)
        ids = await self.annotations.of(tenant, id, commit.position.sequence)
        for first in range(0, len(ids), BATCH):
            found = await asyncio.gather(
                *(repository.get(Annotation, tenant, each) for each in ids[first : first + BATCH])
            )
            cause = Cause(commit.metadata, Annotation.TOPIC, commit_id(id, f"annotations:{first}"), 1)
            await self.annotate.embed(cause, model, [annotation for annotation in found if annotation], commit.at)
        at = datetime.now(UTC)

        def decide(known: App | None) -> App:
            assert known is not None
            known.annotations_embedded(at, embedding_model=model)
            return known

        metadata = commit.metadata.caused(commit_id(commit.metadata.id, f"{id}:annotations"))
        await repository.change(App, id, metadata, decide)


def pack(vector: Vectors) -> str:
    """The vector as it is recorded."""
    return base64.b64encode(np.asarray(vector, "<f2").tobytes()).decode()


def unpack(packed: str) -> Vectors:
    return np.frombuffer(base64.b64decode(packed), "<f2").astype(np.float32)
