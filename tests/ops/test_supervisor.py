from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import psutil
import psycopg
import pytest

from adapters.jetstream import streams
from adapters.jetstream.client import Client
from adapters.jetstream.sessions import Sessions
from adapters.postgres import tables
from ops import supervisor
from ops.roles import EVERY, GUESTS
from ops.servers.daemon import Daemon, StartFailed
from ops.servers.model import NAME
from ops.settings import AlreadyRunning, Settings
from ops.supervisor import Supervisor, Watched, claimed
from tests.small_model import QUESTION, TEXT

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    daemon = Daemon(tmp_path, "one")

    async def start() -> None:
        daemon.start(SLEEP)

    await start()
    yield Watched(daemon, start, pause=0.01)
    await daemon.stop()


async def die(daemon: Daemon) -> psutil.Process:
    process = daemon.process()
    assert process is not None
    process.kill()
    while daemon.process() is not None:
        await asyncio.sleep(0.01)
    return process


async def started_again(watched: Watched) -> None:
    while not await watched.look():
        await asyncio.sleep(0.005)


async def test_what_dies_is_started_again_after_a_pause_that_grows(watched: Watched) -> None:
    assert not await watched.look()
    first = await die(watched.daemon)
    await started_again(watched)
    assert watched.daemon.process() not in (None, first)
    await die(watched.daemon)
    await started_again(watched)
    assert watched.pause == 0.04
    assert not await watched.look()


async def test_what_ran_for_long_is_started_again_soon(watched: Watched) -> None:
    watched.pause, watched.started = 8.0, watched.started - 2 * supervisor.STEADY_AFTER
    await die(watched.daemon)
    await started_again(watched)
    assert watched.pause == 0.01


async def test_what_does_not_start_is_tried_again(watched: Watched) -> None:
    tries = 0
    start = watched.start

    async def fail_once() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StartFailed("not yet")
        await start()

    watched.start = fail_once
    await die(watched.daemon)
    await started_again(watched)
    assert tries == 2


async def test_logs_are_trimmed_while_their_processes_run(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of NATS is left to NATS, whose name for it would change."""
    monkeypatch.setattr(supervisor, "TRIM_EVERY", 0.01)
    home = watched.daemon.home
    nats = Daemon(home, "nats")
    running = Supervisor(Settings.load(home=home, log_file_mb=1, log_files=1), print)
    running.watched = [watched, Watched(nats, watched.start)]
    logs = [daemon.log for daemon in (watched.daemon, nats, Daemon(home, "up"))]
    for log in logs:
        log.write_bytes(b"x" * (2**20 + 1))
    task = asyncio.create_task(running._trim_logs())
    async with asyncio.timeout(10):
        while any(log.stat().st_size for log in (logs[0], logs[2])):
            await asyncio.sleep(0.01)
    task.cancel()
    sizes = {file.name: file.stat().st_size for file in (home / "log").iterdir()}
    whole = 2**20 + 1
    assert sizes == {"one.log": 0, "one.log.1": whole, "nats.log": whole, "up.log": 0, "up.log.1": whole}


def test_one_supervisor_a_home(tmp_path: Path) -> None:
    with claimed(tmp_path):
        assert Daemon(tmp_path, "up").process() == psutil.Process()
        with pytest.raises(AlreadyRunning, match="headrace down"), claimed(tmp_path):
            pass
    assert Daemon(tmp_path, "up").process() is None


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    home = Path(tempfile.mkdtemp(prefix="headrace tests ü 数据 #$'\"\\😀 "))
    yield Settings.load(home=home, archive_url=str(home / "archive"), otlp_endpoint="http://127.0.0.1:1", model=True)
    asyncio.run(supervisor.down(Settings.load(home=home)))
    shutil.rmtree(home)


def headrace(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a locale that knows ASCII alone."""
    environment = supervisor.environment(settings) | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    return subprocess.run(
        supervisor.command_line(*arguments),
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=170,
        check=False,
    )


def pids(settings: Settings) -> dict[str, int]:
    return {path.stem: json.loads(path.read_text())["pid"] for path in (settings.home / "run").glob("*.pid")}


def outcome(settings: Settings, id: str) -> dict[str, Any]:
    result = headrace(settings, "send", "dataset.create", "name=kept", "--id", id, "--wait", "60", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    return dict(json.loads(result.stdout))


ID = "018f0000-0000-7000-8000-000000000001"


def assert_no_password_is_shown(settings: Settings, printed: str) -> None:
    """Not by the command line, in a log or in a list of processes. Each role has logins with no more than it needs."""
    logins = settings.running()["logins"]
    urls = {url for login in logins.values() for url in login.values()}
    passwords = {url.partition("@")[0].rpartition(":")[2] for url in urls}
    assert all(len(password) == 64 for password in passwords)
    passwords |= {(settings.home / file).read_text() for file in ("view.token", "model.key")}
    logs = b"".join(file.read_bytes() for file in (settings.home / "log").iterdir())
    printed += " ".join(part for pid in pids(settings).values() for part in psutil.Process(pid).cmdline())
    for password in passwords:
        assert password not in printed
        assert password.encode() not in logs
    assert b"login?code=" not in logs
    files = [
        file for file in settings.home.rglob("*") if file.is_file() and settings.home / "postgres" not in file.parents
    ]
    assert {
        "run.json",
        "pgpass",
        "accounts.conf",
        "nats.key",
        "archive.key",
        "model.key",
        "view.token",
        "up.log",
        "viewer.url",
        "nats.pid",
    } <= {file.name for file in files}
    assert [file for file in files if file.stat().st_mode & 0o077] == []
    assert settings.home.stat().st_mode & 0o076 == 0  # as root, PostgreSQL's user passes through
    users = {role: login["nats_url"].split("/")[2].partition(":")[0] for role, login in logins.items() if role in EVERY}
    assert users == {role: role if role in GUESTS else "worker" for role in EVERY}
    assert {role for role in EVERY if "postgres_url" not in logins[role]} == {"commands", "embed", "archive"}
    superusers = {role for role, login in logins.items() if "//postgres:" in login.get("postgres_url", "")}
    assert superusers == {"operator", "project"}


@pytest.mark.parametrize("command", ["env", "nats accounts --log"])
def test_passwords_are_not_written_to_a_terminal(tmp_path: Path, command: str) -> None:
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-m", "ops.cli", *command.split(), "--home", str(tmp_path)]
    done = subprocess.run(arguments, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "not shown in a terminal" in done.stderr
    for end in (ours, theirs):
        os.close(end)


def assert_people_log_in(settings: Settings) -> None:
    """`headrace env` gives programs of the tenant and `psql` logins of their own."""
    exports = headrace(settings, "env").stdout
    shell = subprocess.run(["sh", "-c", f"{exports}env"], capture_output=True, text=True, check=True)
    there = dict(line.split("=", 1) for line in shell.stdout.splitlines() if "=" in line)
    given = json.loads(headrace(settings, "env", "--json").stdout)
    assert given == {name: there[name] for name in given}
    assert set(given) == {"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSFILE", "NATS_URL"}
    variables = {name.lower()[2:]: value for name, value in given.items() if name.startswith("PG")}
    with psycopg.connect(dbname=variables.pop("database"), **variables) as connection:
        assert connection.execute("SELECT count(*) FROM headrace.apps").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE headrace.mine ()")
    assert asyncio.run(outcome_of(given["NATS_URL"], "default", "s_default")) == "accepted"
    assert headrace(settings, "env", "--tenant", "acme").returncode == 1
    assert headrace(settings, "send", "bus_login.open", "name=crm", "--tenant", "acme").returncode == 0
    deadline = time.monotonic() + 60
    while (opened := headrace(settings, "env", "--tenant", "acme", "--login", "crm", "--json")).returncode:
        assert time.monotonic() < deadline
    assert asyncio.run(outcome_of(json.loads(opened.stdout)["NATS_URL"], "acme", "s_crm")) == "accepted"


async def outcome_of(url: str, tenant: str, actor: str) -> str:
    async with await Client.connect(url, tenant, actor) as client:
        return str((await client.send("budget.set", {"name": "b", "scope": "tenant", "amount_usd": 1}))["status"])


@pytest.mark.timeout(600)
def test_it_starts_without_workers_that_fail_survives_kills_and_stops(settings: Settings) -> None:
    """The viewer's address is taken at first, and the archive is none."""
    broken = Path(settings.archive_url) / "streams" / "EVENTS" / f"segment-{1:020}"
    broken.parent.mkdir(parents=True)
    broken.write_text("nothing that was archived")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings.model_copy(update={"view_address": f"127.0.0.1:{taken.getsockname()[1]}"})
        started = headrace(settings, "up", "--detach")
        assert started.returncode == 3, started.stderr
        [sentence] = [line for line in started.stdout.splitlines() if line.startswith("Headrace is ready, except for ")]
        assert "view: The viewer cannot listen on" in sentence
        assert "archive: " in sentence
        assert broken.name in sentence
        assert "unforeseen" not in started.stdout + started.stderr
        assert "except for" in (settings.home / "log" / "up.log").read_text()

        running = settings.running()
        assert set(running["missing"]) == {"view", "archive"}
        assert {"nats", "postgres", "worker-project", "worker-answer"} <= set(running["processes"])
        first = outcome(settings, ID)
        assert headrace(settings, "rebuild", "--json").returncode == 0
        rows = headrace(settings, "sql", "select id from datasets", "--json").stdout
        assert json.loads(rows) == {"id": ID}
        said = headrace(settings, "doctor", "--json")
        assert said.returncode == 1
        wrong = {found["what"]: found for found in map(json.loads, said.stdout.splitlines()) if not found["good"]}
        assert set(wrong) == {"worker view", "worker archive", "archive"}
        assert "The viewer cannot listen on" in wrong["worker view"]["found"]
        assert "worker-view.log" in wrong["worker view"]["advice"]
        assert broken.name in wrong["archive"]["found"]

    until(lambda: "view" not in settings.running()["missing"])
    again = headrace(settings, "up", "--detach", "--json")
    assert again.returncode == 3
    assert set(json.loads(again.stdout)["missing"]) == {"archive"}
    assert again.stderr.startswith("✗ Headrace is already running, except for archive: ")
    with urlopen(f"{settings.viewer}/healthz") as answer:
        assert answer.read() == b"ok\n"
    broken.unlink()
    until(lambda: not settings.running()["missing"])
    again = headrace(settings, "up", "--detach")
    assert again.returncode == 0, again.stderr
    assert "is already running" in again.stdout
    assert_the_link_logs_in_once(settings, started.stdout + again.stdout)
    assert_no_password_is_shown(settings, started.stdout + again.stdout)
    assert_people_log_in(settings)
    until(lambda: headrace(settings, "doctor").returncode == 0)

    running = pids(settings)
    assert set(running) == {"up", "nats", "postgres", "model", *(f"worker-{role}" for role in EVERY)}
    app = asked_of_the_model(settings)
    for name in ("worker-commands", "nats", "postgres", "model"):
        os.kill(running[name], signal.SIGKILL)
    assert outcome(settings, ID) == first
    until(lambda: "28 metres" in headrace(settings, "ask", app, f"{TEXT} {QUESTION}").stdout)
    os.kill(running["up"], signal.SIGKILL)
    started = headrace(settings, "up", "--detach", "--json")
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["nats_url"].startswith("nats://127.0.0.1:")
    assert outcome(settings, ID) == first

    running |= pids(settings)
    stopped = headrace(settings, "down", "--json")
    assert json.loads(stopped.stdout) == {"stopped": ["up"]}
    assert [name for name, pid in running.items() if psutil.pid_exists(pid)] == []
    assert list((settings.home / "run").glob("*.pid")) == []


def asked_of_the_model(settings: Settings) -> str:
    """An app with the embedded model."""
    made = headrace(settings, "send", "app.create", "name=small", "--json").stdout
    [app] = json.loads(made)["ids"].values()
    model = ["model.provider=embedded", f"model.name={NAME}", 'model.parameters:={"temperature": 0}']
    configured = headrace(settings, "send", "app.configure", f"app={app}", *model)
    assert configured.returncode == 0, configured.stderr
    return str(app)


def assert_the_link_logs_in_once(settings: Settings, shown: str) -> None:
    [link] = re.findall(rf"{settings.viewer}/login\?code=\S+", shown)[-1:]
    with build_opener(HTTPCookieProcessor()).open(Request(link, headers={"Accept": "text/html"})) as page:
        assert urlsplit(page.url).path == "/traces"
    with pytest.raises(HTTPError, match="403"):
        build_opener().open(link)


async def test_in_a_terminal_the_start_prints_a_link_that_logs_in(nats_url: str, tmp_path: Path) -> None:
    address = "http://127.0.0.1:1"
    async with await Client.connect(nats_url) as client:
        await streams.set_up(client.stream)
        shown = [
            await Supervisor(Settings.load(home=tmp_path), print, link=link)._link(client, address)
            for link in (False, True)
        ]
        assert shown[0] == address
        assert await Sessions(client.connection).redeem(shown[1].removeprefix(f"{address}/login?code="))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


async def once_answers(client: Client, role: str, daemon: Daemon) -> None:
    while not await supervisor.answers(client, role):
        assert daemon.process(), daemon.tail()
        await asyncio.sleep(0.2)


async def test_of_all_roles_in_one_process_one_may_fail(nats_url: str, database_url: str, tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, nats_url=nats_url, postgres_url=database_url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings.model_copy(update={"view_address": f"127.0.0.1:{taken.getsockname()[1]}"})
        daemon = supervisor.Worker(settings, "all").daemon
        daemon.start(supervisor.command_line("worker", "--role", "all"), env=supervisor.environment(settings))
        try:
            async with await Client.connect(nats_url) as client, asyncio.timeout(120):
                await once_answers(client, "all", daemon)
                assert await supervisor.answers(client, "commands")
                assert await supervisor.answers(client, "project")
                assert not await supervisor.answers(client, "view")
                assert "The viewer cannot listen on" in daemon.log.read_text()
                taken.close()
                await once_answers(client, "view", daemon)
        finally:
            assert await daemon.stop()
    assert '"event": "stopped"' in daemon.log.read_text()


async def test_tables_that_stand_still_say_why(nats_url: str, database_url: str, tmp_path: Path) -> None:
    """They are further than the log is."""
    settings = Settings.load(home=tmp_path, nats_url=nats_url, postgres_url=database_url)
    await tables.set_up(database_url)
    async with tables.connect(database_url) as connection:
        await connection.execute("UPDATE headrace_projection.groups SET sequence = 1000000000")
    ended = await asyncio.to_thread(headrace, settings, "worker", "--role", "project")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("✗ The projector halted: Gap: ")


def test_what_cannot_start_says_why(settings: Settings) -> None:
    (settings.home / "nats").write_text("not a folder")
    for arguments in (["up", "--detach"], ["up"]):
        result = headrace(settings, *arguments)
        assert result.returncode == 1
        assert "not a directory" in result.stderr
        assert "Traceback" not in result.stderr
    assert pids(settings) == {}


async def test_a_role_without_a_process_does_not_answer(nats_url: str) -> None:
    async with await Client.connect(nats_url) as client:
        assert await supervisor.answers(client, "missing", 0.2) is None
