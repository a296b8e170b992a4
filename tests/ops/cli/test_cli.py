from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import nats
import orjson
import pytest
import typer
from nats.aio.msg import Msg
from typer.main import get_command

from adapters.jetstream import nats_py
from adapters.jetstream.client import Client
from adapters.postgres import tables
from domain.aggregate import new_id
from ops import cli, docs, terminal
from ops.cli import bus
from ops.cli.frame import explain
from ops.servers.embedded import EmbeddedPostgres
from tests.ops.answering import worker


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Runs the command line in a thread, as the test's own loop goes on."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    async def __call__(self, *arguments: str) -> Result:
        code = await asyncio.to_thread(self.run, list(arguments))
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Result(code, captured.out, captured.err)

    @staticmethod
    def run(arguments: list[str]) -> int:
        try:
            cli.main(arguments)
        except SystemExit as ending:
            return int(ending.code or 0)
        return 0


@pytest.fixture(autouse=True)
def _clean(clean: None) -> None:
    """Before every other fixture."""


COMMANDS = [name for name, _ in docs.leaves(get_command(cli.all_commands()))]


async def test_help_lists_every_command(headrace: Cli) -> None:
    result = await headrace("--help")
    assert result.code == 0
    assert {"up", "send", "verify", "dead list", "index rebuild"} < set(COMMANDS)
    assert [name for name in COMMANDS if not re.search(rf"│ {name.split()[0]} ", result.out)] == []


@pytest.mark.parametrize("name", COMMANDS)
async def test_every_command_has_an_example_and_speaks_json(headrace: Cli, name: str) -> None:
    result = await headrace(*name.split(), "--help")
    assert result.code == 0
    assert re.search(rf"Examples?: headrace\s+{name}", result.out)
    assert "--json" in result.out


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["send"], ["worker", "--role", "nonsense"], ["send", "app.create", "--wait", "soon"]]
)
async def test_a_wrong_call_ends_with_2_and_says_why(headrace: Cli, arguments: list[str]) -> None:
    result = await headrace(*arguments)
    assert result.code == 2
    assert "Error" in result.err


@pytest.mark.parametrize(
    ("pairs", "payload"),
    [
        (["name=Porter"], {"name": "Porter"}),
        (["name="], {"name": ""}),
        (["prompt=a=b := c"], {"prompt": "a=b := c"}),
        (["url=http://x/?a:=b"], {"url": "http://x/?a:=b"}),
        (["model.provider=openai", "model.max_tokens:=256"], {"model": {"provider": "openai", "max_tokens": 256}}),
        (['datasets:=["a", "b"]', "top:=null"], {"datasets": ["a", "b"], "top": None}),
        (["model:={}", "model.name=x"], {"model": {"name": "x"}}),
        (["a=1", "a=2"], {"a": "2"}),
    ],
)
def test_pairs_become_a_payload(pairs: list[str], payload: dict[str, Any]) -> None:
    assert bus.merged({}, pairs) == payload


@pytest.mark.parametrize("pairs", [["name"], ["=x"], [":=1"], ["a:=not json"], ["a=1", "a.b=2"]])
def test_pairs_that_are_none(pairs: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        bus.merged({}, pairs)


def test_pairs_go_over_the_data_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"name": "file", "model": {"name": "m", "provider": "p"}}')
    payload = bus.merged(bus.read_payload(str(tmp_path / "data.json")), ["name=pair", "model.name=x"])
    assert payload == {"name": "pair", "model": {"name": "x", "provider": "p"}}


@pytest.mark.parametrize(("text", "rule"), [("[1]", "does not hold a JSON object"), ("{", "is not JSON")])
async def test_data_that_is_no_payload(headrace: Cli, tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "data.json").write_text(text)
    result = await headrace("send", "app.create", "--data", str(tmp_path / "data.json"))
    assert result.code == 1
    assert rule in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "app.create", "name=x"],
        ["ask", "app", "why?"],
        ["tail"],
        ["sql", "select 1"],
        ["worker", "--role", "all"],
    ],
)
async def test_where_nothing_runs_the_way_out_is_named(headrace: Cli, arguments: list[str]) -> None:
    result = await headrace(*arguments)
    assert result.code == 1
    assert re.search(r"✗ Nothing runs on .*home: start it with `headrace up`", result.err)
    as_json = await headrace(*arguments, "--json")
    assert as_json.code == 1
    assert as_json.lines[0]["error"]["code"] == "not_running"


async def test_down_where_nothing_runs(headrace: Cli) -> None:
    assert (await headrace("down", "--json")).lines == [{"stopped": []}]


async def test_a_wrong_setting_is_named(headrace: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TENANT", "A B")
    result = await headrace("tail")
    assert result.code == 1
    assert result.err.startswith("✗ HEADRACE_TENANT is not usable")


async def test_an_unforeseen_error_is_one_sentence_and_a_log(
    headrace: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("the cause")

    monkeypatch.setenv("HEADRACE_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setattr(nats_py, "connect", broken)
    result = await headrace("tail")
    assert result.code == 1
    assert result.err.count("\n") == 1
    log = tmp_path / "home" / "log" / "cli.log"
    assert str(log) in result.err
    assert "ZeroDivisionError: the cause" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


async def test_send_prints_the_outcome(headrace: Cli, url: str) -> None:
    id = new_id()
    async with worker(url, name="app.create", ids={"app": id}, sequence=7) as running:
        result = await headrace("send", "app.create", "name=Porter", "--id", id, "--json")
        people = await headrace("send", "app.create", "name=Porter", "--id", id)
    assert (result.code, result.lines[0]["ids"], result.lines[0]["command"]) == (0, {"app": id}, id)
    assert running.seen == 2 * [("cmd.default.anon.app.create", {"name": "Porter"})]
    assert people.out == f"✓ app.create  app {id}  #7\n"


async def test_send_as_an_actor(headrace: Cli, url: str) -> None:
    async with worker(url) as running:
        sent = await headrace("send", "app.create", "name=Porter", "--actor", "s_crm", "--json")
    assert (sent.code, running.seen) == (0, [("cmd.default.s_crm.app.create", {"name": "Porter"})])
    refused = await headrace("send", "app.create", "name=Porter", "--actor", "crm", "--json")
    assert (refused.code, refused.lines[0]["error"]["code"]) == (1, "not_sent")


async def test_send_of_a_tenant(headrace: Cli, url: str) -> None:
    result = await headrace("send", "app.create", "--tenant", "other", "--wait", "0.2", "--json")
    assert (result.code, result.lines[0]["error"]["code"]) == (1, "no_outcome")
    connection = await nats.connect(url)
    stored = await connection.jetstream().get_last_msg("COMMANDS", "cmd.other.anon.app.create")
    await connection.jetstream().purge_stream("COMMANDS")
    await connection.close()
    assert stored.data == b"{}"


async def test_a_rejection_ends_with_1(headrace: Cli, url: str) -> None:
    says = {"name": "app.create", "code": "invalid", "message": "Must not be empty.", "field": "name"}
    async with worker(url, status="rejected", **says):
        result = await headrace("send", "app.create", "name=")
        as_json = await headrace("send", "app.create", "name=", "--json")
        asked = await headrace("ask", new_id(), "why?", "--json")
    assert result == (1, "✗ app.create was rejected: name: Must not be empty.\n", "")
    assert (as_json.code, as_json.lines[0]["code"]) == (1, "invalid")
    assert (asked.code, asked.lines[0]["status"]) == (1, "rejected")


async def test_a_server_that_does_not_answer(headrace: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_NATS_URL", "nats://127.0.0.1:1")
    result = await headrace("send", "app.create")
    assert result.code == 1
    assert result.err.startswith("✗ NATS does not answer at nats://127.0.0.1:1 (no answer within 5 s)")


async def test_tail_prints_commits(headrace: Cli, url: str) -> None:
    connection = await nats.connect(url)
    body = orjson.dumps([{"type": "app.created.v1", "version": 1, "state": {"name": "x"}}])
    ack = await connection.jetstream().publish("evt.default.app.some", body)
    await connection.close()
    arguments = ["tail", "--noun", "app", "--since", str(ack.seq), "--count", "1"]
    assert (await headrace(*arguments, "--json")).lines[0]["events"][0]["type"] == "app.created.v1"
    assert re.fullmatch(rf" *{ack.seq}  \S+  app\.created\.v1  app some\n", (await headrace(*arguments)).out)


CITATION = {"position": 1, "document_name": "a.md", "page": 3, "heading": None, "sentence": "It is so."}


async def test_ask_prints_the_answer_and_what_it_cites(headrace: Cli, url: str) -> None:
    connection = await nats.connect(url)

    async def answer(message: Msg) -> None:
        id = message.subject.rpartition(".")[2]
        for frame in (
            {"type": "retrieved", "hits": 1},
            {"type": "token", "index": 0, "text": "It ", "attempt": 1},
            {"type": "token", "index": 1, "text": "is.", "attempt": 1},
            {"type": "answered", "answer": "It is.", "citations": [CITATION], "usage": {}},
        ):
            await connection.publish(f"live.default.{id}.{id}", orjson.dumps(frame))

    await connection.subscribe("out.default.*", cb=answer)
    await connection.flush()
    async with worker(url) as running:
        result = await headrace("ask", new_id(), "Is it?", "--input", "season=winter")
        as_json = await headrace("ask", new_id(), "Is it?", "--json")
    await connection.close()
    assert result == (0, "It is.\n  [1] a.md, page 3: “It is so.”\n", "")
    assert running.seen[0][1]["inputs"] == {"season": "winter"}
    assert [line["type"] for line in as_json.lines] == ["accepted", "retrieved", "token", "token", "answered"]


async def test_a_home_that_cannot_be_used_is_named(headrace: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (["up", "--detach"], ["up"]):
        result = await headrace(*arguments, "--home", str(tmp_path / "file" / "home"), "--json")
        error = result.lines[-1]["error"]
        assert (result.code, error["code"]) == (1, "unusable_file")
        assert (
            error["message"]
            == f"{tmp_path / 'file' / 'home'} cannot be used: Not a directory: choose a folder with --home."
        )


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("no folder")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "home"


def too_long(folder: Path) -> Path:
    return folder / ("x" * 300)


def a_loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop" / "home"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_file, "file cannot be used: File exists: choose a folder with --home."),
        (below_a_file, "home cannot be used: Not a directory: choose a folder with --home."),
        (too_long, "headrace.toml cannot be read: File name too long: choose a shorter path with --home."),
        (a_loop, "home cannot be used: Too many levels of symbolic links: correct this link, which leads to itself."),
    ],
)
async def test_a_home_that_cannot_be_one_is_refused(
    headrace: Cli, tmp_path: Path, make: Callable[[Path], Path], said: str
) -> None:
    home = make(tmp_path)
    for arguments in (["up", "--detach"], ["up"]):
        result = await headrace(*arguments, "--home", str(home), "--json")
        error = result.lines[-1]["error"]
        assert result.code == 1
        assert error["code"] in ("unusable_file", "invalid_setting")
        assert error["message"].endswith(said)


AWAY = [
    "send app.create name=a --wait 0.2",
    "tail",
    "sql select+1",
    "upload FILE --dataset x",
    "preview FILE",
    "ask x y",
    "search x y",
    "rebuild",
    "rebuild --check",
    "rebuild --undo",
    "rebuild --drop-old",
    "verify",
    "index show",
    "index rebuild",
    "index drop 1",
    "dead list",
    "dead show x",
    "dead retry x",
    "dead discard x",
    "quarantine list",
    "quarantine show EVENTS:1",
    "limits list",
    "ping --role view",
    "archive",
    "session list",
    "session end --all",
    "account list",
    "account show ada@example.org",
    "account disable id --wait 0.2",
    "tenant list",
    "tenant show acme",
    "tenant members acme",
    "tenant invitations acme",
    "tenant archive acme --yes --wait 0.2",
    "tenant export acme FOLDER",
    "key list",
    "provider list",
    "provider show lab",
    "provider register lab http://127.0.0.1:1 --wait 0.2",
    "provider check lab --wait 0.2",
    "provider remove lab --yes --wait 0.2",
    "provider remove-key lab spare --wait 0.2",
    "key create site --permission chat --wait 0.2",
    "key replace id --wait 0.2",
    "rotate-key --check",
    "nats accounts --log",
]
"""Commands that need a server."""


@pytest.mark.parametrize("line", AWAY)
@pytest.mark.parametrize("how", ["nothing_listens", "wrong_password"])
async def test_a_server_that_is_away_or_refuses_is_one_sentence(
    headrace: Cli,
    line: str,
    how: str,
    server_url: str,
    postgres: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls = {
        "nothing_listens": ("nats://127.0.0.1:1", "postgresql://u:p@127.0.0.1:1/d"),
        "wrong_password": (server_url.replace("admin:", "admin:x"), postgres.url.replace("postgres:", "postgres:x")),
    }
    for name, url in zip(("NATS", "POSTGRES"), urls[how], strict=True):
        monkeypatch.setenv(f"HEADRACE_{name}_URL", url)
    monkeypatch.setenv("HEADRACE_ARCHIVE_URL", str(tmp_path / "archive"))
    monkeypatch.setitem(Client.connect.__func__.__kwdefaults__, "within", 0.3)  # type: ignore[attr-defined]
    for module in ("rebuild", "index"):
        monkeypatch.setattr(f"ops.upkeep.{module}.WITHIN_S", 0.3)
    (tmp_path / "file.txt").write_text("text")
    places = {"+": " ", "FILE": str(tmp_path / "file.txt"), "FOLDER": str(tmp_path / "folder")}
    arguments = [reduce(lambda text, place: text.replace(*place), places.items(), part) for part in line.split()]
    result = await headrace(*arguments)
    said = result.out + result.err
    assert result.code == 1, said
    assert "✗" in said
    assert "NATS" in said or "PostgreSQL" in said
    assert "nexpected" not in said
    assert not (tmp_path / "home" / "log" / "cli.log").exists()


async def test_the_doctor_names_each_server_that_is_away(headrace: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", "postgresql://u:p@127.0.0.1:1/d")
    monkeypatch.setitem(Client.connect.__func__.__kwdefaults__, "within", 0.3)  # type: ignore[attr-defined]
    result = await headrace("doctor", "--json")
    assert {found["what"] for found in result.lines if not found["good"]} >= {"NATS", "PostgreSQL"}
    assert all(found["advice"] for found in result.lines if not found["good"])


def test_what_the_machine_lacks_is_not_unforeseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(error: Exception) -> tuple[str, str]:
        with pytest.raises(SystemExit):
            explain(error, as_json=True)
        said = json.loads(capsys.readouterr().out)["error"]
        return said["code"], said["message"]

    with pytest.raises(ModuleNotFoundError) as missing:
        import_module("headrace_has_no_such_package")
    code, sentence = printed(missing.value)
    assert code == "missing_package"
    assert "No module named 'headrace_has_no_such_package'" in sentence
    with pytest.raises(OSError, match="No space left") as full, open("/dev/full", "w", buffering=1) as device:
        device.write("x" * 10_000 + "\n")
    said = f"{tmp_path / 'home'} cannot be used: No space left on device: free some space on its disk, then try again."
    assert printed(full.value) == ("unusable_file", said)
    assert printed(ConnectionRefusedError(111, "Connection refused"))[0] == "unforeseen"
    (tmp_path / "home" / "log" / "cli.log").unlink()
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert "headrace-cli.log" in printed(ZeroDivisionError("odd"))[1]
    assert "ZeroDivisionError: odd" in (tmp_path / "headrace-cli.log").read_text()
    (tmp_path / "headrace-cli.log").unlink()
    (tmp_path / "headrace-cli.log").symlink_to(tmp_path / "of another user")
    with pytest.raises(OSError, match="symbolic link"):
        printed(ZeroDivisionError("odd"))
    assert not (tmp_path / "of another user").exists()


def test_an_answer_that_begins_again_is_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    printer = bus.AnswerPrinter()
    printer.show({"type": "token", "text": "Per", "attempt": 1})
    printer.show({"type": "token", "text": "No\x1b[2J", "attempt": 2})
    printer.show({"type": "answered", "answer": "No\x1b[2J.", "citations": []})
    assert capsys.readouterr().out == "Per\n[again]\nNo[2J.\n"
    printer = bus.AnswerPrinter()
    printer.show({"type": "token", "text": "Per", "attempt": 1})
    printer.show({"type": "restarted", "attempt": 2})
    printer.show({"type": "token", "text": "No", "attempt": 2})
    printer.show({"type": "answered", "answer": "No.", "citations": []})
    assert capsys.readouterr().out == "Per\n[again]\nNo.\n"
    printer = bus.AnswerPrinter()
    printer.show({"type": "token", "text": "Hm", "attempt": 1})
    printer.show({"type": "restarted", "attempt": 1})
    printer.show({"type": "token", "text": "No", "attempt": 1})
    printer.show({"type": "answered", "answer": "No.", "citations": []})
    assert capsys.readouterr().out == "Hm\n[again]\nNo.\n"


@pytest.mark.parametrize(
    ("frame", "printed"),
    [
        ({"type": "answered", "answer": "Whole.", "citations": []}, "Whole.\n"),
        ({"type": "failed", "code": "timeout", "reason": "It was silent."}, "✗ no answer (timeout): It was silent.\n"),
        ({"type": "stopped", "answer": "Half"}, "Half\nstopped\n"),
        ({"type": "thought", "text": "I look.", "round": 1, "attempt": 1}, "I look.\n"),
        ({"type": "tool", "name": "weather", "arguments": "{}", "round": 1, "attempt": 1}, "→ weather {}\n"),
        (
            {"type": "observation", "status": "completed", "text": "Rain\nall day.", "attempt": 1},
            "  completed: Rain all day.\n",
        ),
        ({"type": "held", "calls": ["a"]}, "It waits for tool_call.release or tool_call.refuse of a.\n"),
    ],
)
def test_an_answer_without_tokens(capsys: pytest.CaptureFixture[str], frame: dict[str, Any], printed: str) -> None:
    bus.AnswerPrinter().show(frame)
    assert capsys.readouterr().out == printed


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    for name in ("a.md", "deep/b.txt", ".hidden", ".git/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}")
    return folder


async def test_upload_sends_what_is_in_a_folder(headrace: Cli, url: str, files: Path) -> None:
    async with worker(url) as running:
        result = await headrace("upload", str(files), "--dataset", new_id(), "--json")
    assert result.code == 0
    assert [(line["name"], line["status"]) for line in result.lines] == [("a.md", "waiting"), ("b.txt", "waiting")]
    assert {payload["name"] for _, payload in running.seen} == {"a.md", "b.txt"}
    connection = await nats.connect(url)
    blobs = await connection.jetstream().object_store("blobs")
    assert (await blobs.get(f"default/{running.seen[0][1]['digest']}")).data is not None
    await connection.close()


async def test_upload_waits_until_documents_end(headrace: Cli, url: str, files: Path) -> None:
    connection = await nats.connect(url)
    log = connection.jetstream()
    first = (await log.stream_info("EVENTS")).state.last_seq + 1

    async def work(message: Msg) -> None:
        id = message.subject.rpartition(".")[2]
        for kind, state in endings[len(seen)]:
            body = orjson.dumps([{"type": f"document.{kind}.v1", "version": 1, "state": state}])
            seen[id] = (await log.publish(f"evt.default.document.{id}", body)).seq

    endings: list[list[tuple[str, dict[str, Any]]]] = [
        [("split", {"count": 3}), ("indexed", {"first": 0, "count": 3}), ("completed", {})],
        [("failed", {"stage": "parsing", "code": "broken_file", "reason": "It is not a PDF."})],
    ]
    seen: dict[str, int] = {}
    await connection.subscribe("out.default.*", cb=work)
    await connection.flush()
    async with worker(url, sequence=first):
        result = await headrace("upload", str(files), "--dataset", new_id(), "--wait", "--json")
    await connection.close()
    assert result.code == 1
    assert {line["status"]: (line["segments"], line["reason"]) for line in result.lines} == {
        "completed": (3, None),
        "error": (0, "It is not a PDF."),
    }


async def test_upload_gives_every_file_the_same_rules_and_metadata(headrace: Cli, url: str, files: Path) -> None:
    given = ["--rules", '{"mode": "question_answer"}', "--metadata", '{"year": 2026}']
    async with worker(url) as running:
        result = await headrace("upload", str(files), "--dataset", new_id(), *given)
    assert result.code == 0
    assert [payload["segmentation"] for _, payload in running.seen] == [{"mode": "question_answer"}] * 2
    assert [payload["metadata"] for _, payload in running.seen] == [{"year": 2026}] * 2
    result = await headrace("upload", str(files), "--dataset", new_id(), "--rules", "{mode}")
    assert result.code == 1
    assert result.err.startswith("✗ --rules is not JSON: ")


async def test_upload_of_what_does_not_exist(headrace: Cli, url: str) -> None:
    result = await headrace("upload", "nowhere.txt", "--dataset", new_id())
    assert (result.code, result.err) == (1, "✗ nowhere.txt does not exist.\n")


@pytest.fixture
async def read_tables(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await tables.set_up(database_url)
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", database_url)


@pytest.mark.usefixtures("read_tables")
class TestSql:
    async def test_rows_are_printed(self, headrace: Cli) -> None:
        query = "select 1 as n, null as nothing, '{\"a\": [1]}'::jsonb as j, now() as at"
        (row,) = (await headrace("sql", query, "--json")).lines
        assert (row["n"], row["nothing"], row["j"]) == (1, None, {"a": [1]})
        people = await headrace("sql", "select 1 as n, 'x\x1b[31m%s' as t")
        assert "x[31m%s" in people.out
        assert "1 row\n" in people.out

    async def test_the_tables_can_be_read(self, headrace: Cli) -> None:
        assert await headrace("sql", "select * from apps", "--json") == (0, "", "")

    @pytest.mark.parametrize(
        ("query", "rule"),
        [
            ("create table t ()", "read-only transaction"),
            ("delete from headrace.apps", "read-only transaction"),
            ("select 1; drop table headrace.apps", "multiple commands"),
            ("select pg_read_file('/etc/passwd')", "permission denied"),
            ("selekt", "syntax error"),
            ("select * from nowhere", "does not exist"),
        ],
    )
    async def test_what_is_refused(self, headrace: Cli, query: str, rule: str) -> None:
        result = await headrace("sql", query)
        assert result.code == 1
        assert rule in result.err


async def test_doctor_says_what_to_do_where_nothing_runs(headrace: Cli) -> None:
    result = await headrace("doctor", "--json")
    assert result.code == 1
    found = {line["what"]: line for line in result.lines}
    assert (found["NATS"]["good"], found["PostgreSQL"]["good"]) == (False, False)
    assert "headrace up" in found["NATS"]["advice"]


@pytest.mark.usefixtures("read_tables", "url")
async def test_doctor_looks_at_everything(headrace: Cli) -> None:
    result = await headrace("doctor", "--json")
    found = {line["what"]: line for line in result.lines}
    assert found["NATS"]["found"] == "2.15.1 answers"
    assert found["PostgreSQL"]["found"] == "18.4 answers"
    assert found["stream EVENTS"]["good"]
    assert found["queue ingest"]["good"]
    assert found["tables"]["good"]
    assert "messages behind the log" in found["knowledge tables of EVENTS"]["found"]
    assert found["worker answer"] == {
        "what": "worker answer",
        "good": False,
        "found": "none answers",
        "advice": "start one with `headrace worker --role answer`; if it ends by itself, see its log",
    }
    assert found["pgvector"]["good"] is False
    assert result.code == 1
    assert "✗ worker answer" in (await headrace("doctor")).out


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (None, "None"), ([1, "ä"], '[1, "ä"]'), (b"\x00", "00"), (1.5, "1.5")]
)
def test_values_as_text(value: Any, text: str) -> None:
    as_text: Callable[[Any], str] = terminal.as_text
    assert as_text(value) == text
