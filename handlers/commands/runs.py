"""Commands of runs of workflows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from domain.aggregate import Rejection
from domain.chat.app import App
from domain.workflows.engine import ENGINE
from domain.workflows.graph import START, Graph
from domain.workflows.node_type import mapping, sequence, text
from domain.workflows.node_types import problems
from domain.workflows.run import Run, RunLimits, Source
from domain.workflows.start_form import accept
from domain.workflows.values import STRING, File, Value, array, declared, infer
from domain.workflows.workflow import Workflow
from handlers.commands.fields import AppId, Command, Id, Name, Ref, at_most
from handlers.commands.message_files import FileFields, stored_file
from handlers.commands.preparation import Make, Preparation, not_found
from handlers.files import Files
from handlers.run_values import RunValues

LIMITS = RunLimits(steps=25_000, seconds=1200.0)
"""Limits of a run: far more steps than the 500 of Dify, which a list of some hundred items exceeds."""

DRAFT = 0
"""The number that stands for the draft."""

RunId = Annotated[Id, Ref(Run), Field(description="Run")]

Inputs = Annotated[dict[Annotated[str, Field(max_length=255)], JsonValue], Field(max_length=256), at_most(kib=512)]

Step = Annotated[str, Field(max_length=2000)]


class StartRun(Command):
    """Start a run of a workflow: of the newest published version, by default."""

    app: AppId
    inputs: Inputs = Field(
        {}, description="Values of the start form, by name. A file is an object with the fields of a file of a message"
    )
    user: Name = Field("anonymous", description="End user, as the app's operator names them")
    version: Annotated[int, Field(ge=1)] | None = Field(None, description="Published version; null for the newest")


class TryWorkflow(Command):
    """Start a run of the draft of a workflow."""

    app: AppId
    inputs: Inputs = Field({}, description="Values of the start form, by name")
    user: Name = Field("anonymous", description="End user, as the app's operator names them")


class RetryRun(Command):
    """Go on with a run that failed or was stopped, from the steps that failed, as a new run that keeps the others."""

    source: RunId


class ForkRun(Command):
    """Start a run that keeps the results of another one, as far as they do not change."""

    source: RunId
    step: Step = Field("", description="Node from which on all runs again; empty for what has changed alone")
    inputs: Inputs | None = Field(None, description="Values of the start form, by name; null for the same ones")
    version: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Published version whose graph runs; null for that of the run"
    )
    draft: bool = Field(False, description="Run the graph of the draft")


class StopRun(Command):
    """Stop a run; what is under way is broken off."""

    run: RunId


class AnswerForm(Command):
    """Answer a form that a run waits for: the first answer counts."""

    run: RunId
    step: Step = Field(description="Step that waits, as in `human_input_forms`")
    action: Annotated[str, Field(max_length=255)] = Field(description="Button")
    fields: Annotated[dict[Annotated[str, Field(max_length=255)], JsonValue], at_most(kib=256)] = Field(
        {}, description="Values of the fields, by name; those that are left out keep their defaults"
    )
    by: Annotated[str, Field(max_length=255)] = Field("", description="End user who answers; empty for none")


async def start(command: StartRun, given: Preparation) -> Make[Run]:
    return await _started(given, given.the(App, "app"), command.inputs, command.user, command.version)


async def try_draft(command: TryWorkflow, given: Preparation) -> Make[Run]:
    return await _started(given, given.the(App, "app"), command.inputs, command.user, DRAFT)


async def retry(command: RetryRun, given: Preparation) -> Make[Run]:
    source = given.the(Run, "source")
    if source.status not in ("failed", "stopped", "partial-succeeded"):
        raise Rejection("not_failed", f"Run {source.id} is {source.status}, not failed.", "source")
    return await _again(given, source, Source(run=source.id, kind="retry", step=""))


async def fork(command: ForkRun, given: Preparation) -> Make[Run]:
    source = given.the(Run, "source")
    graph, version = source.graph, None
    if command.draft or command.version:
        app = await given.get(App, source.app)
        if app is None or app.deleted:
            raise not_found(App, source.app, "source")
        graph, version = await graph_of(given, app, DRAFT if command.draft else command.version)
    loaded = await given.ports.graphs.get(given.tenant, graph)
    must_run(loaded)
    if command.step and command.step not in loaded.nodes:
        raise Rejection("not_found", f"The graph has no node {command.step}.", "step")
    changed: dict[str, Any] = {"graph": graph, "version": version} if graph != source.graph else {}
    if command.inputs is not None:
        changed["inputs"] = await _inputs(loaded, command.inputs, given)
    return await _again(given, source, Source(run=source.id, kind="fork", step=command.step), **changed)


async def _again(given: Preparation, source: Run, kept: Source, **changed: Any) -> Make[Run]:
    """A run as another one was, with these changes. Raises: Rejection."""
    if source.mode != "workflow":
        raise Rejection("wrong_mode", "The run answers a message; send message.regenerate.", "source")
    first = await given.ports.repository.first(Run, given.tenant, source.id)
    began = first.events[0] if first else None
    if not isinstance(began, Run.Started) or (given.person and not began.user):
        raise Rejection("erased", "The user of the run was erased.", "source")
    names = [name for name in Run.Started.__annotations__ if name in vars(began)]
    fields = {name: getattr(began, name) for name in names}
    system = await _values(given).put(system_values(began.app, given.id, began.user))
    again: Any = {**fields, "system": {**fields["system"], **system}, "source": kept, "tool_call": None, **changed}
    return lambda id, at: Run.begin(Run.Started, id, at, **again)


async def _started(
    given: Preparation, app: App, inputs: Mapping[str, Any], user: str, version: int | None
) -> Make[Run]:
    if app.mode != "workflow":
        sentence = f"App {app.id} is of mode {app.mode}; send message.send to it."
        raise Rejection("wrong_mode", sentence, "app")
    digest, number = await graph_of(given, app, version)
    graph = await given.ports.graphs.get(given.tenant, digest)
    if number is None:
        must_run(graph)
    recorded = await _inputs(graph, inputs, given)
    system = await _values(given).put(system_values(app.id, given.id, user))
    trigger = "app" if number else "draft"
    fields = started(app.id, digest, number, trigger=trigger, user=user, inputs=recorded, system=system)
    return lambda id, at: Run.begin(Run.Started, id, at, **fields)


def started(
    app: str,
    graph: str,
    version: int | None,
    *,
    trigger: str,
    user: str,
    inputs: Mapping[str, Any],
    system: Mapping[str, Any],
    mode: str = "workflow",
    entry: str | None = None,
    variables: Mapping[str, Any] | None = None,
    conversation: str | None = None,
    message: str | None = None,
    tool_call: str | None = None,
) -> dict[str, Any]:
    """The fields of the beginning of a run."""
    return {
        "app": app,
        "mode": mode,
        "entry": entry,
        "trigger": trigger,
        "graph": graph,
        "version": version,
        "engine": ENGINE,
        "user": user,
        "inputs": inputs,
        "system": system,
        "variables": variables or {},
        "conversation": conversation,
        "message": message,
        "limits": LIMITS,
        "source": None,
        "tool_call": tool_call,
        "depth": 0,
    }


async def _inputs(graph: Graph, inputs: Mapping[str, Any], given: Preparation) -> dict[str, Any]:
    """The inputs as they are recorded. Raises: Rejection."""
    accepted = accept(graph, await _with_files(graph, inputs, given))
    return await _values(given).put({name: infer(value) for name, value in accepted.items()})


def _values(given: Preparation) -> RunValues:
    return RunValues(Files(given.ports.blobs, given.ports.people), given.tenant, given.person)


async def chatflow_inputs(inputs: dict[str, str], given: Preparation, app: App) -> dict[str, str]:
    """The inputs of a message, checked by the start form of the newest version. Raises: Rejection."""
    digest, _ = await graph_of(given, app, None)
    accepted = accept(await given.ports.graphs.get(given.tenant, digest), inputs)
    return {name: value for name, value in inputs.items() if name in accepted}


async def graph_of(given: Preparation, app: App, version: int | None) -> tuple[str, int | None]:
    """The digest of a graph that an app runs, and its number; None for the draft. Raises: Rejection."""
    workflow = await given.get(Workflow, app.id)
    if version == DRAFT:
        if workflow is None or workflow.draft is None:
            raise Rejection("not_found", f"App {app.id} has no draft; send workflow.save first.", "app")
        return workflow.draft["graph"], None
    if workflow is None or not workflow.versions:
        raise Rejection("not_published", f"App {app.id} has no version; send workflow.publish first.", "app")
    number = version or len(workflow.versions)
    if (found := workflow.versions.get(str(number))) is None:
        raise Rejection("not_found", f"The workflow has {len(workflow.versions)} versions.", "version")
    return found["graph"], number


def must_run(graph: Graph) -> None:
    """Raises: Rejection `cannot_run`."""
    for each in problems(graph):
        where = f"Node {each.node}" if each.node else "The graph"
        raise Rejection("cannot_run", f"{where}: {each.rule}", "app")


def system_values(app: str, run: str, user: str, **more: Any) -> dict[str, Value]:
    """The values of `sys`."""
    texts = {"user_id": user, "app_id": app, "workflow_id": app, "workflow_run_id": run}
    values = {name: Value(STRING, each) for name, each in texts.items()}
    return {**values, "files": Value(array("file"), []), **{name: infer(each) for name, each in more.items()}}


def initial(graph: Graph) -> dict[str, Value]:
    """The values of a conversation's variables at its beginning."""
    return {each.name: declared(each.type, each.value) for each in graph.conversation}


async def _with_files(graph: Graph, inputs: Mapping[str, Any], given: Preparation) -> dict[str, Any]:
    """The inputs with the files that the start form asks for. Raises: Rejection."""
    found = dict(inputs)
    entry = graph.nodes.get(graph.entry or "")
    fields = sequence(entry.data.get("variables")) if entry and entry.type == START else []
    number = 0
    for field in map(mapping, fields):
        name, several = text(field.get("variable")), field.get("type") == "file-list"
        if field.get("type") not in ("file", "file-list") or found.get(name) is None:
            continue
        asked = found[name] if several and isinstance(found[name], list) else [found[name]]
        files = []
        for place, each in enumerate(asked):
            files.append(await _file(each, number, f"inputs.{name}.{place}" if several else f"inputs.{name}", given))
            number += 1
        found[name] = files if several else files[0]
    return found


async def _file(asked: Any, number: int, at: str, given: Preparation) -> File:
    try:
        fields = FileFields.model_validate(asked)
    except ValidationError as error:
        rule = error.errors()[0]["msg"]
        raise Rejection("invalid", f"It is a file: {rule}.", at) from None
    stored = await stored_file(fields, number, given, given.ports.file_limits.of(fields.type), f"{at}.")
    return run_file(stored)


def run_file(stored: Mapping[str, Any]) -> File:
    """A file of a message, or of an input, as a value of a run."""
    return File(
        type=stored["type"],
        transfer_method=stored["transfer_method"],
        filename=stored["name"],
        extension=PurePosixPath(stored["name"]).suffix or None,
        mime_type=stored["media_type"],
        size=-1 if stored["size"] is None else stored["size"],
        remote_url=stored["url"],
        related_id=stored["digest"],
        url=stored["url"],
    )


def stop(run: Run, at: datetime, command: StopRun) -> None:
    run.stop(at)


def answer(run: Run, at: datetime, command: AnswerForm) -> None:
    run.answer(at, key=command.step, action=command.action, fields=dict(command.fields), by=command.by)
