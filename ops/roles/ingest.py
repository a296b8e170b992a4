"""Brings documents into the index, takes deleted ones out, and builds it anew for another embedding model.

It also shows how texts would be cut.
"""

from __future__ import annotations

from collections.abc import Awaitable

from adapters.documents.extract import FileExtractor
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.previews import serve
from adapters.jetstream.workers.reactions import subscribe_reaction
from adapters.postgres.documents import PostgresDocuments
from handlers.knowledge.forget import Forget
from handlers.knowledge.ingest import Ingest
from handlers.knowledge.preview import Preview
from handlers.knowledge.reindex import Reindex
from handlers.knowledge.reprocess import Reprocess
from handlers.knowledge.sync import Sync
from ops.wiring import Wiring

DOCUMENTS_AT_ONCE = 8
"""By one worker; more workers, more at once."""


PREVIEW_S = 60.0
"""Seconds that a file of a preview may take to be read."""


async def begin(wiring: Wiring) -> Awaitable[None]:
    index, models, embed = await wiring.index(), await wiring.embedding_models(), await wiring.embed()
    extractor = await wiring.open.enter_async_context(FileExtractor())
    ingest = Ingest(wiring.repository, wiring.calls, wiring.blobs, extractor, models, embed, index)
    reindex = Reindex(wiring.repository, JetStreamLog(wiring.nc, wiring.keys), wiring.blobs, models, embed, index)
    forget = Forget(index)
    settle = Sync(wiring.repository, wiring.blobs, models, embed, index)
    subscribe_reaction(
        wiring.broker, "ingest", ingest, workers=DOCUMENTS_AT_ONCE, repository=wiring.repository, keys=wiring.keys
    )
    subscribe_reaction(
        wiring.broker, "settle", settle, workers=DOCUMENTS_AT_ONCE, repository=wiring.repository, keys=wiring.keys
    )
    subscribe_reaction(
        wiring.broker,
        "forget_documents",
        forget,
        workers=DOCUMENTS_AT_ONCE,
        repository=wiring.repository,
        keys=wiring.keys,
    )
    subscribe_reaction(
        wiring.broker, "forget_datasets", forget, workers=1, repository=wiring.repository, keys=wiring.keys
    )
    subscribe_reaction(wiring.broker, "reindex", reindex, workers=1, repository=wiring.repository, keys=wiring.keys)
    documents = await wiring.open.enter_async_context(PostgresDocuments(wiring.settings.postgres_url))
    reprocess = Reprocess(wiring.repository, documents)
    subscribe_reaction(wiring.broker, "reprocess", reprocess, workers=1, repository=wiring.repository, keys=wiring.keys)
    reader = await wiring.open.enter_async_context(FileExtractor(children=1, seconds=PREVIEW_S))
    return serve(wiring.nc, Preview(wiring.repository, wiring.blobs, reader, models, index))
