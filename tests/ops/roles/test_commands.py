"""The role `commands`: the login with which it answers NATS servers on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.jetstream.callout import Keys
from ops.roles.commands import _of_the_settings
from ops.settings import InvalidSetting, Settings, with_login

KEY = "the key of an operator"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("nats://host:4222", "nats://callout:p%40ss@host:4222"),
        ("tls://worker:secret@a:4222,tls://b:4222", "tls://callout:p%40ss@a:4222,tls://callout:p%40ss@b:4222"),
        ("nats://worker@host", "nats://callout:p%40ss@host"),
    ],
)
def test_a_login_replaces_the_one_in_an_address(url: str, found: str) -> None:
    assert with_login(url, "callout", "p@ss") == found


def test_the_keys_and_the_login_come_from_the_settings(tmp_path: Path) -> None:
    settings = Settings.load(
        home=tmp_path, nats_url="tls://worker:w@nats:4222", nats_key=KEY, nats_callout_password="secret-password"
    )
    url, keys = _of_the_settings(settings)
    assert url == "tls://callout:secret-password@nats:4222"
    assert keys.public == Keys.of(KEY.encode()).public


def test_the_password_needs_the_key(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, nats_url="nats://nats:4222", nats_callout_password="secret-password")
    with pytest.raises(InvalidSetting, match="HEADRACE_NATS_KEY"):
        _of_the_settings(settings)
