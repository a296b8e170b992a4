"""The role `ingest`: keeps the index in line with documents and datasets, and serves previews of segmentation."""

from __future__ import annotations

from collections.abc import Awaitable

from adapters.documents.extract import FileExtractor
from adapters.jetstream.previews import serve
from adapters.postgres.annotations import PostgresAnnotations
from adapters.postgres.documents import PostgresDocuments
from handlers.chat.annotations import Annotate, AnnotateAll
from handlers.knowledge.forget import Forget
from handlers.knowledge.ingest import Ingest
from handlers.knowledge.preview import Preview
from handlers.knowledge.reindex import Reindex
from handlers.knowledge.reprocess import Reprocess
from handlers.knowledge.sync import Sync
from ops.wiring import Wiring

PREVIEW_S = 60.0
"""Time limit for reading the file of a preview, in seconds."""


async def begin(wiring: Wiring) -> Awaitable[None]:
    index, models, embed = await wiring.index(), await wiring.embeddings(), await wiring.embed()
    sandbox = await wiring.sandbox()
    extractor = await wiring.open.enter_async_context(FileExtractor(sandbox))
    ingest = Ingest(wiring.repository, wiring.calls, wiring.files, extractor, models, embed, index)
    reindex = Reindex(wiring.repository, wiring.log, wiring.files, models, embed, index)
    forget = Forget(index)
    documents = await wiring.open.enter_async_context(PostgresDocuments(wiring.settings.postgres_url))
    wiring.work("ingest", ingest)
    wiring.work("sync", Sync(wiring.repository, wiring.files, models, embed, index))
    wiring.work("forget_documents", forget)
    wiring.work("forget_datasets", forget)
    wiring.work("reindex", reindex)
    wiring.work("reprocess", Reprocess(wiring.repository, documents))
    annotations = await wiring.open.enter_async_context(PostgresAnnotations(wiring.settings.postgres_url))
    annotate = Annotate(wiring.repository, models)
    wiring.work("annotate", annotate)
    wiring.work("annotate_all", AnnotateAll(annotate, annotations))
    reader = await wiring.open.enter_async_context(FileExtractor(sandbox, children=1, seconds=PREVIEW_S))
    return serve(wiring.nc, Preview(wiring.repository, wiring.blobs, reader, models, index))
