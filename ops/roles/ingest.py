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
from handlers.knowledge.sync import Settle
from ops.wiring import House

DOCUMENTS_AT_ONCE = 8
"""By one worker; more workers, more at once."""


PREVIEW_S = 60.0
"""Seconds that a file of a preview may take to be read."""


async def begin(house: House) -> Awaitable[None]:
    index, models, embed = await house.index(), await house.embedding_models(), await house.embed()
    extractor = await house.open.enter_async_context(FileExtractor())
    ingest = Ingest(house.repository, house.calls, house.blobs, extractor, models, embed, index)
    reindex = Reindex(house.repository, JetStreamLog(house.nc, house.keys), house.blobs, models, embed, index)
    forget = Forget(index)
    settle = Settle(house.repository, house.blobs, models, embed, index)
    subscribe_reaction(
        house.broker, "ingest", ingest, workers=DOCUMENTS_AT_ONCE, repository=house.repository, keys=house.keys
    )
    subscribe_reaction(
        house.broker, "settle", settle, workers=DOCUMENTS_AT_ONCE, repository=house.repository, keys=house.keys
    )
    subscribe_reaction(
        house.broker,
        "forget_documents",
        forget,
        workers=DOCUMENTS_AT_ONCE,
        repository=house.repository,
        keys=house.keys,
    )
    subscribe_reaction(house.broker, "forget_datasets", forget, workers=1, repository=house.repository, keys=house.keys)
    subscribe_reaction(house.broker, "reindex", reindex, workers=1, repository=house.repository, keys=house.keys)
    documents = await house.open.enter_async_context(PostgresDocuments(house.settings.postgres_url))
    reprocess = Reprocess(house.repository, documents)
    subscribe_reaction(house.broker, "reprocess", reprocess, workers=1, repository=house.repository, keys=house.keys)
    reader = await house.open.enter_async_context(FileExtractor(children=1, seconds=PREVIEW_S))
    return serve(house.nc, Preview(house.repository, house.blobs, reader, models, index))
