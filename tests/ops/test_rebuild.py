from __future__ import annotations

import gc
from pathlib import Path
from random import Random

import nats

from adapters.jetstream import streams
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.store import JetStreamEventStore
from adapters.postgres import tables
from domain.log import EVENTS, OUTCOMES, Commit, Position, Verdict
from ops.embedded import EmbeddedNats
from ops.rebuild import rebuild
from ops.settings import Settings
from projections.catalog import READ_MODELS
from tests.adapters.test_postgres import projecting
from tests.projections.history import History
from tests.projections.wandering import wander


async def publish(url: str, history: History) -> None:
    client = await nats.connect(url)
    await streams.set_up(client.jetstream())
    store, outcomes, blobs = JetStreamEventStore(client), JetStreamOutcomes(client), JetStreamBlobs(client)
    for (tenant, _), blob in history.blobs.items():
        await blobs.put(tenant, blob)
    last: dict[str, int] = {}
    for message in history.messages:
        match message:
            case Commit(subject, events, metadata):
                position = await store.append(subject, events, metadata, last.get(str(subject), 0))
                last[str(subject)] = position.sequence
            case Verdict(_, (outcome,)):
                await outcomes.put(outcome)
    await client.close()


async def test_a_rebuild_from_the_streams_gives_the_rows_of_the_projector(tmp_path: Path, database_url: str) -> None:
    history = wander(Random(31), 200)
    async with EmbeddedNats(tmp_path) as server:
        await publish(server.url, history)
        client = await nats.connect(server.url)
        log, blobs = JetStreamLog(client), JetStreamBlobs(client)
        async with projecting(database_url, log, blobs):
            for stream in (EVENTS, OUTCOMES):
                await tables.wait_for(database_url, Position(stream, len(history.streams[stream])))
        await client.close()
        live = await tables.table_digests(database_url)
        settings = Settings(home=tmp_path, nats_url=server.url, postgres_url=database_url)
        assert await rebuild(settings) == [model.name for model in READ_MODELS]
    assert await tables.table_digests(database_url) == live
    assert gc.isenabled()
