"""`headrace run`: runs of workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, LiteralString

import typer

from ops import terminal
from ops.cli.bus import merged
from ops.cli.frame import Failed, Home, Json, Tenant, Wait, app, conclude, connected, rows, run
from ops.settings import Settings
from ops.terminal import emit

runs = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(runs, name="run", help="Start, list, stop, repeat and answer runs of workflows.")

ENDED = ("succeeded", "partial-succeeded", "failed", "stopped")

Id = Annotated[str, typer.Argument(help="Id of the run.", metavar="RUN")]
App = Annotated[str, typer.Argument(help="Id of the app.", metavar="APP")]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(help="Inputs: key=text, key:=JSON or key@=FILE.", metavar="KEY=VALUE…", show_default=False),
]
User = Annotated[str, typer.Option(help="End user, as the app's operator names them.")]
Follow = Annotated[bool, typer.Option("--follow", help="Wait until it ends or waits for a person, and show it.")]


@runs.command(
    epilog="Examples: [bold]headrace run start ID question='Is the gate open?' --follow[/] · "
    "[bold]headrace run start ID --draft --json[/]"
)
def start(
    app: App,
    inputs: Pairs = None,
    user: User = "anonymous",
    number: Annotated[int | None, typer.Option(min=1, help="Version. Default: the newest.")] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Run the draft.")] = False,
    follow: Follow = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Start a run of an app with a graph."""
    if draft and number:
        raise Failed("Give --draft or --number, not both.")
    fields: dict[str, Any] = {"app": app, "inputs": merged({}, inputs or []), "user": user}
    if number:
        fields["version"] = number
    _send("run.try" if draft else "run.start", fields, wait, tenant, home, as_json, follow=follow)


@runs.command(epilog="Examples: [bold]headrace run show ID[/] · [bold]headrace run show ID --json[/]")
def show(id: Id, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Show a run as a tree of its steps with states and times, its outputs, and the forms that it waits for."""
    settings = Settings.load(home=home, tenant=tenant)
    found, forms, steps = run(_whole(settings, id))
    if as_json:
        emit({**found, "forms": forms, "steps": steps})
        return
    _show(found, forms, as_json)
    for line in tree(steps):
        terminal.say(line)


@runs.command(
    "list",
    epilog="Examples: [bold]headrace run list[/] · [bold]headrace run list --status paused --status failed --json[/]",
)
def list_runs(
    app: Annotated[str | None, typer.Option(help="Id of an app. Default: all.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="Status; repeatable. Default: all.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Number of runs.")] = 50,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    settings = Settings.load(home=home, tenant=tenant)
    found = run(rows(settings, _LIST, tenant=settings.tenant, app=app, status=status or None, limit=limit))
    columns = ["id", "app_id", "version", "status", "total_steps", "elapsed_time", "created_at", "error"]
    terminal.show_listing(found, columns, as_json)


@runs.command(epilog="Example: [bold]headrace run stop ID[/]")
def stop(id: Id, wait: Wait = 10.0, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Stop a run; what is under way is broken off."""
    _send("run.stop", {"run": id}, wait, tenant, home, as_json)


@runs.command(epilog="Example: [bold]headrace run retry ID --follow[/]")
def retry(
    id: Id, follow: Follow = False, wait: Wait = 10.0, tenant: Tenant = None, home: Home = None, as_json: Json = False
) -> None:
    """Go on with a run that failed, from the steps that failed, as a new run."""
    _send("run.retry", {"source": id}, wait, tenant, home, as_json, follow=follow)


@runs.command(
    epilog="Examples: [bold]headrace run fork ID --step check[/] · "
    "[bold]headrace run fork ID question='And the other one?' --draft --follow[/]"
)
def fork(
    id: Id,
    inputs: Pairs = None,
    step: Annotated[str, typer.Option(help="Node from which on all runs again.")] = "",
    number: Annotated[int | None, typer.Option(min=1, help="Version that runs. Default: the same.")] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Run the graph of the draft.")] = False,
    follow: Follow = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Start a run that keeps the results of another one, as far as they do not change."""
    fields: dict[str, Any] = {"source": id, "step": step, "draft": draft}
    if inputs:
        fields["inputs"] = merged({}, inputs)
    if number:
        fields["version"] = number
    _send("run.fork", fields, wait, tenant, home, as_json, follow=follow)


@runs.command(epilog="Example: [bold]headrace run answer ID ask yes note='A ship waits.'[/]")
def answer(
    id: Id,
    step: Annotated[str, typer.Argument(help="Step that waits, as `run show` has it.", metavar="STEP")],
    action: Annotated[str, typer.Argument(help="Button.", metavar="ACTION")],
    fields: Pairs = None,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Answer a form that a run waits for."""
    given = {"run": id, "step": step, "action": action, "fields": merged({}, fields or [])}
    _send("run.answer", given, wait, tenant, home, as_json)


_LIST: LiteralString = (
    "SELECT * FROM headrace.workflow_runs WHERE tenant_id = %(tenant)s "
    "AND (%(app)s::text IS NULL OR app_id = %(app)s) "
    "AND (%(status)s::text[] IS NULL OR status = ANY(%(status)s)) ORDER BY created_at DESC LIMIT %(limit)s"
)

_RUN: LiteralString = "SELECT * FROM headrace.workflow_runs WHERE tenant_id = %(tenant)s AND id = %(id)s"

_FORMS: LiteralString = (
    "SELECT * FROM headrace.human_input_forms WHERE tenant_id = %(tenant)s AND workflow_run_id = %(id)s "
    "AND status = 'waiting' ORDER BY created_at"
)

_STEPS: LiteralString = (
    "SELECT step, node_type, title, status, tries, kept, total_tokens, elapsed_time, error "
    "FROM headrace.workflow_node_executions WHERE tenant_id = %(tenant)s AND workflow_run_id = %(id)s "
    "ORDER BY index LIMIT 1000"
)


async def _whole(settings: Settings, id: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """A run with its forms and its first steps. Raises: Failed."""
    found, forms = await _found(settings, id)
    return found, forms, await rows(settings, _STEPS, tenant=settings.tenant, id=id)


def tree(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each step; those of an iteration or a loop are below it, by item or round."""
    inner: dict[str, list[Mapping[str, Any]]] = {}
    for step in steps:
        item, _, _ = str(step["step"]).rpartition("/")
        inner.setdefault(item, []).append(step)

    def lines(item: str, indent: str) -> Iterator[str]:
        for step in inner.get(item, ()):
            yield f"{indent}{_line(step)}"
            numbers = [int(found.rpartition("/")[2]) for found in inner if found.rpartition("/")[0] == step["step"]]
            for number in sorted(numbers):
                yield f"{indent}  [{number}]"
                yield from lines(f"{step['step']}/{number}", f"{indent}    ")

    yield from lines("", "")


def _line(step: Mapping[str, Any]) -> str:
    took = "" if step["elapsed_time"] is None or step["status"] == "skipped" else f"{step['elapsed_time']:.3f} s"
    more = [took, f"{step['tries']} tries" if step["tries"] > 1 else "", "kept" if step["kept"] else ""]
    said = ", ".join(each for each in more if each)
    line = f"{step['status']:<10} {step['title'] or step['step']} ({step['node_type']})"
    return f"{line} {said}".rstrip() + (f": {step['error']}" if step["error"] else "")


async def _found(settings: Settings, id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Raises: Failed."""
    found = await rows(settings, _RUN, tenant=settings.tenant, id=id)
    if not found:
        raise Failed(f"Tenant {settings.tenant!r} has no run {id}.")
    return found[0], await rows(settings, _FORMS, tenant=settings.tenant, id=id)


def _show(found: dict[str, Any], forms: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        emit({**found, "forms": forms})
        return
    terminal.show_listing([found], ["id", "status", "total_steps", "total_tokens", "elapsed_time", "error"], as_json)
    for name, value in found["outputs"].items():
        terminal.say(f"{name}: {value.get('data', '[a large value: ' + value.get('blob', '') + ']')}")
    for form in forms:
        buttons = ", ".join(str(each.get("id")) for each in form["user_actions"])
        terminal.say(f"waits at {form['step']} until {form['expiration_time']:%Y-%m-%d %H:%M} for {buttons}:")
        terminal.say(form["rendered_content"])


def _send(
    command: str,
    fields: dict[str, Any],
    wait: float,
    tenant: str | None,
    home: Path | None,
    as_json: bool,
    *,
    follow: bool = False,
) -> None:
    settings = Settings.load(home=home, tenant=tenant)

    async def work() -> Any:
        async with connected(settings) as client:
            return await client.send(command, fields, wait=wait)

    outcome = run(work())
    if not follow or outcome["status"] != "accepted":
        conclude(outcome, as_json)
        return
    found, forms = run(_ended(settings, outcome["ids"]["run"]))
    _show(found, forms, as_json)
    if found["status"] == "failed":
        raise typer.Exit(1)


async def _ended(settings: Settings, id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run as soon as it has ended, or waits for a person."""
    while True:
        found = await rows(settings, _RUN, tenant=settings.tenant, id=id)
        if found and found[0]["status"] in (*ENDED, "paused"):
            return await _found(settings, id)
        await asyncio.sleep(0.1)
