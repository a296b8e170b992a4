from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from adapters.postgres import tables
from domain.aggregate import new_id
from tests.ops.answering import worker
from tests.ops.cli.test_cli import Cli


async def test_a_key_is_printed_alone_and_only_its_digest_is_sent(headrace: Cli, url: str) -> None:
    async with worker(url, name="api_key.create", ids={"api_key": "the-key"}) as running:
        result = await headrace("key", "create", "site", "--permission", "chat", "--tenant", "acme")
    assert re.fullmatch(r"app-[A-Za-z0-9]{24}\n", result.out), "a pipe gets the key alone"
    assert result.err == "✓ api_key.create  api_key the-key  #0\n"
    key = result.out.strip()
    assert running.seen == [
        (
            "cmd.acme.anon.api_key.create",
            {
                "name": "site",
                "digest": sha256(key.encode()).hexdigest(),
                "hint": key[-4:],
                "permissions": ["chat"],
                "apps": [],
                "datasets": [],
                "expires_at": None,
                "account": None,
            },
        )
    ]


async def test_a_key_of_knowledge_bases_has_their_prefix_a_scope_and_an_end(headrace: Cli, url: str) -> None:
    dataset, account = new_id(), new_id()
    async with worker(url, name="api_key.create") as running:
        [line] = (
            await headrace(
                *("key", "create", "sync", "--permission", "dataset.edit", "--permission", "read"),
                *("--dataset", dataset, "--days", "90", "--account", account, "--json"),
            )
        ).lines
    assert line["key"].startswith("dataset-")
    [(_, payload)] = running.seen
    assert line["key"] not in str(payload)
    assert (payload["permissions"], payload["datasets"], payload["account"]) == (
        ["dataset.edit", "read"],
        [dataset],
        account,
    )
    left = datetime.fromisoformat(payload["expires_at"]) - datetime.now(UTC)
    assert round(left / timedelta(days=1)) == 90


async def test_a_rejected_key_is_not_printed(headrace: Cli, url: str) -> None:
    says = {
        "status": "rejected",
        "code": "invalid",
        "message": "No.",
        "field": "permissions.0",
        "name": "api_key.create",
    }
    async with worker(url, **says):
        result = await headrace("key", "create", "site", "--permission", "nonsense")
    assert (result.code, result.out) == (1, "✗ api_key.create was rejected: permissions.0: No.\n")


async def test_a_key_is_renamed_and_revoked(headrace: Cli, url: str) -> None:
    id = new_id()
    async with worker(url, name="it") as running:
        assert (await headrace("key", "rename", id, "shop")).code == 0
        assert (await headrace("key", "revoke", id, "--json")).code == 0
    assert running.seen == [
        ("cmd.default.anon.api_key.rename", {"api_key": id, "name": "shop"}),
        ("cmd.default.anon.api_key.revoke", {"api_key": id}),
    ]


async def test_a_key_is_replaced_with_an_overlap(
    headrace: Cli,
    url: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await tables.set_up(database_url)
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", database_url)
    id = new_id()
    async with worker(url, name="api_key.replace") as running:
        result = await headrace("key", "replace", id, "--overlap-hours", "2")
    key = result.out.strip()
    fields = {"digest": sha256(key.encode()).hexdigest(), "hint": key[-4:], "overlap_s": 7200}
    assert running.seen == [("cmd.default.anon.api_key.replace", {"api_key": id, **fields})]
