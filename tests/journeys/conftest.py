from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import Stack


@pytest.fixture(scope="session")
async def headrace(postgres: EmbeddedPostgres, lexical_model: str) -> AsyncIterator[Stack]:
    """A whole Headrace that the journeys share, each in its own datasets and apps, on a log that no other test sees."""
    home = Path(mkdtemp(prefix="headrace-journeys-"))
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as database_url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=database_url, rerank_model=lexical_model)
        async with Stack.running(settings) as stack:
            yield stack
    shutil.rmtree(home)
