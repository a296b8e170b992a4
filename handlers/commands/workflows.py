"""Commands of workflows: the graphs of apps, as drafts and as published versions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import Field, JsonValue, model_validator

from domain.aggregate import Rejection
from domain.chat.app import App
from domain.workflows.graph import Graph, load
from domain.workflows.node_types import problems
from domain.workflows.workflow import MOST_COMMENT, MOST_NAME, Workflow
from handlers.commands.fields import AppId, Command, Id, Ref, Sha256, at_most
from handlers.commands.packed import kept_blob
from handlers.commands.preparation import Change, MakeOrChange, Preparation, not_found

LARGEST = 10 * 2**20
"""Maximum bytes of a document, and of a file that it was made from."""

WorkflowId = Annotated[Id, Ref(Workflow), Field(description="Workflow: the id of its app")]

Secret = Annotated[str, Field(min_length=1, max_length=100_000)]


class SaveWorkflow(Command):
    """Save the draft of a workflow, in place of the one that it names."""

    app: AppId
    document: Annotated[dict[str, JsonValue], at_most(kib=256)] | None = Field(
        None, description="App file of Dify as a JSON object, at most 256 KiB: `app.mode` and `workflow` count"
    )
    digest: Sha256 | None = Field(
        None, description="SHA-256 in hex of a blob with that object as JSON, at most 10 MiB; null with a `document`"
    )
    file: Sha256 | None = Field(
        None, description="SHA-256 in hex of the blob with the file that it was imported from; null for none"
    )
    secrets: Annotated[dict[Annotated[str, Field(max_length=255)], Secret], Field(max_length=256), at_most(kib=256)] = (
        Field({}, description="Values of secret variables by name; those that are left out keep the values they have")
    )
    replaces: Sha256 | None = Field(
        None, description="`document` of the draft that it replaces, as in `workflows`; null for the first draft"
    )

    @model_validator(mode="after")
    def _has_a_document(self) -> SaveWorkflow:
        if (self.document is None) == (self.digest is None):
            raise ValueError("Give exactly one of document and digest")
        return self


class PublishWorkflow(Command):
    """Publish the draft as the next numbered version. What cannot run is refused, with node and field."""

    workflow: WorkflowId
    name: Annotated[str, Field(max_length=MOST_NAME)] = Field("", description="Name of the version, for people")
    comment: Annotated[str, Field(max_length=MOST_COMMENT)] = Field("", description="Comment, for people")


class RestoreWorkflow(Command):
    """Make the draft a copy of a published version."""

    workflow: WorkflowId
    number: Annotated[int, Field(ge=1)] = Field(description="Number of the version")


class KeepFile(Command):
    """Keep the file that an app without a graph was imported from, for its export."""

    app: AppId
    file: Sha256 = Field(description="SHA-256 in hex of the blob with the file")


@dataclass(frozen=True, slots=True)
class _Stored:
    document: str
    graph: str
    secrets: frozenset[str]
    """Names of the secret variables."""


async def save(command: SaveWorkflow, given: Preparation) -> MakeOrChange[Workflow]:
    app = given.the(App, "app")
    if not app.has_graph:
        sentence = f"App {app.id} is of mode {app.mode}, which has no graph; send app.configure."
        raise Rejection("wrong_mode", sentence, "app")
    if command.file and await kept_blob(given, command.file, "file") > LARGEST:
        raise Rejection("too_large", f"A file must not exceed {LARGEST // 2**20} MiB.", "file")
    stored = await _store(await _document(command, given), app, given)
    if unknown := sorted(command.secrets.keys() - stored.secrets):
        raise Rejection("invalid", "The environment has no secret variable of this name.", f"secrets.{unknown[0]}")
    new = {name: given.ports.vault.seal(given.tenant, text) for name, text in command.secrets.items()}

    def decide(workflow: Workflow | None, id: str, at: datetime) -> Workflow:
        workflow = workflow or Workflow.begin(Workflow.Begun, id, at)
        known = {**(workflow.draft["secrets"] if workflow.draft else {}), **new}
        workflow.save(
            at,
            replaces=command.replaces,
            document=stored.document,
            graph=stored.graph,
            file=command.file,
            secrets={name: sealed for name, sealed in known.items() if name in stored.secrets},
        )
        return workflow

    return decide


async def _document(command: SaveWorkflow, given: Preparation) -> dict[str, Any]:
    if command.digest is None:
        assert command.document is not None
        return command.document
    if await kept_blob(given, command.digest, "digest") > LARGEST:
        raise Rejection("too_large", f"A document must not exceed {LARGEST // 2**20} MiB.", "digest")
    data = await given.ports.blobs.get(given.tenant, command.digest)
    try:
        found = await asyncio.to_thread(orjson.loads, data)
    except ValueError:
        raise Rejection("invalid", "The blob is no JSON.", "digest") from None
    if not isinstance(found, dict):
        raise Rejection("invalid", "The blob is no JSON object.", "digest")
    return found


async def _store(document: Mapping[str, Any], app: App, given: Preparation) -> _Stored:
    """Load a document, and store it and its graph. Raises: Rejection."""
    graph = await asyncio.to_thread(load, document)
    if graph.mode != app.mode:
        raise Rejection("wrong_mode", f"The app is of mode {app.mode}, the document of {graph.mode}.", "app.mode")
    secrets = [variable for variable in graph.environment if variable.type == "secret"]
    if clear := [variable.name for variable in secrets if variable.value]:
        sentence = f"The value of {clear[0]} is secret: leave it empty, and give it in `secrets`."
        raise Rejection("invalid", sentence, "workflow.environment_variables")
    blobs = given.ports.blobs
    return _Stored(
        await blobs.put(given.tenant, await asyncio.to_thread(_json, document)),
        await blobs.put(given.tenant, graph.text),
        frozenset(variable.name for variable in secrets),
    )


def _json(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document)


async def publish(command: PublishWorkflow, given: Preparation) -> Change[Workflow]:
    workflow, app = await given.get(Workflow, command.workflow), await given.get(App, command.workflow)
    if workflow is None or workflow.draft is None or app is None or app.deleted:
        raise not_found(Workflow, command.workflow, "workflow")
    digest = workflow.draft["graph"]
    await _runnable(await given.ports.blobs.get(given.tenant, digest))
    return lambda known, at: known.publish(at, graph=digest, name=command.name, comment=command.comment)


async def _runnable(text: bytes) -> None:
    """Raises: Rejection `cannot_run`."""
    graph: Graph = await asyncio.to_thread(lambda: load(orjson.loads(text)))
    for each in problems(graph):
        where = f"Node {each.node}" if each.node else "The graph"
        raise Rejection("cannot_run", f"{where}: {each.rule}", f"{each.node}.{each.field}" if each.node else each.field)


def restore(workflow: Workflow, at: datetime, command: RestoreWorkflow) -> None:
    workflow.restore(at, number=command.number)


async def keep_file(command: KeepFile, given: Preparation) -> Change[App]:
    if await kept_blob(given, command.file, "file") > LARGEST:
        raise Rejection("too_large", f"A file must not exceed {LARGEST // 2**20} MiB.", "file")

    def change(app: App, at: datetime) -> None:
        if app.has_graph:
            raise Rejection("wrong_mode", f"App {app.id} has a graph; give the file to workflow.save.", "app")
        app.keep_file(at, file=command.file)

    return change
