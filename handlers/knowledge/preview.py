"""Previews of segmentation, which change nothing: no event, no blob, no entry of the index."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import orjson
import structlog
from pydantic import Field, model_validator

from domain.aggregate import Rejection
from domain.embedding import shown
from domain.knowledge.dataset import Dataset
from domain.knowledge.segmentation import Segmentation
from domain.knowledge.segments import Segment
from handlers.commands.fields import Command, Id, Name, Sha256, parse
from handlers.commands.knowledge import MediaType, SegmentationRules
from handlers.commands.preparation import not_found
from handlers.knowledge.embed import model_of
from handlers.media_types import media_type_of
from handlers.models.embeddings import Embeddings
from handlers.ports.documents import Block, Extractor, Text, Unreadable
from handlers.ports.index import Index
from handlers.ports.log import Blobs, Unavailable
from handlers.repository import Repository
from handlers.work.turns import Turns

log = structlog.get_logger(__name__)

MOST_CHARACTERS = 2_000_000
"""Maximum length of a segmented text, in characters; of a longer one, the beginning is enough."""

MOST_BYTES = 4 * 2**20
"""Maximum size of an answer, in bytes; the last segments that do not fit are left out."""

SLOTS, SHARE, QUEUED = 3, 2, 8
"""Maximum number of concurrent requests, of all tenants and of one, and of queued ones, which the tenants that wait
share; the others are refused as busy."""


class PreviewSegments(Command):
    """A request: a text, a small file or a blob, with rules of its own or those of a knowledge base."""

    dataset: Id | None = Field(None, description="Knowledge base whose embedding model counts, and whose rules")
    name: Name = "text.txt"
    media_type: MediaType | None = None
    text: str | None = None
    data: str | None = Field(None, description="A file in Base64; a larger one is named by its digest")
    digest: Sha256 | None = None
    segmentation: SegmentationRules | None = None
    first: Annotated[int, Field(ge=0)] = Field(0, description="Position of the first segment that is shown")
    limit: Annotated[int, Field(ge=1, le=500)] = Field(50, description="Segments that are shown")

    @model_validator(mode="after")
    def _one_source(self) -> PreviewSegments:
        if [self.text, self.data, self.digest].count(None) != 2:
            raise ValueError("Give exactly one of text, data and digest")
        return self


class Preview:
    def __init__(
        self, repository: Repository, blobs: Blobs, extractor: Extractor, models: Embeddings, index: Index
    ) -> None:
        self._repository = repository
        self._blobs = blobs
        self._extractor = extractor
        self._models = models
        self._index = index
        self._turns = Turns(SLOTS, SHARE, QUEUED)

    async def __call__(self, tenant: str, payload: bytes) -> dict[str, Any]:
        """The answer as JSON: `status` is ok, rejected (`code`, `message`, `field`) or unavailable (`message`, and
        the `code` busy when too many of the tenant wait)."""
        if not self._turns.has_room(tenant):
            reason = "Too many previews of this tenant are waiting: retry later."
            return {"status": "unavailable", "code": "busy", "message": reason}
        try:
            async with self._turns.turn(tenant):
                return await self._show(tenant, payload)
        except Rejection as refused:
            return {"status": "rejected", "code": refused.code, "message": refused.message, "field": refused.field}
        except Unreadable as error:
            return {"status": "rejected", "code": error.code, "message": str(error), "field": None}
        except Unavailable as error:
            return {"status": "unavailable", "message": str(error)}
        except Exception as error:
            log.exception("preview failed", tenant=tenant)
            reason = f"{type(error).__name__}: {error}"[:1000]
            return {"status": "rejected", "code": "internal_error", "message": reason, "field": None}

    async def _show(self, tenant: str, payload: bytes) -> dict[str, Any]:
        request = parse(PreviewSegments, payload)
        name, rules = await self._place(tenant, request)
        if request.segmentation:
            rules = request.segmentation.rules()
        given = "text/plain" if request.text is not None else "application/octet-stream"
        media_type = request.media_type or media_type_of(request.name) or given
        text = await self._extractor.extract(tenant, await self._data(tenant, request), media_type, request.name)
        part = _beginning(text)
        segmenter = (await self._models.get(name)).segmenter
        segments = await segmenter.segment(tenant, part, rules)
        return {
            "status": "ok",
            "embedding_model": shown(name),
            "segmentation": rules.plain(),
            "pages": text.pages,
            "characters": text.characters,
            "previewed_characters": part.characters,
            "warnings": text.warnings,
            "total_segments": len(segments),
            "tokens": sum(segment.tokens for segment in segments if not segment.is_parent),
            "segments": _shown(segments[request.first : request.first + request.limit]),
        }

    async def _place(self, tenant: str, request: PreviewSegments) -> tuple[str, Segmentation]:
        """The embedding model and the rules of the dataset, or the defaults."""
        if request.dataset is None:
            return self._models.default, Segmentation()
        dataset = await self._repository.get(Dataset, tenant, request.dataset)
        if dataset is None or dataset.deleted:
            raise not_found(Dataset, request.dataset, "dataset")
        name = await model_of(dataset, tenant, self._index, self._models)
        return name, Segmentation.of(dataset.segmentation)

    async def _data(self, tenant: str, request: PreviewSegments) -> bytes:
        if request.text is not None:
            return request.text.encode()
        if request.data is not None:
            try:
                return base64.b64decode(request.data, validate=True)
            except binascii.Error as error:
                raise Rejection("invalid", f"Must be Base64 ({error}).", "data") from None
        try:
            return await self._blobs.get(tenant, str(request.digest))
        except KeyError:
            sentence = f"There is no blob {tenant}/{request.digest}; put it into the object store first."
            raise Rejection("not_found", sentence, "digest") from None


def _beginning(text: Text) -> Text:
    """The blocks to segment."""
    size, blocks = 0, list[Block]()
    for block in text.blocks:
        if blocks and size + len(block.text) > MOST_CHARACTERS:
            break
        size += len(block.text)
        blocks.append(block)
    return Text(blocks, text.pages, text.title)


def _shown(segments: list[Segment]) -> list[dict[str, Any]]:
    shown, size = [], 0
    for segment in segments:
        found = {
            "position": segment.position,
            "parent": segment.parent,
            "content": segment.content,
            "answer": segment.answer,
            "tokens": segment.tokens,
            "page": segment.page,
            "heading": segment.heading,
            "start_offset": segment.start,
            "end_offset": segment.end,
        }
        size += len(orjson.dumps(found))
        if size > MOST_BYTES:
            break
        shown.append(found)
    return shown
