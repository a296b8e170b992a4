from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Json

from adapters.postgres import tables
from adapters.postgres.tables import connect
from tests.ops.answering import worker
from tests.ops.cli.test_cli import Cli

NO_AUTH = {
    "type": "none",
    "name": "Authorization",
    "prefix": "",
    "token_url": None,
    "client_id": "",
    "scope": "",
    "user_header": None,
    "per_user": False,
}


async def test_a_toolset_is_registered_with_a_secret_from_a_file(headrace: Cli, url: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk-secret\n")
    async with worker(url, name="toolset.register", ids={"toolset": "pets"}) as running:
        result = await headrace(
            *("toolset", "register", "pets", "openapi", "https://host/openapi.json", "--auth", "header"),
            *("--auth-name", "X-Key", "--operation", "getPet", "--operation", "POST /pets", "--timeout-s", "5"),
            *("--secret-file", str(secret), "--tenant", "acme"),
        )
    assert (result.code, "sk-secret" in result.out + result.err) == (0, False)
    openapi = {
        "url": "https://host/openapi.json",
        "server": None,
        "operations": ["getPet", "POST /pets"],
        "auth": {**NO_AUTH, "type": "header", "name": "X-Key"},
    }
    given = {"name": "pets", "kind": "openapi", "description": "", "timeout_s": 5.0, "secret": "sk-secret"}
    assert running.seen == [("cmd.acme.anon.toolset.register", {**given, "openapi": openapi})]


async def test_a_document_is_sent_as_text_or_put_into_the_object_store(headrace: Cli, url: str, tmp_path: Path) -> None:
    small, large = tmp_path / "small.yaml", tmp_path / "large.json"
    small.write_text("openapi: 3.0.0")
    large.write_bytes(b"{}" * 2**18)
    async with worker(url, name="toolset.register") as running:
        assert (await headrace("toolset", "register", "small", "openapi", str(small))).code == 0
        assert (await headrace("toolset", "register", "large", "openapi", str(large))).code == 0
    first, second = (payload["openapi"] for _, payload in running.seen)
    assert (first["text"], "digest" in first) == ("openapi: 3.0.0", False)
    assert (second["digest"], "text" in second) == (hashlib.sha256(large.read_bytes()).hexdigest(), False)
    gone = await headrace("toolset", "register", "none", "openapi", str(tmp_path / "none.json"))
    assert (gone.code, "cannot be read" in gone.err) == (1, True)


@pytest.mark.parametrize(
    ("kind", "place", "fields"),
    [
        ("dataset", "d-1", {"dataset": {"dataset": "d-1", "top_k": 5}}),
        ("app", "a-1", {"app": {"app": "a-1"}}),
        ("sql", "sales", {"sql": {"connection": "sales"}}),
        ("mcp", "files", {"mcp": {"server": "files", "auth": NO_AUTH}}),
        ("mcp", "https://host/mcp", {"mcp": {"url": "https://host/mcp", "auth": NO_AUTH}}),
    ],
)
async def test_other_kinds_have_their_place(
    headrace: Cli, url: str, kind: str, place: str, fields: dict[str, Any]
) -> None:
    async with worker(url, name="toolset.register") as running:
        assert (await headrace("toolset", "register", "it", kind, place)).code == 0
    common = {"name": "it", "kind": kind, "description": "", "timeout_s": 30.0}
    assert running.seen == [("cmd.default.anon.toolset.register", {**common, **fields})]


async def test_a_sqlite_file_goes_to_the_object_store(headrace: Cli, url: str, tmp_path: Path) -> None:
    file = tmp_path / "works.db"
    file.write_bytes(b"SQLite format 3")
    async with worker(url, name="toolset.register") as running:
        assert (await headrace("toolset", "register", "works", "sql", str(file))).code == 0
    [(_, given)] = running.seen
    assert given["sql"] == {"digest": hashlib.sha256(b"SQLite format 3").hexdigest()}
    gone = await headrace("toolset", "register", "works", "sql", str(tmp_path / "gone.db"))
    assert (gone.code, "cannot be read" in gone.err) == (1, True)


async def test_another_kind_is_refused(headrace: Cli) -> None:
    result = await headrace("toolset", "register", "it", "plugin", "x")
    assert (result.code, "is not openapi, mcp, app, dataset or sql" in result.err) == (2, True)


async def test_toolsets_are_removed_and_calls_are_decided(headrace: Cli, url: str) -> None:
    async with worker(url, name="it") as running:
        assert (await headrace("toolset", "remove", "pets", "--yes")).code == 0
        assert (await headrace("toolset", "refresh", "pets", "--for", "0")).code == 0
        assert (await headrace("toolset", "release", "c-1")).code == 0
        assert (await headrace("toolset", "refuse", "c-2", "--reason", "No.", "--json")).code == 0
        assert (await headrace("toolset", "release", "c-3", "--answer", '{"size": 3}')).code == 0
        assert (await headrace("toolset", "refuse", "c-3", "--cancel")).code == 0
        wrong = await headrace("toolset", "release", "c-3", "--answer", "three")
        assert (wrong.code, "--answer must be a JSON object" in wrong.err) == (1, True)
    assert running.seen == [
        ("cmd.default.anon.toolset.remove", {"toolset": "pets"}),
        ("cmd.default.anon.toolset.refresh", {"toolset": "pets"}),
        ("cmd.default.anon.tool_call.release", {"tool_call": "c-1"}),
        ("cmd.default.anon.tool_call.refuse", {"tool_call": "c-2", "reason": "No.", "cancel": False}),
        ("cmd.default.anon.tool_call.release", {"tool_call": "c-3", "answer": {"size": 3}}),
        ("cmd.default.anon.tool_call.refuse", {"tool_call": "c-3", "reason": "", "cancel": True}),
    ]


async def test_secrets_of_users_are_set_and_removed(headrace: Cli, url: str, tmp_path: Path) -> None:
    (tmp_path / "ada.txt").write_text("key-of-ada\n")
    async with worker(url, name="it") as running:
        given = ["set-user-secret", "crm", "ada", "--secret-file", str(tmp_path / "ada.txt")]
        assert (await headrace("toolset", *given)).code == 0
        assert (await headrace("toolset", "remove-user-secret", "crm", "ada")).code == 0
    assert running.seen == [
        ("cmd.default.anon.user_secret.set", {"toolset": "crm", "user": "ada", "secret": "key-of-ada"}),
        ("cmd.default.anon.user_secret.remove", {"toolset": "crm", "user": "ada"}),
    ]


async def put(database_url: str, table: str, **row: Any) -> None:
    at = datetime(2026, 5, 4, tzinfo=UTC)
    row = {"tenant_id": "default", "created_at": at, "updated_at": at, "log_position": 1, **row}
    values = {name: Json(value) if isinstance(value, list | dict) else value for name, value in row.items()}
    async with connect(database_url) as connection:
        places = ", ".join(f"%({name})s" for name in values)
        await connection.execute(f"INSERT INTO headrace.{table} ({', '.join(values)}) VALUES ({places})", values)


def a_toolset(**fields: Any) -> dict[str, Any]:
    tool = {"name": "get_pet", "description": "Find\na pet.", "destructive": False, "idempotent": True}
    return {
        "id": "pets",
        "kind": "openapi",
        "description": "",
        "settings": {"url": "https://host"},
        "has_secret": True,
        "secret_hint": "x9Zz",
        "timeout_s": 30.0,
        "status": "active",
        "tool_count": 1,
        "tools": [tool],
        "warnings": ["TRACE /pets is not offered."],
        "refresh_status": "ok",
        "created_by": "ada",
        **fields,
    }


async def test_toolsets_and_calls_are_listed_and_shown(
    headrace: Cli, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.set_up(database_url)
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", database_url)
    await put(database_url, "toolsets", **a_toolset())
    await put(database_url, "toolsets", **a_toolset(id="old", status="removed"))
    listed = await headrace("toolset", "list")
    assert ("pets" in listed.out, "old" in listed.out) == (True, False)
    assert [each["id"] for each in (await headrace("toolset", "list", "--all", "--json")).lines] == ["old", "pets"]
    shown = (await headrace("toolset", "show", "pets")).out
    assert "Find a pet." in shown
    assert "TRACE /pets is not offered." in shown
    [whole] = (await headrace("toolset", "show", "pets", "--json")).lines
    assert whole["tools"][0]["name"] == "get_pet"
    gone = await headrace("toolset", "show", "gone")
    assert (gone.code, "There is no toolset gone" in gone.err) == (1, True)
    await put(database_url, "user_secrets", id="p-1/crm", toolset="crm", person_id="p-1", set_by="ada")
    [own] = (await headrace("toolset", "user-secrets", "crm", "--json")).lines
    assert (own["toolset"], own["user"], own["person_id"]) == ("crm", None, "p-1")
    assert (await headrace("toolset", "user-secrets", "pets", "--json")).lines == []
    call = {name: "x" for name in ("cause_noun", "cause_id", "conversation_id", "app_id", "model_call_id", "digest")}
    call |= {
        "kind": "openapi",
        "tool": "pay",
        "name": "pay",
        "server": "host:443",
        "result": "",
        "parts": [],
        "questions": [],
    }
    call |= {"round": 1, "position": 0, "attempt": 1, "runs": 0, "destructive": True, "idempotent": False}
    call |= {"arguments": '{"to": "Eve"}', "correlation_id": "x", "toolset": "pets"}
    await put(database_url, "tool_calls", **call, id="c-1", status="held")
    await put(database_url, "tool_calls", **call, id="c-2", status="completed")
    held = await headrace("toolset", "calls", "--held")
    assert ("c-1" in held.out, "c-2" in held.out, "Eve" in held.out) == (True, False, True)
    assert {each["id"] for each in (await headrace("toolset", "calls", "pets", "--json")).lines} == {"c-1", "c-2"}
    assert (await headrace("toolset", "calls", "others", "--json")).lines == []


async def test_the_result_of_a_refresh_is_printed(
    headrace: Cli, url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.set_up(database_url)
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", database_url)
    failed = {"refresh_status": "failed", "error_code": "unreachable", "error": "No answer.", "tools": []}
    await put(database_url, "toolsets", **a_toolset(refresh_trace_id="the-refresh", **failed))
    async with worker(url, name="toolset.refresh", command="the-refresh"):
        result = await headrace("toolset", "refresh", "pets")
    assert result.code == 1
    assert "No answer." in result.out
    async with worker(url, name="toolset.refresh", command="another"):
        late = await headrace("toolset", "refresh", "pets", "--for", "0.01")
    assert (late.code, "There is no list after" in late.err) == (1, True)
