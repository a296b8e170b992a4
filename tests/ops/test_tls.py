"""Encrypted connections to NATS, PostgreSQL and a collector, with certificates of the lab's CA."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from adapters.jetstream.client import Client, Unreachable
from adapters.postgres import tables
from adapters.telemetry.otlp.collector import Away, Collector
from ops.servers.embedded import HOST, nats_server, open_path, postgres_account, run_as
from ops.settings import Settings, with_password
from ops.wiring import Wiring
from tests.nats_cluster import free_ports, once_there

DEPLOY = Path(__file__).resolve().parents[2] / "ops" / "deploy"


@pytest.fixture(scope="module")
def lab() -> Iterator[Path]:
    """Secrets and certificates, as `secrets.sh` makes them."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([DEPLOY / "secrets.sh", name], check=True)
        yield Path(name)


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    subprocess.run([DEPLOY / "secrets.sh", folder], check=True)
    return folder / "tls" / "ca.crt"


def test_secrets_are_made_once_and_their_folder_is_closed(lab: Path) -> None:
    before = {file: file.read_bytes() for file in lab.rglob("*") if file.is_file()}
    assert lab.stat().st_mode & 0o777 == 0o700
    (lab / "NATS_VIEW_PASSWORD").unlink()
    subprocess.run([DEPLOY / "secrets.sh", lab], check=True)
    changed = {file.name for file, content in before.items() if file.read_bytes() != content}
    assert changed == {"NATS_VIEW_PASSWORD", "nats-users.conf"}
    passwords = [
        file.read_text()
        for file in lab.iterdir()
        if file.name.isupper() and file.name != "HEADRACE_FURTHER_SECRET_KEYS"
    ]
    assert len(set(passwords)) == len(passwords) > 15
    assert all(len(password) > 40 and password.isalnum() and password[0].isalpha() for password in passwords)


@pytest.fixture(scope="module")
def nats_port(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that takes encrypted connections only."""
    [port] = free_ports(1)
    folder = tmp_path_factory.mktemp("nats")
    tls = {"cert_file": str(lab / "tls" / "nats.crt"), "key_file": str(lab / "tls" / "nats.key")}
    settings = {"listen": f"{HOST}:{port}", "tls": tls, "jetstream": {"store_dir": str(folder)}}
    user = {"user": "worker", "password": (lab / "NATS_WORKER_PASSWORD").read_text()}
    (folder / "nats.conf").write_text(json.dumps(settings | {"authorization": user}))
    server = subprocess.Popen([nats_server(), "-c", folder / "nats.conf"], stderr=subprocess.DEVNULL)
    yield port
    server.kill()
    server.wait()


async def test_a_client_and_a_worker_verify_nats_by_the_ca(
    lab: Path, nats_port: int, other_ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = lab / "tls" / "ca.crt"
    url = with_password(f"tls://worker@localhost:{nats_port}", (lab / "NATS_WORKER_PASSWORD").read_text())
    client = await once_there(lambda: Client.connect(url, ca=ca))
    async with client:
        assert isinstance(client.connection._transport._io_writer.get_extra_info("ssl_object"), ssl.SSLObject)  # type: ignore[union-attr]
    for trust in ({}, {"ca": other_ca}, {"ca": tmp_path / "none"}):
        with pytest.raises(Unreachable):
            await Client.connect(url, within=2, **trust)

    secrets = tmp_path / "secrets"
    secrets.mkdir()
    shutil.copy(lab / "NATS_WORKER_PASSWORD", secrets / "HEADRACE_NATS_PASSWORD")
    monkeypatch.setenv("HEADRACE_SECRETS", str(secrets))
    monkeypatch.setenv("HEADRACE_NATS_URL", f"tls://worker@localhost:{nats_port},tls://worker@127.0.0.1:{nats_port}")
    monkeypatch.setenv("HEADRACE_NATS_CA", str(ca))
    settings = Settings.load(home=tmp_path / "home")
    async with Wiring(settings, "test") as wiring:
        await wiring.consumers.start()
        assert (await wiring.nc.jetstream().stream_info("EVENTS")).config.name == "EVENTS"


SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""The embedded PostgreSQL is built without TLS; Debian's has it."""


@pytest.fixture
def postgres_port(lab: Path) -> Iterator[int]:
    """The port of a PostgreSQL with the files of the deployment."""
    if not SERVERS:
        pytest.skip("no PostgreSQL with TLS is installed")
    account = postgres_account()
    user = account.pw_uid, account.pw_gid
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("postgres.crt", "postgres.key"):
            shutil.copy(lab / "tls" / file, folder)
        shutil.copy(DEPLOY / "pg_hba.conf", folder)
        (folder / "password").write_text("owned")
        (folder / "postgres.key").chmod(0o600)
        for file in (folder, *folder.iterdir()):
            shutil.chown(file, *user)
        open_path(folder)
        made = ["--pgdata", str(folder / "data"), "--username=headrace", f"--pwfile={folder / 'password'}"]
        done = run_as(user, [str(SERVERS[-1] / "initdb"), *made, "--auth=scram-sha-256"])
        assert done.returncode == 0, done.stderr
        options = {
            "port": port,
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "ssl": "on",
            "ssl_cert_file": folder / "postgres.crt",
            "ssl_key_file": folder / "postgres.key",
            "hba_file": folder / "pg_hba.conf",
        }
        parts = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        command = [str(SERVERS[-1] / "postgres"), "-D", str(folder / "data"), *parts]
        server = subprocess.Popen(
            command, user=user[0], group=user[1], extra_groups=[], cwd="/", stderr=subprocess.DEVNULL
        )
        yield port
        server.kill()
        server.wait()


async def test_postgres_is_verified_by_the_ca_and_refuses_plain_connections(
    lab: Path, postgres_port: int, other_ca: Path
) -> None:
    def url(parameters: str) -> str:
        return f"postgresql://headrace:owned@localhost:{postgres_port}/postgres?{parameters}"

    async def encrypted(parameters: str) -> object:
        async with tables.connect(url(parameters)) as connection:
            cursor = await connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return await cursor.fetchone()

    verified = f"sslmode=verify-full&sslrootcert={lab / 'tls' / 'ca.crt'}"
    async with asyncio.timeout(60):
        while True:
            with suppress(psycopg.OperationalError):
                assert await encrypted(verified) == (True,)
                break
            await asyncio.sleep(0.05)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        await encrypted(f"sslmode=verify-full&sslrootcert={other_ca}")
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
        await encrypted("sslmode=disable")


class Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


async def test_a_collector_is_verified_by_the_ca(lab: Path, other_ca: Path) -> None:
    server = HTTPServer((HOST, 0), Taking)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(lab / "tls" / "collector.crt", lab / "tls" / "collector.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        endpoint = f"https://localhost:{server.server_port}"
        async with Collector(endpoint, {}, lab / "tls" / "ca.crt") as collector:
            assert (await collector.send([])).rejected == 0
        async with Collector(endpoint, {}, other_ca) as collector:
            with pytest.raises(Away, match="certificate verify failed"):
                await collector.send([])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
