"""Brings documents into the index, takes deleted ones out, and builds it anew for another embedding model."""

from __future__ import annotations

from adapters.files import FileExtractor
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.reactions import subscribe_reaction
from handlers.forget import Forget
from handlers.ingest import Ingest
from handlers.reindex import Reindex
from ops.house import House

DOCUMENTS_AT_ONCE = 8
"""By one worker; more workers, more at once."""


async def begin(house: House) -> None:
    index, models, embed = await house.index(), await house.embedding_models(), await house.embed()
    extractor = await house.open.enter_async_context(FileExtractor())
    ingest = Ingest(house.repository, house.calls, house.blobs, extractor, models, embed, index)
    reindex = Reindex(house.repository, JetStreamLog(house.nc, house.keys), house.blobs, models, embed, index)
    forget = Forget(index)
    subscribe_reaction(
        house.broker, "ingest", ingest, workers=DOCUMENTS_AT_ONCE, repository=house.repository, keys=house.keys
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
