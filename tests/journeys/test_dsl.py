"""App files through the command line, on real servers: imported, reported, published, restored and exported."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.journeys.stack import Row, Stack
from tests.ops.cli.test_cli import Cli

FILES = Path(__file__).parents[1] / "adapters" / "dsl" / "files"


class Shell:
    """The command line in this process, on the servers of the stack."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.cli = Cli(capsys)

    async def __call__(self, *arguments: str) -> tuple[int, list[Row]]:
        result = await self.cli(*arguments, "--json")
        return result.code, result.lines

    async def imported(self, name: str, *more: str) -> Row:
        code, [made] = await self("dsl", "import", str(FILES / name), *more)
        assert code == 0, made
        return made

    async def exported(self, app: str, into: Path, *more: str) -> bytes:
        code, _ = await self("dsl", "export", app, "--out", str(into), *more)
        assert code == 0
        return await asyncio.to_thread(into.read_bytes)


@pytest.fixture
def shell(headrace: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("HEADRACE_HOME", str(headrace.settings.home))
    monkeypatch.setenv("HEADRACE_NATS_URL", headrace.nats_url)
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", headrace.postgres_url)
    return Shell(capsys)


async def test_a_graph_is_imported_changed_published_and_exported_as_it_was(
    headrace: Stack, shell: Shell, tmp_path: Path
) -> None:
    made = await shell.imported("windows-line-ends.yml")
    app = made["app"]
    assert made["done"] == ["app.create", "app.set_icon", "workflow.save"]
    assert made["report"]["status"] == "cannot"  # the tenant has no such provider
    [draft] = await headrace.until("SELECT * FROM headrace.workflows WHERE app_id = %(app)s", app=app)
    assert (draft["type"], draft["version"], draft["marked_name"]) == ("workflow", "draft", "")
    original = (FILES / "windows-line-ends.yml").read_bytes()
    assert await shell.exported(app, tmp_path / "a.yml") == original

    code, [checked] = await shell("workflow", "check", app)
    assert (code, checked["status"]) == (1, "cannot")
    assert [part["status"] for part in checked["parts"]] == ["runs", "runs", "cannot", "runs"]
    code, [outcome] = await shell("workflow", "publish", app, "--name", "First")
    assert (code, outcome["status"]) == (0, "accepted")
    changed = json.loads(json.dumps({"app": {"mode": "workflow"}, "workflow": {"graph": draft["graph"]}}))
    changed["workflow"]["graph"]["nodes"][1]["data"]["title"] = "Counted"
    await headrace.send("workflow.save", app=app, document=changed, replaces=draft["document"])
    stale = await headrace.refused("workflow.save", app=app, document=changed | {"x": 1}, replaces=draft["document"])
    assert (stale["code"], stale["field"]) == ("stale", "replaces")
    rows = "SELECT * FROM headrace.workflows WHERE app_id = %(app)s AND file IS NULL"
    await headrace.until(rows, app=app)
    assert b"Counted" in await shell.exported(app, tmp_path / "b.yml")
    assert await shell.exported(app, tmp_path / "c.yml", "--number", "1") == original

    _, listed = await shell("workflow", "list", app)
    assert [(each["version"], each["marked_name"]) for each in listed] == [("draft", ""), ("1", "First")]
    assert (await shell("workflow", "restore", app, "1"))[0] == 0
    await headrace.until(f"{rows.replace('IS NULL', 'IS NOT NULL')} AND number = 0", app=app)
    assert await shell.exported(app, tmp_path / "d.yml") == original
    refused = await headrace.refused("message.send", app=app, query="Now?")
    assert (refused["code"], refused["field"]) == ("wrong_mode", "app")


async def test_secrets_of_a_file_are_in_no_table_and_in_no_blob(headrace: Stack, shell: Shell, tmp_path: Path) -> None:
    app = (await shell.imported("secrets.yml"))["app"]
    [draft] = await headrace.until("SELECT * FROM headrace.workflows WHERE app_id = %(app)s", app=app)
    assert (draft["secrets"], "hush" in str(draft)) == (["KEY"], False)
    for digest in (draft["document"], draft["graph_digest"], draft["file"]):
        assert b"hush" not in await headrace.client.blobs.get(headrace.tenant, digest)
    assert b"hush" not in await shell.exported(app, tmp_path / "a.yml")
    clear = {"name": "KEY", "value_type": "secret", "value": "hush"}
    document = {"app": {"mode": "workflow"}, "workflow": {"graph": draft["graph"], "environment_variables": [clear]}}
    refused = await headrace.refused("workflow.save", app=app, document=document, replaces=draft["document"])
    assert refused["field"] == "workflow.environment_variables"


async def test_what_cannot_run_is_saved_but_not_published(headrace: Stack, shell: Shell) -> None:
    app = (await shell.imported("unknown-type.yml"))["app"]
    refused = await headrace.refused("workflow.publish", workflow=app)
    assert (refused["code"], refused["field"]) == ("cannot_run", "new.type")
    assert refused["message"].startswith("Node new: There is no node type quantum-leap;")


async def test_an_app_without_a_graph_is_configured_and_exported(headrace: Stack, shell: Shell, tmp_path: Path) -> None:
    kept = await shell.imported("chat.yml")
    assert kept["done"] == ["app.create", "app.set_icon", "app.keep_file"]  # its model is missing
    await headrace.until("SELECT file FROM headrace.apps WHERE id = %(app)s AND file IS NOT NULL", app=kept["app"])
    original = (FILES / "chat.yml").read_bytes()
    assert await shell.exported(kept["app"], tmp_path / "a.yml") == original
    options = ("--app", kept["app"], "--map", "model:*=builtin/extractive")
    again = await shell.imported("completion.yml", "--map", "model:openai/*=builtin/extractive")
    assert again["done"] == ["app.create", "app.set_icon", "app.configure", "app.keep_file"]
    app = again["app"]
    of_app = "SELECT * FROM headrace.apps WHERE id = %(app)s AND file_configuration = 1"
    await headrace.until(of_app, app=app)
    assert await shell.exported(app, tmp_path / "b.yml") == (FILES / "completion.yml").read_bytes()
    await headrace.send("app.configure", app=app, prompt="Shout about {{topic}}.")
    configs = "SELECT * FROM headrace.app_model_configs WHERE app_id = %(app)s AND number = 2"
    await headrace.until(configs, app=app)
    assert b"Shout about {{topic}}." in await shell.exported(app, tmp_path / "c.yml")
    code, [failed] = await shell("dsl", "import", str(FILES / "completion.yml"), *options)
    assert (code, "of mode chat, the file of mode completion" in failed["error"]["message"]) == (1, True)


async def test_a_check_changes_nothing(headrace: Stack, shell: Shell) -> None:
    apps = await headrace.sql("SELECT count(*) FROM headrace.apps")
    code, [report] = await shell("dsl", "import", str(FILES / "tool-missing.yml"), "--check")
    assert (code, report["status"], report["counts"]) == (1, "cannot", {"runs": 2, "changed": 0, "cannot": 1})
    code, [failed] = await shell("dsl", "import", str(FILES / "rejected-version-float.yml"), "--check")
    assert (code, "version: A version is a text" in failed["error"]["message"]) == (1, True)
    code, [failed] = await shell("dsl", "import", str(FILES / "version-1.0.0.yml"))
    assert (code, "Confirm it with --yes" in failed["error"]["message"]) == (1, True)
    assert await headrace.sql("SELECT count(*) FROM headrace.apps") == apps
