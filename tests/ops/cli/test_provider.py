from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.postgres import tables
from adapters.postgres.tables import connect
from tests.ops.answering import worker
from tests.ops.cli.test_cli import Cli


async def test_a_provider_is_registered_with_a_key_from_a_file(headrace: Cli, url: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret\n")
    async with worker(url, name="provider.register", ids={"provider": "lab"}) as running:
        result = await headrace(
            *("provider", "register", "lab", "http://127.0.0.1:1", "--kind", "ollama", "--key-file", str(key)),
            *("--no-check", "--tenant", "acme"),
        )
    assert (result.code, "sk-secret" in result.out + result.err) == (0, False)
    fields = {"name": "lab", "base_url": "http://127.0.0.1:1", "kind": "ollama", "key": "sk-secret", "check": False}
    assert running.seen == [("cmd.acme.anon.provider.register", fields)]


async def test_keys_are_added_and_removed_and_a_provider_is_removed(headrace: Cli, url: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-2")
    async with worker(url, name="it") as running:
        assert (
            await headrace("provider", "add-key", "lab", "second", "--key-file", str(key), "--weight", "3")
        ).code == 0
        assert (await headrace("provider", "remove-key", "lab", "second", "--json")).code == 0
        assert (await headrace("provider", "remove", "lab", "--yes")).code == 0
        assert (await headrace("provider", "check", "lab", "--for", "0")).code == 0
    assert running.seen == [
        (
            "cmd.default.anon.provider.add_credential",
            {"provider": "lab", "name": "second", "key": "sk-2", "weight": 3},
        ),
        ("cmd.default.anon.provider.remove_credential", {"provider": "lab", "name": "second"}),
        ("cmd.default.anon.provider.remove", {"provider": "lab"}),
        ("cmd.default.anon.provider.check", {"provider": "lab", "model": None}),
    ]


async def test_providers_keys_and_models_are_shown_without_secrets(
    headrace: Cli, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.set_up(database_url)
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", database_url)
    at = datetime(2026, 5, 4, tzinfo=UTC)
    async with connect(database_url) as connection:
        await connection.execute(
            "INSERT INTO headrace.providers (tenant_id, id, kind, base_url, credentials, has_key, status, check_status,"
            " limits, created_by, created_at, updated_at, log_position) VALUES ('default', 'lab', 'openai', 'http://x',"
            """ '["spare"]', true, 'active', 'ok', '{}', 'ada', %(at)s, %(at)s, 1),"""
            " ('default', 'old', 'openai', 'http://y', '[]', false, 'removed', 'none', '{}', 'ada', %(at)s, %(at)s, 2)",
            {"at": at},
        )
        await connection.execute(
            "INSERT INTO headrace.provider_credentials (tenant_id, id, provider_id, name, weight, status, hint,"
            " created_by, created_at, updated_at, log_position) VALUES ('default', 'lab/spare', 'lab', 'spare', 3,"
            " 'works', 'x9Zz', 'ada', %(at)s, %(at)s, 1)",
            {"at": at},
        )
        await connection.execute(
            "INSERT INTO headrace.provider_models (tenant_id, id, provider_id, model, abilities, sources,"
            " price_version, created_at, updated_at, log_position) VALUES ('default', 'm', 'lab', 'small', "
            """'{"tools": true, "image": false}', '{}', 'v', %(at)s, %(at)s, 1)""",
            {"at": at},
        )
    listed = await headrace("provider", "list")
    assert ("lab" in listed.out, "old" in listed.out) == (True, False)
    assert [each["id"] for each in (await headrace("provider", "list", "--all", "--json")).lines] == ["lab", "old"]
    shown = (await headrace("provider", "show", "lab")).out
    assert "x9Zz" in shown
    assert "no image" in shown
    [whole] = (await headrace("provider", "show", "lab", "--json")).lines
    assert [each["name"] for each in whole["credentials"]] == ["spare"]
    assert whole["models"][0]["abilities"] == {"tools": True, "image": False}
    gone = await headrace("provider", "show", "gone")
    assert (gone.code, "There is no provider gone" in gone.err) == (1, True)


async def test_the_result_of_a_check_is_printed(
    headrace: Cli, url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.set_up(database_url)
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", database_url)
    at = datetime(2026, 5, 4, tzinfo=UTC)

    async def ended(check: str) -> None:
        async with connect(database_url) as connection:
            await connection.execute(
                "INSERT INTO headrace.providers (tenant_id, id, kind, base_url, credentials, has_key, status,"
                " check_status, check_trace_id, check_code, limits, created_by, created_at, updated_at, log_position)"
                " VALUES ('default', 'lab', 'openai', 'http://x', '[]', false, 'active', 'failed', %(check)s,"
                " 'unreachable', '{}', 'ada', %(at)s, %(at)s, 1)",
                {"at": at, "check": check},
            )

    await ended("the-check")
    async with worker(url, name="provider.check", command="the-check"):
        result = await headrace("provider", "check", "lab")
    assert result.code == 1
    assert "unreachable" in result.out
    async with worker(url, name="provider.check", command="another"):
        late = await headrace("provider", "check", "lab", "--for", "0.01")
    assert (late.code, "has no result after" in late.err) == (1, True)
