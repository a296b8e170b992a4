"""Brings documents into the index, and takes deleted ones out."""

from __future__ import annotations

from adapters.embedding import NatsEmbedder
from adapters.files import FileExtractor
from adapters.jetstream.reactions import subscribe_reaction
from adapters.segmenter import TokenSegmenter
from handlers.forget import Forget
from handlers.ingest import Ingest
from ops.house import House

DOCUMENTS_AT_ONCE = 8
"""By one worker; more workers, more at once."""


async def begin(house: House) -> None:
    model = house.settings.embedding_model
    index = await house.index()
    embedder = await house.open.enter_async_context(NatsEmbedder(house.nc, model))
    extractor = await house.open.enter_async_context(FileExtractor())
    ingest = Ingest(house.repository, house.calls, house.blobs, extractor, TokenSegmenter(model), embedder, index)
    forget = Forget(index)
    subscribe_reaction(house.broker, "ingest", ingest, workers=DOCUMENTS_AT_ONCE)
    subscribe_reaction(house.broker, "forget_documents", forget, workers=DOCUMENTS_AT_ONCE)
    subscribe_reaction(house.broker, "forget_datasets", forget, workers=1)
