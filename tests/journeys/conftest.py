from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ops.embedded import EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import Stack


@pytest.fixture(scope="session")
async def headrace(home: Path, nats_url: str, postgres: EmbeddedPostgres) -> AsyncIterator[Stack]:
    """A whole Headrace that the journeys share, each in its own datasets and apps."""
    async with fresh_database(postgres) as database_url:
        settings = Settings.load(home=home, nats_url=nats_url, postgres_url=database_url)
        async with Stack.running(settings) as stack:
            yield stack
