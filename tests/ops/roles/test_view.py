from __future__ import annotations

import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest
from psycopg import errors

from adapters.postgres import tables
from adapters.postgres.reader import login
from ops.roles import view
from ops.settings import InvalidSetting, Settings
from ops.wiring import Wiring

SECRET = b"a secret of sixteen"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def with_default(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Have a port of the test's be the default one: others may use the real one."""
    monkeypatch.setattr(Settings.model_fields["view_address"], "default", f"127.0.0.1:{port}")


def test_where_the_default_port_is_taken_another_one_is(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_default(monkeypatch, taken)
    settings = Settings.load(home=tmp_path, view_address=f"127.0.0.1:{taken}")
    with view.bind(settings, "127.0.0.1", taken) as first:
        port = first.getsockname()[1]
        assert port != taken
    view.remember(tmp_path, port)
    with view.bind(settings, "127.0.0.1", taken) as second:
        assert second.getsockname()[1] == port


def test_a_port_that_was_set_is_not_departed_from(tmp_path: Path, taken: int) -> None:
    settings = Settings.load(home=tmp_path, view_address=f"127.0.0.1:{taken}")
    with pytest.raises(InvalidSetting, match=rf"cannot listen on 127\.0\.0\.1:{taken}.*HEADRACE_VIEW_ADDRESS"):
        view.bind(settings, "127.0.0.1", taken)


async def test_off_the_loopback_it_does_not_start_without_a_token(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, view_address="0.0.0.0:0")
    with pytest.raises(InvalidSetting, match="Set HEADRACE_VIEW_TOKEN"):
        await view.begin(cast(Wiring, SimpleNamespace(settings=settings)))


@pytest.mark.parametrize("given", ["127.0.0.1", "http://127.0.0.1:80", "host:99999", "", ":1"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(InvalidSetting, match="view-address is not usable: must be like"):
        Settings.load(home=tmp_path, view_address=given)


def test_a_short_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="16 characters or more"):
        Settings.load(home=tmp_path, view_token="short")


@pytest.mark.parametrize(
    "token",
    ["a" * 64, "1234567890123456", "abcdefghijklmnop", "passwordpassword", "headraceheadrace", "Xk9$Xk9$Xk9$Xk9$"],
)
def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_VIEW_TOKEN", token)
    with pytest.raises(InvalidSetting, match="HEADRACE_VIEW_TOKEN is not usable: can be guessed") as refused:
        Settings.load(home=tmp_path)
    assert token not in str(refused.value)


def test_a_random_token_is_taken(tmp_path: Path) -> None:
    for _ in range(200):
        for token in (secrets.token_hex(16), secrets.token_urlsafe(16), secrets.token_urlsafe(12)):
            Settings.load(home=tmp_path, view_token=token)


def test_addresses() -> None:
    assert view.address("[::1]:8400") == ("::1", 8400)
    assert view.url("::1", 8400) == "http://[::1]:8400"
    assert view.url("0.0.0.0", 8400) == "http://127.0.0.1:8400"


def test_the_link_is_there_as_long_as_it_leads_somewhere(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path)
    assert settings.viewer == ""
    with view.noted(tmp_path, "http://127.0.0.1:1"):
        assert settings.viewer == "http://127.0.0.1:1"
        assert stat.S_IMODE((tmp_path / "run" / "viewer.url").stat().st_mode) == 0o600
    assert settings.viewer == ""


BEYOND = (
    "CREATE TABLE headrace.mine ()",
    "DELETE FROM headrace.apps",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SELECT pg_read_file('/etc/passwd')",
    "COPY headrace.apps TO PROGRAM 'cat'",
    "SELECT * FROM pg_authid",
)


async def test_the_login_can_read_and_nothing_else(database_url: str) -> None:
    await tables.set_up(database_url)
    url = await login(database_url, SECRET)
    assert url == await login(database_url, SECRET)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SELECT * FROM headrace.apps")
        for statement in BEYOND:
            with pytest.raises(errors.InsufficientPrivilege):
                await connection.execute(statement.encode())
