from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from adapters.privacy.masters import LocalMasters, secret
from adapters.privacy.vault import key_id
from ops.settings import InvalidSetting, NotRunning, Settings, forget_secrets


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_nothing_has_to_be_set(tmp_path: Path) -> None:
    settings = Settings.load()
    assert settings.home == tmp_path / ".headrace"
    assert (settings.tenant, settings.nats_url, settings.postgres_url) == ("default", "", "")


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_command_line_goes_before_variables_and_variables_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "here"
    home.mkdir()
    (home / "headrace.toml").write_text('tenant = "file"\nreplicas = 3\nlog_level = "debug"\n')
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    monkeypatch.setenv("HEADRACE_TENANT", "variable")
    monkeypatch.setenv("HEADRACE_LOG_LEVEL", "warning")
    settings = Settings.load(tenant="given", log_level=None)
    assert (settings.tenant, settings.log_level, settings.replicas) == ("given", "warning", 3)


def test_a_named_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('home = "elsewhere"\n')
    monkeypatch.setenv("HEADRACE_CONFIG", str(tmp_path / "mine.toml"))
    assert Settings.load().home == tmp_path / "elsewhere"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TENANT", "")
    assert Settings.load().tenant == "default"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("TENANT", "No Spaces", r"HEADRACE_TENANT is not usable: string should match pattern"),
        ("MODEL_TIMEOUT_S", "soon", r"HEADRACE_MODEL_TIMEOUT_S is not usable: input should be a valid number"),
        ("MODEL_TIMEOUT_S", "0", r"HEADRACE_MODEL_TIMEOUT_S is not usable: input should be greater than 0"),
        ("NATS_URL", "localhost:4222", r"HEADRACE_NATS_URL is not usable: must be like nats://host:4222\."),
        ("POSTGRES_URL", "mysql://x", r"HEADRACE_POSTGRES_URL is not usable: must be like postgresql://"),
        ("SECRET_KEY", "short", r"HEADRACE_SECRET_KEY is not usable: must have 16 characters or more\."),
        ("OTLP_ENDPOINT", "host:4318", r"HEADRACE_OTLP_ENDPOINT is not usable: must be like http://host:4318\."),
        ("OTLP_HEADERS", "secret", r"HEADRACE_OTLP_HEADERS is not usable: must be like name=value,name=value"),
        ("NATS_ULR", "nats://x", r"HEADRACE_NATS_ULR is not a setting: did you mean HEADRACE_NATS_URL\?"),
        ("CONFIG", "missing.toml", r"HEADRACE_CONFIG names missing\.toml, which is not a file\."),
    ],
)
def test_a_bad_variable_is_named_with_its_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, rule: str
) -> None:
    monkeypatch.setenv(f"HEADRACE_{name}", value)
    with pytest.raises(InvalidSetting, match=rf"^{rule}") as caught:
        Settings.load()
    assert "\n" not in str(caught.value)
    assert name != "SECRET_KEY" or value not in str(caught.value).replace("shorter", "")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('tennant = "x"', r"tennant in .*headrace\.toml is not a setting\."),
        ("replicas = 9", r"replicas in .*headrace\.toml is not usable: input should be less than or equal to 5\."),
        ("replicas = ", r".*headrace\.toml cannot be read: "),
    ],
)
def test_a_bad_line_of_the_file_is_named_with_its_rule(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "headrace.toml").write_text(text)
    with pytest.raises(InvalidSetting, match=rule):
        Settings.load(home=tmp_path)


def test_a_bad_option_is_named_as_an_option() -> None:
    with pytest.raises(InvalidSetting, match=r"^--tenant is not usable"):
        Settings.load(tenant="A B")


def test_the_addresses_of_running_servers_are_found(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, nats_url="nats://mine:4222")
    with pytest.raises(NotRunning, match=r"headrace up.*HEADRACE_POSTGRES_URL"):
        settings.located()
    logins = {
        "operator": {"nats_url": "nats://worker:p@theirs:1", "postgres_url": "postgresql://owner:p@there/x"},
        "view": {"nats_url": "nats://view:p@theirs:1", "postgres_url": "postgresql://reader:p@there/x"},
    }
    settings.run_file.write_text(json.dumps({"logins": logins}))
    located = settings.located()
    assert (located.nats_url, located.postgres_url) == ("nats://mine:4222", "postgresql://owner:p@there/x")
    located = Settings.load(home=tmp_path).located(role="view")
    assert {"nats_url": located.nats_url, "postgres_url": located.postgres_url} == logins["view"]
    with pytest.raises(NotRunning):
        settings.located("postgres", role="archive")


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    made = secret(path)
    assert len(bytes.fromhex(made)) == 32
    assert secret(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_secret_is_the_one_that_is_set_or_that_of_the_home(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, secret_key="0123456789abcdef")
    assert settings.masters().read() == [b"0123456789abcdef"]
    assert "0123456789abcdef" not in repr(settings)
    assert not (tmp_path / "secret.key").exists()
    assert Settings.load(home=tmp_path).masters().read() == [(tmp_path / "secret.key").read_bytes()]


def test_further_secrets_follow_the_current_one(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, secret_key="a" * 16, further_secret_keys=f"{'b' * 16}, {'a' * 16},")
    assert settings.masters().read() == [b"a" * 16, b"b" * 16]
    (tmp_path / "secret.key").write_text(f"{'c' * 16}\n\n{'d' * 16}\n")
    settings = Settings.load(home=tmp_path, further_secret_keys="e" * 16)
    assert settings.masters().read() == [b"c" * 16, b"d" * 16, b"e" * 16]
    assert settings.vault().ids == [key_id(letter * 16) for letter in (b"c", b"d", b"e")]


def test_a_new_secret_is_written_above_the_earlier_ones(tmp_path: Path) -> None:
    masters = LocalMasters(tmp_path / "secret.key")
    first = masters.read()[0].decode()
    for new in ("b" * 16, "c" * 16, "b" * 16):
        masters.renew(new)
    assert [line.decode() for line in masters.read()] == ["b" * 16, "c" * 16, first]
    assert stat.S_IMODE(masters.file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [masters.file]


def test_a_file_of_prices_is_read_when_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    monkeypatch.setenv("HEADRACE_PRICES", str(file))
    with pytest.raises(InvalidSetting, match=r"HEADRACE_PRICES.*cannot be read"):
        Settings.load()
    file.write_text("[[price]]\ninput = 1\n")
    with pytest.raises(InvalidSetting, match=r"HEADRACE_PRICES.*price 1 must name a provider"):
        Settings.load()
    file.write_text("[[price]]\nprovider = 'lab'\ninput = 1\noutput = 2\n")
    assert Settings.load().prices == file


def test_passwords_leave_the_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"HEADRACE_HOME": "/srv", "HEADRACE_NATS_CREDENTIALS": "/run/nats.creds", "PATH": os.environ["PATH"]}
    secrets = (
        "SECRET_KEY",
        "NATS_KEY",
        "NATS_URL",
        "POSTGRES_URL",
        "OPENSEARCH_PASSWORD",
        "VIEW_TOKEN",
        "OTLP_HEADERS",
    )
    for name, value in (kept | {f"HEADRACE_{name}": "a secret" for name in secrets}).items():
        monkeypatch.setenv(name, value)
    forget_secrets()
    assert {name: os.environ.get(name) for name in kept} == kept
    assert [name for name in secrets if f"HEADRACE_{name}" in os.environ] == []


def test_a_folder_of_secrets_comes_before_the_file_and_after_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "HEADRACE_SECRET_KEY").write_text("0123456789abcdef\n")
    (folder / "HEADRACE_VIEW_TOKEN").write_text("of the folder, too")
    (folder / "..data").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    (home / "headrace.toml").write_text('secret_key = "of the file, not used"\nlog_level = "debug"\n')
    monkeypatch.setenv("HEADRACE_SECRETS", str(folder))
    monkeypatch.setenv("HEADRACE_VIEW_TOKEN", "of the variable, used")
    settings = Settings.load(home=home)
    assert list(settings.masters().read()) == [b"0123456789abcdef"]
    assert settings.view_token is not None
    assert settings.view_token.get_secret_value() == "of the variable, used"
    assert settings.log_level == "debug"

    (folder / "HEADRACE_SECRET_KEY").write_text("short")
    with pytest.raises(InvalidSetting, match=r"secrets/HEADRACE_SECRET_KEY is not usable: must have 16"):
        Settings.load(home=home)
    monkeypatch.setenv("HEADRACE_SECRETS", str(tmp_path / "nowhere"))
    with pytest.raises(InvalidSetting, match=r"HEADRACE_SECRETS names .*nowhere, which is not a folder"):
        Settings.load(home=home)


def test_passwords_are_put_into_addresses_that_name_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_NATS_URL", "tls://worker@a:4222,tls://worker@b:4222")
    monkeypatch.setenv("HEADRACE_NATS_PASSWORD", "p@ss")
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", "postgresql://own@c:5432/d?sslmode=verify-full")
    monkeypatch.setenv("HEADRACE_POSTGRES_PASSWORD", "secret")
    settings = Settings.load()
    assert settings.nats_url == "tls://worker:p%40ss@a:4222,tls://worker:p%40ss@b:4222"
    assert settings.postgres_url == "postgresql://own:secret@c:5432/d?sslmode=verify-full"
    monkeypatch.setenv("HEADRACE_NATS_URL", "nats://worker:mine@a:4222")
    assert Settings.load().nats_url == "nats://worker:mine@a:4222"
