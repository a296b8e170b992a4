"""`headrace index`: show, rebuild and drop versions of the search index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from ops import terminal
from ops.cli.frame import Failed, Home, Json, Tenant, app, run
from ops.settings import Settings
from ops.terminal import emit, say

if TYPE_CHECKING:
    from adapters.index.versions.state import State

group = typer.Typer(help="Show, rebuild and drop versions of the search index.", no_args_is_help=True)
app.add_typer(group, name="index")


@contextmanager
def failing() -> Iterator[None]:
    """Turn errors that a worker would retry into messages. Raises: Failed."""
    try:
        yield
    except (Unavailable, FileNotFoundError, ModelError) as error:
        raise Failed(str(error)) from error


@group.command(epilog="Examples: [bold]headrace index show[/] · [bold]headrace index show --json | jq .builds[/]")
def show(home: Home = None, as_json: Json = False) -> None:
    """Show the versions of the index with model and size, and the builds in progress."""
    settings = Settings.load(home=home).located("postgres", role="ingest")
    from ops.upkeep.index import show as look

    with failing():
        state = run(look(settings))
    if as_json:
        emit(asdict(state))
    else:
        show_state(state)


@group.command(
    epilog="Examples: [bold]headrace index rebuild[/] · [bold]headrace index rebuild --dataset ID[/] · "
    "[bold]headrace index rebuild --keep-old[/]"
)
def rebuild(
    dataset: Annotated[UUID | None, typer.Option(help="Only this dataset of the tenant.")] = None,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Keep the replaced version until [bold]index drop[/].")
    ] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Rebuild the index from the log while the current one serves, then swap it in.

    Vectors come from the cache; the embedding models make the missing ones, those of providers too. If
    interrupted, run it again to resume.
    """
    settings = Settings.load(home=home, tenant=tenant).located(role="ingest")
    from ops.upkeep.index import rebuild as work

    with terminal.counting(as_json) as progress, failing():
        try:
            built = run(work(settings, str(dataset) if dataset else None, keep_old=keep_old, progress=progress))
        except KeyError as error:
            raise Failed(f"Tenant {settings.tenant} has no dataset {dataset}.") from error
    lost = [{"tenant": tenant, "document": document} for tenant, document in sorted(built.lost)]
    if as_json:
        emit({"segments": built.segments, "lost": lost})
    else:
        say(f"Built: {built.segments:,} segments.")
    if lost:
        names = ", ".join(f"{document['tenant']}/{document['document']}" for document in lost[:10])
        raise Failed(
            f"{len(lost)} documents cannot be found now, since the object store lacks their segments, or their "
            f"embedding model refused them: {names}."
        )


@group.command(epilog="Example: [bold]headrace index drop 3[/]")
def drop(
    number: Annotated[int, typer.Argument(help="Number of the version, see [bold]index show[/].")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Drop a version that was kept, or an unfinished one."""
    settings = Settings.load(home=home).located("postgres", role="ingest")
    from ops.upkeep.index import NotDropped
    from ops.upkeep.index import drop as work

    with failing():
        try:
            run(work(settings, number))
        except NotDropped as error:
            raise Failed(str(error)) from error
    if as_json:
        emit({"dropped": number})
    else:
        say(f"Dropped version {number}.")


def show_state(state: State) -> None:
    names = ["version", "model", "dimension", "state", "datasets", "segments"]
    rows = [(v.number, v.model, v.dimension, v.state, v.datasets, f"{v.segments:,}") for v in state.versions]
    terminal.show_rows(names, rows)
    if any(v.outdated and v.state == "searched" for v in state.versions):
        numbers = ", ".join(str(v.number) for v in state.versions if v.outdated and v.state == "searched")
        say(f"An earlier version of Headrace made the words of version {numbers}: run `headrace index rebuild`.")
    for build in state.builds:
        of = f"dataset {build.dataset}" if build.dataset else "all"
        share = f"{build.reached:,} of {build.goal:,} commits of the log"
        say(f"Build: {of}, {share}{'' if build.running else ', interrupted: run it again to resume'}.")
