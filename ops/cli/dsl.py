"""`headrace dsl`: import and export of app files of Dify."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any, LiteralString

import typer
from rich.text import Text

from adapters.dsl import exporting
from adapters.dsl.importing import Import, imported
from adapters.dsl.reading import LARGEST, AppFile, read
from adapters.dsl.yaml_values import values
from adapters.jetstream.client import Client
from domain.aggregate import Rejection
from domain.workflows.mapping import Replacements, replacements, replacements_of
from domain.workflows.needs import Known
from domain.workflows.report import STATUSES, Report
from ops.cli.app_file import app_of, draft_of, known_of, send_import
from ops.cli.frame import Failed, Home, Json, Tenant, Wait, Yes, app, confirm, connected, rows, run
from ops.settings import Settings
from ops.terminal import clean, emit, say, show

dsl = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(dsl, name="dsl", help="Import and export apps of Dify as files.")

File = Annotated[Path, typer.Argument(help="App file, YAML or JSON.", metavar="FILE")]
App = Annotated[str, typer.Argument(help="Id of the app.", metavar="APP")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="A name that stands for one of the file: model:openai/gpt-4o=local/small, model:*=…, "
        "rerank:…=PROVIDER/MODEL, dataset:ID=ID, tool:google=TOOLSET or tool:google/search=TOOLSET/TOOL; repeatable.",
    ),
]
MapFile = Annotated[
    Path | None, typer.Option(help='YAML or JSON file with the same: {"model": {"openai/gpt-4o": "local/small"}}.')
]


@dsl.command(
    "import",
    epilog="Examples: [bold]headrace dsl import desk.yml --check[/] · "
    "[bold]headrace dsl import desk.yml --map 'model:*=local/small' --map dataset:OLD=ID[/] · "
    "[bold]headrace dsl import desk.yml --app ID --json[/]",
)
def import_app(
    file: File,
    maps: Map = None,
    map_file: MapFile = None,
    check: Annotated[bool, typer.Option("--check", help="Report on the file; change nothing.")] = False,
    into: Annotated[str | None, typer.Option("--app", help="App to import into. Default: a new one.")] = None,
    yes: Yes = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Import an app file, and report what of it runs, runs with a change, or cannot run yet.

    A graph becomes the draft of the app, which [bold]headrace workflow publish[/] publishes; another app is configured,
    if nothing that it needs is missing. With --check, the exit status is 1 if a part cannot run yet.
    """
    settings = Settings.load(home=home, tenant=tenant)
    known = run(known_of(settings))
    made = prepared(file, known, mapping_of(maps, map_file))
    if check:
        show_report(made.report, as_json)
        raise typer.Exit(1 if made.report.status == "cannot" else 0)
    if made.version.advice == "confirm":
        confirm(f"{made.version.reason} Import it all the same?", yes)
    id, done = run(send_import(settings, made, into, wait))
    if as_json:
        emit({"app": id, "done": done, "report": made.report.plain})
        return
    show_report(made.report, as_json=False)
    show(Text(clean(f"✓ app {id}: {', '.join(done)}"), "green"))


@dsl.command(
    epilog="Examples: [bold]headrace dsl export ID > desk.yml[/] · "
    "[bold]headrace dsl export ID --number 3 --out v3.yml[/]"
)
def export(
    app: App,
    number: Annotated[int | None, typer.Option(min=1, help="Version of a graph. Default: the draft.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: standard output.")] = None,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Export an app as a file that Dify and Headrace import, without secrets.

    An app that was not changed since it was imported gives the bytes of its file.
    """
    settings = Settings.load(home=home, tenant=tenant)
    data = run(exported(settings, app, number))
    if out:
        out.write_bytes(data)
    if as_json:
        emit({"app": app, "bytes": len(data), "file": str(out) if out else data.decode("utf-8-sig", "replace")})
    elif out:
        say(f"Wrote {len(data):,} bytes to {out}.")
    elif sys.stdout.isatty():
        sys.stdout.write(clean(data.decode("utf-8-sig", "replace")))
    else:
        sys.stdout.buffer.write(data)


def prepared(file: Path, known: Known | None, given: Replacements) -> Import:
    """Raises: Failed."""
    try:
        return imported(bytes_of(file), known, given)
    except Rejection as rejection:
        place = f"{rejection.field}: " if rejection.field else ""
        raise Failed(f"{file}: {place}{rejection.message}") from None


def bytes_of(file: Path) -> bytes:
    """The bytes of a file, one more than are read at most. Raises: Failed."""
    try:
        with file.open("rb") as source:
            return source.read(LARGEST + 1)
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}.") from error


def mapping_of(pairs: list[str] | None, file: Path | None) -> Replacements:
    """The mapping of the options; an option counts more than the file. Raises: Failed."""
    try:
        found: Any = values(bytes_of(file).decode("utf-8-sig", "replace")) if file else {}
        given = dict(replacements(found).by_kind)
        for kind, names in replacements(replacements_of(pairs or ())).by_kind.items():
            given[kind] = {**given.get(kind, {}), **names}
    except Rejection as rejection:
        place = f"{rejection.field}: " if rejection.field else ""
        raise Failed(f"The mapping cannot be read: {place}{rejection.message}") from None
    return Replacements(given)


async def exported(settings: Settings, id: str, number: int | None) -> bytes:
    """The file of an app. Raises: Failed."""
    found = await app_of(settings, id)
    async with connected(settings) as client:
        if found["mode"] in ("workflow", "advanced-chat"):
            row = await draft_of(settings, id, number)
            file = await _file(client, row["file"])
            document = json.loads(await _blob(client, row["document"]))
            return exporting.of_graph(found, file, document)
        if number is not None:
            raise Failed(f"App {id} has no graph, and so no versions of it.")
        configs = await rows(settings, _CONFIG, tenant=settings.tenant, id=found["app_model_config_id"])
        newest = configs[0] if configs else None
        as_imported = (newest["number"] if newest else 0) == found["file_configuration"]
        file = await _file(client, found["file"])
        return exporting.of_configuration(found, file, newest, as_imported=as_imported)


async def _file(client: Client, digest: str | None) -> AppFile | None:
    return read(await _blob(client, digest)) if digest else None


async def _blob(client: Client, digest: str) -> bytes:
    try:
        return await asyncio.wait_for(client.blobs.get(client.tenant, digest), 60)
    except (KeyError, ValueError) as error:
        raise Failed(f"The blob {digest} is missing or was changed: restore it from the archive.") from error


_CONFIG: LiteralString = "SELECT * FROM headrace.app_model_configs WHERE tenant_id = %(tenant)s AND id = %(id)s"
_MARKS = {"runs": ("✓", "green"), "changed": ("~", "yellow"), "cannot": ("✗", "red")}


def show_report(report: Report, as_json: bool) -> None:
    """Print a report."""
    if as_json:
        emit(report.plain)
        return
    counts = ", ".join(f"{report.count(status)} {words}" for status, words in STATUSES.items())
    show(Text(clean(f"{report.name or 'App'} ({report.mode}, version {report.version}): {counts}"), "bold"))
    for note in report.notes:
        show(Text(clean(f"  {note}"), "dim"))
    for reason in report.problems:
        show(Text(clean(f"✗ {reason.field}: {reason.message}"), "red"))
    for part in report.parts:
        mark, style = _MARKS[part.status]
        show(Text(clean(f"{mark} {part.type}  {part.title}  [{part.id}]"), style))
        for reason in part.reasons:
            show(Text(clean(f"    {reason.field}: {reason.message}"), _MARKS[reason.status][1]))
