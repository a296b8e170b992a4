"""Commands for the search index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, Tenant, app, run
from ops.settings import Settings
from ops.terminal import emit, say

if TYPE_CHECKING:
    from adapters.index.versions.state import State

group = typer.Typer(help="The search index: show it, build it anew.", no_args_is_help=True)
app.add_typer(group, name="index")


@contextmanager
def failing() -> Iterator[None]:
    """Raises: Failed, where a worker would wait, or does not start."""
    try:
        yield
    except (Unavailable, FileNotFoundError) as error:
        raise Failed(str(error)) from error


@group.command(epilog="Examples: [bold]headrace index show[/] · [bold]headrace index show --json | jq .builds[/]")
def show(home: Home = None, as_json: Json = False) -> None:
    """Say what versions the index has, for which embedding models, how much is in them, and what is being built."""
    settings = Settings.load(home=home).located("postgres")
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
    dataset: Annotated[UUID | None, typer.Option(help="Only this dataset of the tenant, by its id.")] = None,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Keep the version that was searched, until [bold]index drop[/].")
    ] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Build the index anew from the log, beside the one that is searched, and swap it in. Vectors come from the cache;
    the embedding model makes those that it lacks. What was broken off goes on where it was."""
    settings = Settings.load(home=home, tenant=tenant).located()
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
        raise Failed(f"The object store lacks the segments of {len(lost)} documents, which are not found now: {names}.")


@group.command(epilog="Example: [bold]headrace index drop 3[/]")
def drop(
    number: Annotated[int, typer.Argument(help="The version, as [bold]index show[/] names it.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Drop a version that was kept, or whose build was given up."""
    settings = Settings.load(home=home).located("postgres")
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
        say(f"Version {number} is dropped.")


def show_state(state: State) -> None:
    names = ["version", "model", "dimension", "state", "datasets", "segments"]
    rows = [(v.number, v.model, v.dimension, v.state, v.datasets, f"{v.segments:,}") for v in state.versions]
    terminal.show_rows(names, rows)
    for build in state.builds:
        of = f"dataset {build.dataset}" if build.dataset else "all"
        share = f"{build.reached:,} of {build.goal:,} commits of the log"
        say(f"Being built: {of}, {share}{'' if build.running else ', broken off: run it again to go on'}.")
