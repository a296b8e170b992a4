from __future__ import annotations

from pathlib import Path

import pytest

from adapters.jetstream.streams import COMMANDS, Waiting, set_up
from ops import doctor
from ops.client import Client
from ops.doctor import Finding, examine
from ops.embedded import EmbeddedNats
from ops.settings import Settings


async def found(settings: Settings, what: str) -> Finding:
    return next(iter([finding async for finding in examine(settings) if finding.what == what]))


async def test_a_queue_that_is_nearly_full(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, await Client.connect(server.url) as client:
        await set_up(client.stream, waiting=Waiting(commands=10))
        settings = Settings.load(home=tmp_path, nats_url=server.url)
        for number, good in ((8, True), (1, False)):
            for _ in range(number):
                await client.stream.publish("cmd.default.app.create", b"{}")
            finding = await found(settings, f"stream {COMMANDS}")
            assert finding.good is good
        assert "9 messages" in finding.found
        assert "start workers" in finding.advice


async def test_a_disk_with_no_more_than_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nats").mkdir()
    settings = Settings.load(home=tmp_path)
    monkeypatch.setattr(doctor, "reserve", lambda total: 0)
    assert (await found(settings, "disk")).good
    monkeypatch.setattr(doctor, "reserve", lambda total: total)
    finding = await found(settings, "disk")
    assert (finding.good, finding.advice.startswith("make room")) == (False, True)
