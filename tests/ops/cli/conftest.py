from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
import structlog

from adapters.jetstream import streams
from ops.servers.embedded import EmbeddedNats
from tests.ops.cli.test_cli import Cli


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No settings but a home, and logs as they were: `up` sends them to a stream that is closed after its test."""
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def headrace(clean: None, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="module")
async def server_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with EmbeddedNats(tmp_path_factory.mktemp("cli")) as server:
        connection = await nats.connect(server.url)
        await streams.set_up(connection.jetstream())
        await connection.close()
        yield server.url


@pytest.fixture
def url(clean: None, server_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HEADRACE_NATS_URL", server_url)
    return server_url
