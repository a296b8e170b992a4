"""Marked secrets are planted everywhere, and looked for in all that is printed and logged."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import structlog

from adapters.jetstream.client import Client
from handlers.routes import ROUTES
from ops import logs, supervisor
from ops.cli import bus
from ops.settings import Settings
from tests.ops.cli.test_cli import Cli
from tests.ops.test_supervisor import once_answers

MARKED = {
    "secret_key": "marked-secret-key-0001",
    "further_secret_keys": "marked-further-key-0002,marked-further-key-0003",
    "nats_key": "marked-nats-key-0004",
    "archive_key": "marked-archive-key-0005",
    "view_token": "marked-view-token-0006",
    "otlp_headers": "authorization=marked-otlp-0007",
}
PROVIDER_KEY = "sk-marked-provider-0008"
WRONG = "marked-wrong-login-0009"
MARK = "marked-"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))


@pytest.fixture
def written(tmp_path: Path) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    (tmp_path / "postgres.password").write_text("marked-home-0010")
    urls = {
        "nats_url": "nats://worker:marked-nats-0011@a:1,nats://worker:marked-nats-0012@b:1",
        "postgres_url": "postgresql://owner:marked%2Fpostgres-0013@db/headrace",
    }
    logs.configure(Settings.load(log_level="debug", **MARKED, **urls), stream)
    yield stream
    root.handlers, root.level = before[0], before[1]
    structlog.reset_defaults()


SECRETS = [
    *(part.removeprefix("authorization=") for value in MARKED.values() for part in value.split(",")),
    *("marked-home-0010", "marked-nats-0011", "marked-nats-0012", "marked/postgres-0013", "marked%2Fpostgres-0013"),
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_known_secret_is_in_no_line_wherever_it_was(written: io.StringIO, secret: str) -> None:
    ours, theirs = structlog.get_logger("ours"), logging.getLogger("theirs")

    def fail() -> None:
        local = secret  # a traceback must not have it
        try:
            raise KeyError(f"inner {local}")
        except KeyError as error:
            error.add_note(f"note {secret}")
            raise RuntimeError(secret, {"nested": [secret]}) from error

    for log in (ours, theirs):
        try:
            fail()
        except RuntimeError:
            log.exception("failed")
        log.warning("said %s", secret)
        log.warning("said %s", {"a": (secret, [secret])})
    ours.info("x", text=secret, nested={"list": [secret, {"deep": secret}]}, raw=secret.encode())
    ours.info("x", error=ValueError(secret))
    ours.info("x", some={secret}, path=Path(f"/x/{secret.replace('/', '_')}-{secret}"), stack_info=True)
    with structlog.contextvars.bound_contextvars(tenant=secret):
        ours.debug("bound")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(secret, stacklevel=1)
        logging.captureWarnings(False)
    assert written.getvalue().count("\n") >= 10
    assert secret not in written.getvalue()
    assert logs.REDACTED in written.getvalue()


def test_secrets_are_known_by_their_form_as_well(written: io.StringIO) -> None:
    for text in (
        "user=a password=hunter22 host=b",
        "password='hunter22 x' host=b",
        "https://u:hunter22@h/",
        "Bearer hunter22",
    ):
        structlog.get_logger().info("x", text=text)
    assert "hunter22" not in written.getvalue()
    assert written.getvalue().count("host=b") == 2


def test_short_values_are_no_secrets_to_look_for(tmp_path: Path) -> None:
    settings = Settings.load(postgres_url="postgresql://postgres:postgres@h/d", nats_url="nats://a:b@h")
    assert logs.secrets_of(settings) == {"postgres"}
    assert logs.Redaction(()).text("b") == "b"


# --- the command line ----------------------------------------------------------------------------------------


async def test_a_crash_is_recorded_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in MARKED.items():
        monkeypatch.setenv(f"HEADRACE_{name.upper()}", value)
    monkeypatch.setenv("HEADRACE_NATS_URL", "nats://worker:marked-nats-0011@127.0.0.1:1")

    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(f"{MARKED['secret_key']} nats://worker:marked-nats-0011@h {MARKED['view_token']}")

    monkeypatch.setattr(Client, "connect", broken)
    result = await Cli(capsys)("tail")
    log = tmp_path / "log" / "cli.log"
    assert result.code == 1
    assert "ZeroDivisionError" in log.read_text()
    assert MARK not in log.read_text() + result.out + result.err
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_every_secret_field_of_a_command_is_known_by_its_name() -> None:
    found = []
    for name, route in ROUTES.items():
        for field, described in route.command.model_json_schema()["properties"].items():
            if '"writeOnly"' in json.dumps(described):
                found.append(f"{name} {field}")
                assert bus.named_secrets([f"{field}=x"]) == [field]
    tools = ["toolset.register secret", "user_secret.set secret"]
    assert set(found) == {
        *tools,
        *("sql_login.create verifier", "provider.register key", "provider.add_credential key"),
    }


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        (["key=sk-x", "name=y"], ["key"]),
        (["a.api_key:=1"], ["a.api_key"]),
        (["key="], []),
        (["key@=file"], []),
        (["monkey=x", "model.max_tokens:=3"], []),
    ],
)
def test_secrets_on_the_command_line_are_named(pairs: list[str], named: list[str]) -> None:
    assert bus.named_secrets(pairs) == named


async def test_a_secret_is_read_from_a_file_or_standard_input_and_warned_about_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"{PROVIDER_KEY}\n")
    assert bus.merged({}, [f"key@={tmp_path / 'key'}", "a.b@=" + str(tmp_path / "key")]) == {
        "key": PROVIDER_KEY,
        "a": {"b": PROVIDER_KEY},
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROVIDER_KEY))
    assert bus.merged({}, ["key@=-"]) == {"key": PROVIDER_KEY}
    headrace = Cli(capsys)
    monkeypatch.setenv("HEADRACE_NATS_URL", "nats://127.0.0.1:1")
    missing = await headrace("send", "provider.register", f"key@={tmp_path / 'nowhere'}")
    assert (missing.code, "cannot be read" in missing.err) == (1, True)
    warned = await headrace("send", "provider.register", f"key={PROVIDER_KEY}")
    assert "key is in the history of your shell and in the list of processes: use key@=-." in warned.err
    assert PROVIDER_KEY not in warned.out + warned.err


# --- all roles -----------------------------------------------------------------------------------------------


async def test_no_worker_prints_or_logs_a_secret(nats_url: str, database_url: str, tmp_path: Path, home: Path) -> None:
    passwords = [str(urlsplit(url).password) for url in (nats_url, database_url)]
    settings = Settings.load(
        home=tmp_path,
        nats_url=nats_url,
        postgres_url=database_url,
        archive_url=str(tmp_path / "archive"),
        otlp_endpoint="http://127.0.0.1:9",
        view_address="127.0.0.1:0",
        log_level="debug",
        **MARKED,
    )
    daemon = supervisor.Worker(settings, "all").daemon
    daemon.start(supervisor.command_line("worker", "--role", "all"), env=supervisor.environment(settings))
    try:
        async with await Client.connect(nats_url) as client, asyncio.timeout(120):
            await once_answers(client, "all", daemon)
            register = {"name": "lab", "base_url": "http://127.0.0.1:8000/v1", "key": PROVIDER_KEY}
            assert (await client.send("provider.register", register, wait=60))["status"] == "accepted"
            for wrong in ({**register, "extra": PROVIDER_KEY}, {**register, "key": [PROVIDER_KEY]}):
                assert (await client.send("provider.register", wrong, wait=60))["status"] == "rejected"
            app = (await client.send("app.create", {"name": "x"}, wait=60))["ids"]["app"]
            model = {"provider": "lab", "name": "m"}
            assert (await client.send("app.configure", {"app": app, "model": model}, wait=60))["status"] == "accepted"
            frames = [frame async for frame in client.ask(app, "Who?", patience=60)]
            assert frames[-1]["type"] == "failed"
            viewer = (tmp_path / "run" / "viewer.url").read_text()
            async with httpx2.AsyncClient() as browser:
                for token, status in ((WRONG, 403), (MARKED["view_token"], 303)):
                    assert (await browser.get(f"{viewer}/login", params={"code": token})).status_code in (403, 429)
                    form = {"token": token, "next": "/traces"}
                    headers = {"Origin": viewer}
                    assert (await browser.post(f"{viewer}/login", data=form, headers=headers)).status_code == status
    finally:
        await daemon.stop()
    printed = []
    host = nats_url.rpartition("@")[2]
    for role, changes in (
        ("commands", {"nats_url": f"nats://worker:{WRONG}@{host}"}),
        ("project", {"postgres_url": database_url.replace(passwords[1], WRONG)}),
        ("view", {"postgres_url": database_url.replace(passwords[1], WRONG)}),
        ("project", {"postgres_url": f"postgresql://{WRONG}:{WRONG}@127.0.0.1:1/x?{WRONG}={WRONG}"}),
    ):
        printed.append(await asyncio.to_thread(some_seconds, role, settings.model_copy(update=changes)))
    assert all(printed)
    found = logged(tmp_path) | logged(home)
    assert any("provider.register" in text or "stopped" in text for text in found.values())
    for secret in (*SECRETS[:8], PROVIDER_KEY, *passwords):
        for path, text in found.items():
            assert secret not in text, (secret, path)
        for text in printed:
            assert secret not in text
    for text in printed[:3]:
        assert WRONG not in text


def logged(home: Path) -> dict[Path, str]:
    """The logs in a home, which only their owner can read."""
    files = list(home.rglob("log/*"))
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    return {file: file.read_text(errors="replace") for file in files}


def some_seconds(role: str, settings: Settings) -> str:
    """All that a worker prints from its first line on, for some seconds in which it does not get on."""
    process = subprocess.Popen(
        supervisor.command_line("worker", "--role", role),
        env=supervisor.environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = threading.Timer(60, process.kill)
    limit.start()
    with process as worker:
        assert worker.stdout
        first = worker.stdout.readline()
        enough = threading.Timer(4, worker.terminate)
        enough.start()
        output = first + worker.stdout.read()
    enough.cancel()
    limit.cancel()
    return output
