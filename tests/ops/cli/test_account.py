from __future__ import annotations

import re
from pathlib import Path

import pytest

from domain.aggregate import new_id
from ops.cli import account
from tests.ops.answering import worker
from tests.ops.cli.test_cli import Cli

PASSWORD = "eleven wide rivers"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answers that a person types, in order, in a terminal."""
    answers: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(account, "getpass", lambda _: answers.pop(0))
    return answers


async def test_a_password_is_asked_for_twice_and_only_its_hash_is_sent(
    headrace: Cli,
    url: str,
    terminal: list[str],
) -> None:
    terminal += [PASSWORD, PASSWORD]
    async with worker(url, name="account.create", ids={"account": "ada"}) as running:
        result = await headrace("account", "create", "ada@example.org", "--name", "Ada")
    assert (result.code, result.out) == (0, "✓ account.create  account ada  #0\n")
    [(subject, payload)] = running.seen
    assert subject == "cmd._house.anon.account.create"
    assert re.fullmatch(r"\$argon2id\$v=19\$m=\d+,t=\d+,p=\d+\$\S+", payload.pop("password"))
    assert payload == {"email": "ada@example.org", "name": "Ada"}


async def test_passwords_that_differ_send_nothing(headrace: Cli, url: str, terminal: list[str]) -> None:
    terminal += [PASSWORD, f"{PASSWORD}!"]
    async with worker(url) as running:
        result = await headrace("account", "create", "ada@example.org", "--name", "Ada", "--json")
    assert (result.code, result.lines) == (1, [{"error": {"code": "failed", "message": "The passwords differ."}}])
    assert running.seen == []


async def test_a_password_comes_from_a_file_and_must_keep_the_rules(
    headrace: Cli,
    url: str,
    tmp_path: Path,
) -> None:
    file = tmp_path / "password"
    file.write_text("short\n")
    arguments = ("account", "password", new_id(), "--password-file", str(file))
    async with worker(url, name="account.change_password") as running:
        weak = await headrace(*arguments)
        file.write_text(f"{PASSWORD}\n")
        good = await headrace(*arguments)
    assert (weak.code, good.code) == (1, 0)
    assert weak.err.startswith("✗ A password has at least ")
    [(subject, payload)] = running.seen
    assert subject == "cmd._house.anon.account.change_password"
    assert set(payload) == {"account", "password"}
    assert PASSWORD not in str(payload)


async def test_without_a_terminal_the_way_to_give_a_password_is_named(headrace: Cli, url: str) -> None:
    result = await headrace("account", "create", "ada@example.org", "--name", "Ada")
    assert (result.code, "--password-file" in result.err) == (1, True)


async def test_no_option_takes_a_password(headrace: Cli) -> None:
    for verb in ("create", "password"):
        assert "--password " not in (await headrace("account", verb, "--help")).out


async def test_the_first_account_becomes_the_owner(headrace: Cli, url: str) -> None:
    async with worker(url, ids={"account": "ada"}, name="it") as running:
        result = await headrace(
            *("account", "create", "ada@example.org", "--name", "Ada", "--no-password"),
            *("--owner-of", "_house", "--owner-of", "default", "--json"),
        )
    assert (result.code, len(result.lines)) == (0, 3)
    assert running.seen == [
        ("cmd._house.anon.account.create", {"email": "ada@example.org", "name": "Ada", "password": None}),
        ("cmd._house.anon.tenant.create", {"tenant": "_house", "owner": "ada", "name": "_house"}),
        ("cmd._house.anon.tenant.create", {"tenant": "default", "owner": "ada", "name": "default"}),
    ]


async def test_a_rejected_account_owns_nothing(headrace: Cli, url: str) -> None:
    says = {"status": "rejected", "code": "exists", "message": "There is one.", "field": "email", "name": "it"}
    async with worker(url, **says) as running:
        result = await headrace(
            *("account", "create", "ada@example.org", "--name", "Ada", "--no-password", "--owner-of", "acme")
        )
    assert (result.code, len(running.seen)) == (1, 1)


async def test_a_service_has_neither_address_nor_password(headrace: Cli, url: str) -> None:
    async with worker(url, name="account.create_service", ids={"account": "bot"}) as running:
        result = await headrace("account", "create", "--service", "--name", "Importer", "--json")
    assert result.code == 0
    assert running.seen == [("cmd._house.anon.account.create_service", {"name": "Importer"})]
    assert (await headrace("account", "create", "--name", "Neither")).code == 2
    assert (await headrace("account", "create", "a@example.org", "--service", "--name", "Both")).code == 2


@pytest.mark.parametrize(
    ("arguments", "command", "payload"),
    [
        (["rename", "ID", "Lady Ada"], "rename", {"name": "Lady Ada"}),
        (["disable", "ID"], "disable", {}),
        (["enable", "ID"], "enable", {}),
        (["sign-out", "ID"], "sign_out", {}),
        (["erase", "ID", "--yes"], "erase", {}),
    ],
)
async def test_each_verb_sends_its_command(
    headrace: Cli,
    url: str,
    arguments: list[str],
    command: str,
    payload: dict[str, str],
) -> None:
    id = new_id()
    async with worker(url, name=f"account.{command}") as running:
        result = await headrace("account", *(id if part == "ID" else part for part in arguments), "--json")
    assert result.code == 0
    assert running.seen == [(f"cmd._house.anon.account.{command}", {"account": id, **payload})]


async def test_an_erasure_must_be_confirmed(headrace: Cli, url: str) -> None:
    async with worker(url) as running:
        result = await headrace("account", "erase", new_id())
    assert (result.code, "Confirm it with --yes." in result.err, running.seen) == (1, True, [])


async def test_an_unknown_address_is_named(
    headrace: Cli,
    url: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from adapters.postgres import tables

    await tables.set_up(database_url)
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", database_url)
    monkeypatch.setattr(account, "LAG_S", 0.1)
    result = await headrace("account", "disable", "ada@example.org")
    assert result.err == "✗ There is no account of ada@example.org; see `headrace account list`.\n"
    shown = await headrace("account", "show", "some-id")
    assert shown.err == "✗ There is no account some-id; see `headrace account list`.\n"
