"""`headrace workflow`: the graphs of apps, their drafts and versions."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, LiteralString

import typer

from adapters.dsl.code import unreadable
from domain.aggregate import Rejection
from domain.workflows.drawing import as_mermaid, as_text
from domain.workflows.graph import Graph, loaded_from
from domain.workflows.mapping import Replacements
from domain.workflows.report import Report, of_graph
from domain.workflows.schedule import Schedule
from ops import terminal
from ops.cli.app_file import draft_of, known_of
from ops.cli.dsl import prepared, show_report
from ops.cli.frame import Failed, Home, Json, Tenant, Wait, app, conclude, connected, rows, run
from ops.settings import Settings
from ops.terminal import emit

workflow = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(workflow, name="workflow", help="Check, draw, list, publish and schedule the graphs of apps.")

App = Annotated[str, typer.Argument(help="Id of the app.", metavar="APP")]
Place = Annotated[str, typer.Argument(help="Id of an app, or an app file.", metavar="APP|FILE")]
Number = Annotated[int | None, typer.Option(min=1, help="Version of the app. Default: the draft.")]


@workflow.command(
    epilog="Examples: [bold]headrace workflow check ID[/] · [bold]headrace workflow check ID --number 2 --json[/] · "
    "[bold]headrace workflow check desk.yml[/]"
)
def check(place: Place, number: Number = None, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Report what of a graph runs, runs with a change, or cannot run yet. Exits with 1 if a part cannot run yet.

    A file is checked without a server: models, knowledge bases and tools are only named.
    """
    report = _report(place, number, tenant, home)
    show_report(report, as_json)
    if report.status == "cannot":
        raise typer.Exit(1)


@workflow.command(
    epilog="Examples: [bold]headrace workflow show ID[/] · "
    "[bold]headrace workflow show desk.yml --mermaid > desk.mmd[/]"
)
def show(
    place: Place,
    number: Number = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Draw it as a flowchart of Mermaid.")] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Draw a graph as text: its nodes in their order, and the ways to the next ones."""
    graph = _graph(place, number, tenant, home)
    if as_json:
        emit({"digest": graph.digest, "graph": graph.normalised})
        return
    sys.stdout.write(terminal.clean(as_mermaid(graph) if mermaid else as_text(graph)))


@workflow.command(
    "list", epilog="Examples: [bold]headrace workflow list[/] · [bold]headrace workflow list ID --json[/]"
)
def list_versions(
    app: Annotated[str | None, typer.Argument(help="Id of the app. Default: all.", metavar="APP")] = None,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List drafts and versions, the newest first."""
    settings = Settings.load(home=home, tenant=tenant)
    found = run(rows(settings, _LIST, tenant=settings.tenant, app=app))
    terminal.show_listing(found, ["app_id", "name", "version", "marked_name", "graph_digest", "created_at"], as_json)


@workflow.command(
    epilog="Examples: [bold]headrace workflow publish ID[/] · "
    '[bold]headrace workflow publish ID --name "Day shift" --comment "Opens at six."[/]'
)
def publish(
    app: App,
    name: Annotated[str, typer.Option(help="Name of the version, at most 20 characters.")] = "",
    comment: Annotated[str, typer.Option(help="Comment, at most 100 characters.")] = "",
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Publish the draft of an app as its next version. What cannot run is refused, with node and field."""
    _send("workflow.publish", {"workflow": app, "name": name, "comment": comment}, wait, tenant, home, as_json)


@workflow.command(epilog="Example: [bold]headrace workflow restore ID 3[/]")
def restore(
    app: App,
    number: Annotated[int, typer.Argument(min=1, help="Number of the version.", metavar="NUMBER")],
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make the draft of an app a copy of one of its versions."""
    _send("workflow.restore", {"workflow": app, "number": number}, wait, tenant, home, as_json)


@workflow.command(
    epilog="Examples: [bold]headrace workflow schedules[/] · [bold]headrace workflow schedules ID --json[/]"
)
def schedules(
    app: Annotated[str | None, typer.Argument(help="Id of the app. Default: all.", metavar="APP")] = None,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the schedules of published versions, with the next time of each."""
    settings = Settings.load(home=home, tenant=tenant)
    now = datetime.now(UTC)
    known = run(rows(settings, _SCHEDULES, tenant=settings.tenant, app=app))
    found = [{**row, "next_at": _next(row, now)} for row in known]
    columns = ["app_id", "name", "version", "cron", "timezone", "enabled", "next_at", "last_at"]
    terminal.show_listing(found, columns, as_json)


def _next(row: dict[str, Any], now: datetime) -> datetime | None:
    """The next time from now on; None while its app's triggers are disabled."""
    return Schedule(row["cron"], row["timezone"]).after(now) if row["enabled"] else None


@workflow.command(epilog="Example: [bold]headrace workflow enable ID[/]")
def enable(app: App, wait: Wait = 10.0, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Let the triggers of an app begin runs, as they do at first."""
    _send("app.set_triggers", {"app": app, "enabled": True}, wait, tenant, home, as_json)


@workflow.command(epilog="Example: [bold]headrace workflow disable ID[/]")
def disable(app: App, wait: Wait = 10.0, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Let the triggers of an app begin no runs."""
    _send("app.set_triggers", {"app": app, "enabled": False}, wait, tenant, home, as_json)


_SCHEDULES: LiteralString = (
    "SELECT s.*, a.name FROM headrace.schedules s "
    "JOIN headrace.apps a ON a.tenant_id = s.tenant_id AND a.id = s.app_id "
    "WHERE s.tenant_id = %(tenant)s AND (%(app)s::text IS NULL OR s.app_id = %(app)s) "
    "ORDER BY a.name, s.app_id"
)

_LIST: LiteralString = (
    "SELECT w.*, a.name FROM headrace.workflows w "
    "JOIN headrace.apps a ON a.tenant_id = w.tenant_id AND a.id = w.app_id "
    "WHERE w.tenant_id = %(tenant)s AND (%(app)s::text IS NULL OR w.app_id = %(app)s) "
    "ORDER BY a.name, w.app_id, w.number = 0 DESC, w.number DESC"
)


def _report(place: str, number: int | None, tenant: str | None, home: Path | None) -> Report:
    if Path(place).is_file():
        return prepared(Path(place), None, Replacements()).report
    settings = Settings.load(home=home, tenant=tenant)
    row = run(draft_of(settings, place, number))
    graph = _of_row(row)
    about = {"name": place, "mode": graph.mode, "version": row["version"]}
    return of_graph(graph, graph, run(known_of(settings)), Replacements(), unreadable(graph), **about)


def _graph(place: str, number: int | None, tenant: str | None, home: Path | None) -> Graph:
    """Raises: Failed."""
    if not Path(place).is_file():
        return _of_row(run(draft_of(Settings.load(home=home, tenant=tenant), place, number)))
    made = prepared(Path(place), None, Replacements())
    if not made.file.is_workflow:
        raise Failed(f"{place} is an app of mode {made.file.mode}, which has no graph.")
    return loaded_from(made.document["workflow"], made.file.mode)


def _of_row(row: dict[str, Any]) -> Graph:
    parts = ("graph", "features", "environment_variables", "conversation_variables")
    mode = "advanced-chat" if row["type"] == "chat" else "workflow"
    try:
        return loaded_from({part: row[part] for part in parts}, mode)
    except Rejection as rejection:
        raise Failed(f"The graph cannot be loaded: {rejection.field}: {rejection.message}") from None


def _send(
    command: str, fields: dict[str, Any], wait: float, tenant: str | None, home: Path | None, as_json: bool
) -> None:
    settings = Settings.load(home=home, tenant=tenant)

    async def work() -> Any:
        async with connected(settings) as client:
            return await client.send(command, fields, wait=wait)

    conclude(run(work()), as_json)
