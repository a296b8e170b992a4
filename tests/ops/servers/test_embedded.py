from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import nats
import nats.js.errors
import psutil
import psycopg
import pytest
import yaml

from adapters import pinned
from adapters.jetstream import streams
from adapters.jetstream.streams import COMMANDS
from ops import machine
from ops.servers import embedded
from ops.servers.daemon import StartFailed
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres, create_home, open_path, reserve, user_name
from ops.servers.opensearch.server import EmbeddedOpenSearch
from tests.disk import ballast, small_disk


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path / "home") as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL can reach: `tmp_path` is closed to others whenever a pytest starts on this machine."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
async def postgres_server() -> AsyncIterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory() as name:
        async with EmbeddedPostgres(Path(name) / "home") as server:
            yield server


def kill(server: EmbeddedNats | EmbeddedPostgres) -> None:
    process = server.daemon.process()
    assert process is not None
    process.kill()
    process.wait(10)


async def publish(url: str, text: str) -> int:
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="T", subjects=["t"])
        return (await stream.publish("t", text.encode())).seq
    finally:
        await client.close()


async def insert(url: str) -> int:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        await connection.execute("INSERT INTO kept VALUES (1)")
        row = await (await connection.execute("SELECT count(*) FROM kept")).fetchone()
    assert row is not None
    return int(row[0])


async def test_what_nats_acknowledged_survives_a_kill_and_the_address_stays(nats_server: EmbeddedNats) -> None:
    url = nats_server.url
    assert await publish(url, "before") == 1
    kill(nats_server)
    await nats_server.start()
    assert nats_server.url == url
    assert await publish(url, "after") == 2


HARD = [
    "ü 数据 😀",
    "a'b\"c",
    "#$HOME ${x} \\f \\u0041",
    "tab\there\x08\x1b",
    os.fsdecode(b"bad\xff"),
    "x" * 100 + "/" + "y" * 100,
]
"""Names of a home that a configuration or a shell may read as something else."""


@pytest.mark.parametrize("name", HARD)
async def test_nats_starts_in_a_home_with_any_name(tmp_path: Path, name: str) -> None:
    server = EmbeddedNats(tmp_path / name)
    for number in (1, 2):
        async with server:
            assert await publish(server.url, "kept") == number
    assert (tmp_path / name / "nats" / "jetstream").is_dir()
    assert b"Server is ready" in server.daemon.log.read_bytes()


async def test_a_home_that_another_user_started_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by root, whose files that user could not read later."""
    create_home(tmp_path)
    create_home(tmp_path)
    owner = user_name(os.geteuid())
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    for server in (EmbeddedNats(tmp_path), EmbeddedPostgres(tmp_path)):
        with pytest.raises(StartFailed, match=f"belongs to the user {owner}: start it as that user"):
            await server.start()
    assert user_name(54321) == "54321"


async def test_a_home_is_the_same_by_any_of_its_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, over a link, and with a slash at its end."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    async with EmbeddedNats(Path("real")) as server:
        for other in ("link/", "./link/../link", str(tmp_path / "real")):
            again = EmbeddedNats(Path(other))
            await again.start()
            assert again.daemon.process() == server.daemon.process()
            assert again.url == server.url


async def test_postgres_starts_in_a_home_with_any_name(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "".join(name.replace("/", "") for name in HARD[:-1]) / ("x" * 100))
    for rows in (1, 2):
        async with server:
            assert await insert(server.url) == rows


async def test_a_log_from_before_the_accounts_is_not_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "nats" / "jetstream" / "$G" / "streams").mkdir(parents=True)
    with pytest.raises(StartFailed, match="without accounts: archive it"):
        await EmbeddedNats(tmp_path).start()


def test_opensearch_is_configured_whatever_the_values_are(tmp_path: Path) -> None:
    settings: dict[str, str | int] = {"path.repo": "/tmp/ü: 数据 #1 '\"\\😀", "node.attr.zone": "on", "size": 3}
    EmbeddedOpenSearch(tmp_path, settings=settings)._configure()
    [file] = tmp_path.rglob("opensearch.yml")
    assert yaml.safe_load(file.read_bytes()) == {"network.host": "127.0.0.1", **settings}


async def test_nats_syncs_every_write(nats_server: EmbeddedNats) -> None:
    configuration = (nats_server.home / "nats.conf").read_text()
    assert '"sync_interval": "always"' in configuration
    assert f'"max_payload": {8 * 2**20}' in configuration


async def test_nats_has_a_memory_limit_that_the_operator_can_replace(
    nats_server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit() -> str:
        process = nats_server.daemon.process()
        assert process is not None
        return process.environ()["GOMEMLIMIT"]

    assert embedded.MEMORY <= int(limit()) < embedded.MEMORY + 2**20
    await nats_server.stop()
    (nats_server.store / "stored").write_bytes(bytes(8 * 2**20))
    await nats_server.start()
    assert embedded.MEMORY + 2 * 2**20 <= int(limit()) < embedded.MEMORY + 3 * 2**20
    await nats_server.stop()
    monkeypatch.setenv("GOMEMLIMIT", "1GiB")
    await nats_server.start()
    assert limit() == "1GiB"


async def test_what_nats_stores_is_encrypted_with_the_key_of_the_home(nats_server: EmbeddedNats) -> None:
    await publish(nats_server.url, "a very telling sentence")
    await nats_server.stop()
    files = [path.read_bytes() for path in (nats_server.home / "nats").rglob("*") if path.is_file()]
    assert sum(map(len, files)) > 0
    assert not any(b"very telling" in data for data in files)
    assert (nats_server.home / "secret.key").read_text() not in (nats_server.home / "nats.conf").read_text()


async def test_another_process_takes_over_and_stops_a_running_nats(nats_server: EmbeddedNats) -> None:
    process = nats_server.daemon.process()
    other = EmbeddedNats(nats_server.home)
    await other.start()
    assert other.url == nats_server.url
    assert other.daemon.process() == process
    await other.stop()
    assert nats_server.daemon.process() is None
    assert not nats_server.daemon.pid_file.exists()


async def test_a_taken_port_is_replaced(nats_server: EmbeddedNats) -> None:
    port = nats_server.port
    await nats_server.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        await nats_server.start()
        assert nats_server.port != port
        assert await publish(nats_server.url, "elsewhere") == 1


async def test_a_pid_that_belongs_to_another_program_is_left_alone(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path)
    server.daemon.pid_file.parent.mkdir()
    me = psutil.Process()
    record = {"pid": me.pid, "created": me.create_time(), "executable": "/nowhere/nats-server"}
    server.daemon.pid_file.write_text(json.dumps(record))
    assert server.daemon.process() is None
    assert not await server.daemon.stop()
    async with server:
        assert await publish(server.url, "started") == 1


async def test_a_nats_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "nats").write_text("not a folder")
    with pytest.raises(StartFailed, match=r"(?s)nats ended while it started.*nats\.log.*not a directory"):
        await EmbeddedNats(tmp_path).start()
    assert not (tmp_path / "run" / "nats.pid").exists()


async def test_postgres_has_pgvector_and_keeps_its_password(postgres_server: EmbeddedPostgres) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_server.url) as connection:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        row = await (await connection.execute("SELECT '[1,0]'::halfvec <=> '[0,1]', current_database()")).fetchone()
    assert row == (1.0, "headrace")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await psycopg.AsyncConnection.connect(postgres_server.url, password="wrong")
    assert stat.S_IMODE((postgres_server.home / "postgres.password").stat().st_mode) == 0o600


async def test_what_postgres_committed_survives_a_kill_and_the_address_stays(postgres_server: EmbeddedPostgres) -> None:
    url = postgres_server.url
    rows = await insert(url)
    kill(postgres_server)
    await postgres_server.start()
    assert postgres_server.url == url
    assert await insert(url) == rows + 1


async def test_another_process_takes_over_and_stops_a_running_postgres(postgres_server: EmbeddedPostgres) -> None:
    process = postgres_server.daemon.process()
    other = EmbeddedPostgres(postgres_server.home)
    await other.start()
    assert other.url == postgres_server.url
    assert other.daemon.process() == process
    await other.stop()
    assert postgres_server.daemon.process() is None
    await postgres_server.start()


async def test_a_pid_file_of_postgres_that_names_a_stranger_does_not_stop_it(postgres_server: EmbeddedPostgres) -> None:
    await postgres_server.stop()
    left = postgres_server.data / "postmaster.pid"
    left.write_text(f"{os.getpid()}\n{postgres_server.data}\n0\n{postgres_server.port}\n\n127.0.0.1\n\nready\n")
    os.chown(left, postgres_server.data.stat().st_uid, postgres_server.data.stat().st_gid)
    await postgres_server.start()
    assert await insert(postgres_server.url)


async def test_a_postgres_that_cannot_start_says_why(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.data.mkdir()
    (server.data / "PG_VERSION").write_text("18\n")
    with pytest.raises(StartFailed, match=r"(?s)postgres ended while it started.*postgres\.log"):
        await server.start()
    assert server.daemon.process() is None


async def test_a_start_names_tables_of_another_postgres(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.data.mkdir()
    (server.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(StartFailed, match=r"is of PostgreSQL 17, and this version of Headrace runs 18: move it away\."):
        await server.start()


async def test_an_initialisation_that_was_cut_short_is_begun_again(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.data.mkdir()
    (server.data / "base").mkdir()
    (server.data / "half.conf").write_text("half")
    async with server:
        assert await insert(server.url) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")
async def test_root_starts_postgres_as_another_user_in_a_closed_folder(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    async with EmbeddedPostgres(closed / "home") as server:
        process = server.daemon.process()
        assert process is not None
        assert process.uids().real != 0
        assert closed in server.opened
    assert stat.S_IMODE(closed.stat().st_mode) == 0o701


def test_opening_a_path_lets_others_through_only(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir(mode=0o700)
    assert folder in open_path(folder / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o701
    assert open_path(folder / "b") == []


async def test_a_server_whose_log_is_gone_is_stopped(nats_server: EmbeddedNats) -> None:
    nats_server.daemon.log.unlink()
    assert await nats_server.stop()
    assert not await nats_server.stop()


async def test_a_server_that_ignores_the_request_to_stop_is_killed(nats_server: EmbeddedNats) -> None:
    process = nats_server.daemon.process()
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    assert await nats_server.daemon.stop(within=0.2)
    assert not process.is_running()


async def test_nats_keeps_the_reserve_when_others_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit falls as well as it rises, without a restart, and below what is stored already."""
    async with EmbeddedNats(tmp_path) as server:
        process = server.daemon.process()
        for _ in range(15):
            assert await taken(server.url, "x" * 100_000)
        for free, takes in ((10**9 - 10**7, False), (2 * 10**9, True), (0, False)):
            monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(10**10, 10**10 - free, free))
            await server.tend()
            async with asyncio.timeout(10):
                while await taken(server.url, "x") is not takes:
                    await asyncio.sleep(0.05)
        assert server.daemon.process() == process
        assert "decreasing" not in server.daemon.log.read_text()


async def test_nats_refuses_at_the_reserve_of_a_disk_that_others_fill(tmp_path: Path) -> None:
    """It never writes to a full disk, which would silence a stream, and takes messages again once there is room."""
    disk = tmp_path / "home"
    with small_disk(disk, 200):
        async with EmbeddedNats(disk) as server:
            process, spare = server.daemon.process(), reserve(200 * 2**20)
            assert await taken(server.url, "x" * 100_000)
            with ballast(disk, leaving=2 * spare):
                await server.tend()
                while await taken(server.url, "x" * 100_000):
                    await server.tend()
                assert spare / 2 < shutil.disk_usage(disk).free < 1.5 * spare
            await server.tend()
            async with asyncio.timeout(10):
                while not await taken(server.url, "x" * 100_000):
                    await asyncio.sleep(0.05)
            assert server.daemon.process() == process
            assert "no space left" not in server.daemon.log.read_text()


async def test_a_disk_too_small_for_the_queue_limits_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JetStream reserves the maximum size of a stream; what the disk has no room for is limited by the disk."""
    async with EmbeddedNats(tmp_path) as server:
        client = await nats.connect(server.url)
        try:
            for free, size in ((10**8, -1), (10**11, 2**30)):
                monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(10**11, 10**11 - free, free))
                monkeypatch.setattr(embedded, "reserve", lambda total: 10**7)
                await server.tend()
                async with asyncio.timeout(10):
                    while await limit(server) != server._most:
                        await asyncio.sleep(0.05)
                await streams.set_up(client.jetstream())
                found = (await client.jetstream().stream_info(COMMANDS)).config
                assert (found.max_bytes, found.max_msgs, found.max_msgs_per_subject) == (size, 100_000, 2000)
        finally:
            await client.close()


@pytest.mark.parametrize(
    "fault",
    [
        "Filestore [T] Critical write error: write 1.blk: no space left on device",
        "Filestore [T] Critical write error: lmb missing",
        "consumer state: read-only file system",
        "write 1.blk: input/output error",
    ],
)
async def test_nats_is_restarted_once_its_disk_takes_files_again(
    nats_server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    kept = await publish(nats_server.url, "kept")
    before = nats_server.daemon.process()
    with nats_server.daemon.log.open("a") as log:
        log.write(f"[ERR] {fault}\n")
    with monkeypatch.context() as patch:
        patch.setattr(machine, "unwritable", lambda folder: "Read-only file system")
        await nats_server.tend()
        assert nats_server.daemon.process() == before
    await nats_server.tend()
    assert nats_server.daemon.process() != before
    after = nats_server.daemon.process()
    await nats_server.tend()
    assert nats_server.daemon.process() == after
    assert await publish(nats_server.url, "more") == kept + 1


class Usage(NamedTuple):
    """Bytes of a disk."""

    total: int
    used: int
    free: int


async def test_a_login_is_admitted_without_changing_the_limit(nats_server: EmbeddedNats) -> None:
    worker = EmbeddedNats(nats_server.home)
    assert await limit(nats_server) == nats_server._most
    await worker.admit("acme", "billing", "1")
    assert await limit(nats_server) == nats_server._most
    assert worker.tenants()["acme"] == ["tenant-acme.billing"]


async def limit(server: EmbeddedNats) -> int:
    client = await nats.connect(server.url)
    try:
        return int((await client.jetstream().account_info()).limits.max_storage)
    except nats.js.errors.ServiceUnavailableError:  # while it reloads
        return 0
    finally:
        await client.close()


async def taken(url: str, text: str) -> bool:
    """Return whether it was stored; else it was refused for want of room."""
    try:
        return await publish(url, text) > 0
    except nats.js.errors.ServiceUnavailableError:  # while it reloads
        await asyncio.sleep(0.05)
        return await taken(url, text)
    except nats.js.errors.APIError as refusal:
        if refusal.err_code != 10002:
            raise
        return False


async def test_a_nats_server_that_is_not_the_pinned_one_starts_only_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "bin" / "nats-server"
    other.parent.mkdir()
    shutil.copy(embedded.nats_server(), other)
    with other.open("ab") as program:
        program.write(b"\0")
    monkeypatch.setattr(sys, "executable", str(other.with_name("python")))
    with pytest.raises(StartFailed, match=r"not nats-server 2[0-9.]+ as it was published.*HEADRACE_NATS_SERVER"):
        await EmbeddedNats(tmp_path / "home").start()
    async with EmbeddedNats(tmp_path / "home", program=other) as server:
        assert await publish(server.url, "trusted") == 1


def test_a_changed_program_of_postgres_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded.check_postgres() is bool(pinned.PINS["postgres"].digest)
    for name in ("postgres", "initdb", "vector.so"):
        changed = pinned.PINS | {name: pinned.Pin("0.6.0", {pinned.ANY: "0" * 64})}  # type: ignore[operator]
        with monkeypatch.context() as patch:
            patch.setattr(pinned, "PINS", changed)
            with pytest.raises(StartFailed, match=f"{name} 0.6.0 as it was published"):
                embedded.check_postgres()
