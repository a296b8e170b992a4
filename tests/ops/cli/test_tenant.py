from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from domain.aggregate import new_id
from tests.ops.answering import worker
from tests.ops.cli.test_cli import Cli


@pytest.mark.parametrize(
    ("arguments", "command", "payload"),
    [
        (["create", "acme", "--owner", "ID"], "create", {"owner": "ID", "name": "acme"}),
        (["create", "_house", "--owner", "ID", "--name", "Us"], "create", {"owner": "ID", "name": "Us"}),
        (["rename", "acme", "Acme Ltd"], "rename", {"name": "Acme Ltd"}),
        (["add", "acme", "ID", "--role", "editor"], "add_member", {"account": "ID", "role": "editor"}),
        (["role", "acme", "ID", "--role", "viewer"], "set_role", {"account": "ID", "role": "viewer"}),
        (["remove", "acme", "ID"], "remove_member", {"account": "ID"}),
        (["transfer", "acme", "ID"], "transfer", {"account": "ID"}),
        (["withdraw", "acme", "0" * 64], "withdraw", {"digest": "0" * 64}),
        (["archive", "acme", "--yes"], "archive", {}),
        (["unarchive", "acme"], "unarchive", {}),
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
    async with worker(url, name=f"tenant.{command}") as running:
        result = await headrace("tenant", *(id if part == "ID" else part for part in arguments), "--json")
    assert result.code == 0, result
    sent = {name: id if value == "ID" else value for name, value in payload.items()}
    assert running.seen == [(f"cmd._house.anon.tenant.{command}", {"tenant": arguments[1], **sent})]


async def test_a_role_that_is_none_and_that_of_the_owner_are_not_sent(headrace: Cli, url: str) -> None:
    async with worker(url) as running:
        for role in ("owner", "boss"):
            for verb in (["add", "acme", "id"], ["role", "acme", "id"], ["invite", "acme"]):
                result = await headrace("tenant", *verb, "--role", role)
                assert (result.code, "viewer" in result.err) == (2, True)
    assert running.seen == []


async def test_the_secret_of_an_invitation_is_shown_once_and_its_digest_is_sent(headrace: Cli, url: str) -> None:
    async with worker(url, name="tenant.invite", ids={"tenant": "acme"}) as running:
        people = await headrace("tenant", "invite", "acme", "--role", "editor")
        [program] = (await headrace("tenant", "invite", "acme", "--role", "viewer", "--days", "2", "--json")).lines
    assert people.out == people.out.strip() + "\n", "a pipe gets the secret alone"
    assert people.err == "✓ tenant.invite  tenant acme  #0\n"
    (_, first), (subject, second) = running.seen
    assert subject == "cmd._house.anon.tenant.invite"
    assert first["digest"] == sha256(people.out.strip().encode()).hexdigest()
    assert second["digest"] == sha256(program["secret"].encode()).hexdigest()
    assert (first["role"], second["role"]) == ("editor", "viewer")
    lasts = [datetime.fromisoformat(each["ends_at"]) - datetime.now(UTC) for each in (first, second)]
    assert [round(each / timedelta(days=1)) for each in lasts] == [7, 2]


async def test_where_there_is_a_viewer_an_invitation_is_a_link(headrace: Cli, url: str, tmp_path: Path) -> None:
    file = tmp_path / "invitation"
    async with worker(url, name="tenant.invite") as running:
        invite = ("tenant", "invite", "acme", "--role", "viewer", "--address", "https://host/")
        people = await headrace(*invite)
        [program] = (await headrace(*invite, "--json")).lines
        file.write_text(people.out)
        await headrace("tenant", "accept", "acme", new_id(), "--secret-file", str(file))
    address, _, secret = people.out.strip().partition("secret=")
    assert address == "https://host/invitation?of=acme&"
    assert program["link"].endswith(program["secret"])
    assert running.seen[0][1]["digest"] == running.seen[2][1]["digest"] == sha256(secret.encode()).hexdigest()


async def test_a_rejected_invitation_shows_no_secret(headrace: Cli, url: str) -> None:
    says = {"status": "rejected", "code": "too_many", "message": "Too many.", "field": None, "name": "tenant.invite"}
    async with worker(url, **says):
        result = await headrace("tenant", "invite", "acme", "--role", "editor")
    assert (result.code, result.out) == (1, "✗ tenant.invite was rejected: Too many.\n")


async def test_an_invitation_is_accepted_with_its_secret_from_a_file(
    headrace: Cli,
    url: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "secret").write_text("the secret\n")
    id = new_id()
    async with worker(url, name="tenant.accept") as running:
        result = await headrace("tenant", "accept", "acme", id, "--secret-file", str(tmp_path / "secret"))
    assert result.code == 0
    digest = sha256(b"the secret").hexdigest()
    assert running.seen == [
        ("cmd._house.anon.tenant.accept", {"tenant": "acme", "account": id, "digest": digest}),
    ]


async def test_archiving_must_be_confirmed(headrace: Cli, url: str) -> None:
    async with worker(url) as running:
        result = await headrace("tenant", "archive", "acme")
    assert (result.code, "Confirm it with --yes." in result.err, running.seen) == (1, True, [])


@pytest.mark.parametrize("tenant", ["_house", "A", "a.b", "../x"])
async def test_what_is_no_tenant_is_not_exported(headrace: Cli, url: str, tmp_path: Path, tenant: str) -> None:
    result = await headrace("tenant", "export", tenant, str(tmp_path / "out"))
    assert (result.code, "is not a tenant that can be exported" in result.err) == (1, True)
    assert not (tmp_path / "out").exists()
