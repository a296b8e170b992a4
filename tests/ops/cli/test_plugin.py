"""`headrace plugin`, where it needs no server."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from adapters.plugins.logs import entries as logged
from handlers.commands.plugin_package import read
from ops import plugin_files
from ops.plugin_files import packed
from ops.resolve import Unpackable
from tests.ops.cli.test_cli import Cli


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """`headrace plugin test` sends the logs to its standard error."""
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    yield
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("kind", ["filter", "monitor"])
async def test_a_new_plugin_works(capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str) -> None:
    folder, home = tmp_path / "mask", str(tmp_path / "home")
    made = await Cli(capsys)("plugin", "new", "mask", "--kind", kind, "--folder", str(folder), "--json")
    assert made.code == 0
    assert {Path(file).name for file in made.lines[0]["files"]} == {"plugin.json", "main.py", "headrace_plugin.py"}
    tried = await Cli(capsys)("plugin", "test", str(folder), "--home", home, "--json")
    assert tried.code == 0, tried
    hooks = {"filter": ["before_invoke", "after_invoke"], "monitor": ["after_invoke", "on_error"]}
    assert [line["hook"] for line in tried.lines] == hooks[kind]
    if kind == "filter":
        assert tried.lines[0]["reply"]["messages"][1]["content"].startswith("My number is [number].")


async def test_a_hook_that_fails_is_shown_with_its_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "mask"
    await Cli(capsys)("plugin", "new", "mask", "--folder", str(folder))
    program = (folder / "main.py").read_text().replace("def after(call):", "def after(call):\n    raise KeyError('x')")
    (folder / "main.py").write_text(program)
    arguments = ["plugin", "test", str(folder), "--home", str(tmp_path / "home")]
    assert await asyncio.to_thread(Cli.run, arguments) == 1
    said = capsys.readouterr()
    assert "✗ after_invoke" in said.out
    assert "KeyError: 'x'" in said.out
    assert "Traceback" in said.err


async def test_settings_and_a_call_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, call = tmp_path / "mask", tmp_path / "call.json"
    await Cli(capsys)("plugin", "new", "mask", "--folder", str(folder))
    call.write_text(json.dumps({"messages": [{"role": "user", "content": "ping"}]}))
    arguments = ("--call", str(call), "--setting", "mark=*", "--home", str(tmp_path / "home"), "--json")
    tried = await Cli(capsys)("plugin", "test", str(folder), *arguments)
    assert tried.lines[0]["reply"] == {"action": "answer", "response": "pong"}
    assert tried.lines[1]["reply"]["response"] == "The gate opens at *. "
    arguments = ("--setting", "colour=x", "--home", str(tmp_path / "home"))
    refused = await Cli(capsys)("plugin", "test", str(folder), *arguments)
    assert refused.code == 1
    assert "no setting colour" in refused.err


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"kind": "music"}, "kind"), ({"main": "other.py"}, "no file other.py"), ({"version": "1"}, "version")],
)
async def test_a_package_that_breaks_a_rule_is_refused_before_it_is_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    folder = tmp_path / "mask"
    await Cli(capsys)("plugin", "new", "mask", "--folder", str(folder))
    manifest = json.loads((folder / "plugin.json").read_text())
    (folder / "plugin.json").write_text(json.dumps({**manifest, **fields}))
    result = await Cli(capsys)("plugin", "install", str(folder), "--home", str(tmp_path / "home"))
    assert result.code == 1
    assert reason in result.err


async def test_a_folder_that_is_not_empty_is_left_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    result = await Cli(capsys)("plugin", "new", "mask", "--folder", str(tmp_path))
    assert result.code == 1
    assert (tmp_path / "note").read_text() == "mine"
    assert not (tmp_path / "main.py").exists()


async def test_a_name_that_no_plugin_can_have_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = await Cli(capsys)("plugin", "new", "My Plugin", "--folder", str(tmp_path / "x"))
    assert result.code == 1
    assert not (tmp_path / "x").exists()


def test_links_and_leftovers_are_no_part_of_a_package(tmp_path: Path) -> None:
    plugin_files.new(tmp_path / "mask", "mask", "filter")
    (tmp_path / "mask" / "__pycache__").mkdir()
    (tmp_path / "mask" / "__pycache__" / "x.pyc").write_bytes(b"x")
    names = [name for name, *_ in packed(tmp_path / "mask").files()]
    assert sorted(names) == ["headrace_plugin.py", "main.py", "plugin.json"]
    (tmp_path / "mask" / "link").symlink_to("/etc/passwd")
    with pytest.raises(Unpackable, match="is a link"):
        packed(tmp_path / "mask")


def test_a_zip_file_is_taken_as_it_is(tmp_path: Path) -> None:
    plugin_files.new(tmp_path / "mask", "mask", "filter")
    package = packed(tmp_path / "mask")
    (tmp_path / "mask.zip").write_bytes(package.data)
    assert packed(tmp_path / "mask.zip").data == package.data
    assert read(package.data).manifest["name"] == "mask"


def test_the_logs_are_those_of_one_plugin(tmp_path: Path) -> None:
    entries = [
        {"event": "plugin.says", "plugin": "mask", "text": "one", "timestamp": "1"},
        {"event": "plugin.says", "plugin": "other", "text": "two", "timestamp": "2"},
        {"event": "plugin.failed", "plugin": "mask", "reason": "three", "timestamp": "3"},
    ]
    (tmp_path / "worker.log").write_text("\n".join(['no JSON with "plugin"', *map(json.dumps, entries)]))
    assert [entry["timestamp"] for entry in logged(tmp_path, "mask", 10)] == ["1", "3"]
    assert [entry["timestamp"] for entry in logged(tmp_path, "mask", 1)] == ["3"]
