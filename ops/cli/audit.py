"""`headrace audit`: who did what, from where, and with which outcome."""

from __future__ import annotations

import heapq
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import psycopg
import typer
from psycopg.rows import dict_row

from adapters.postgres.operation_logs import HALVES, PAGE, TESTS
from domain.access.tenant import HOUSE
from ops import terminal
from ops.cli.frame import Failed, Home, Json, Tenant, app, of_postgres, rows, run
from ops.settings import READER, Settings
from ops.terminal import emit

SHOWN = 100
"""Number of rows that are shown on a terminal: the newest."""

FETCHED = 2000
"""Number of rows that are fetched at once."""

_COLUMNS = ["created_at", "actor", "action", "target_id", "outcome", "code", "door", "address"]

_AGO = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

_TESTS = TESTS | {
    "tenant": "tenant_id = %(tenant)s",
    "since": "created_at >= %(since)s",
    "until": "created_at < %(until)s",
}


@app.command(
    epilog="Examples: [bold]headrace audit --since 24h[/] · [bold]headrace audit --action app --outcome rejected[/] · "
    "[bold]headrace audit --house[/] · [bold]headrace audit --since 2026-01-01 > audit.jsonl[/]"
)
def audit(
    since: Annotated[str | None, typer.Option(help="Begin: a time, or 90m, 24h, 7d ago.", show_default=False)] = None,
    until: Annotated[str | None, typer.Option(help="End: a time, or 90m, 24h, 7d ago.", show_default=False)] = None,
    actor: Annotated[str | None, typer.Option(help="Only this actor.", show_default=False)] = None,
    action: Annotated[str | None, typer.Option(help="Only this command, or noun.", show_default=False)] = None,
    outcome: Annotated[
        str | None,
        typer.Option(help="Only accepted, rejected, signed_in, refused or used.", show_default=False),
    ] = None,
    house: Annotated[
        bool, typer.Option("--house", help="The house: sign-ins, refusals, accounts and tenants.")
    ] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List commands with their outcomes, and reports of doors, in order of time.

    On a terminal, the newest 100 are shown. Elsewhere, all are printed as lines of JSON.
    """
    settings = Settings.load(home=home, tenant=tenant)
    values = {
        "tenant": HOUSE if house else settings.tenant,
        "since": _time("--since", since),
        "until": _time("--until", until),
        "actor": actor,
        "action": action,
        "outcome": outcome,
    }
    given = {name: value for name, value in values.items() if value is not None}
    where = " AND ".join(_TESTS[name] for name in given)
    if not as_json and sys.stdout.isatty():
        newest = run(rows(settings, PAGE.format(where=where, limit=SHOWN), **given))
        terminal.show_listing(newest[::-1], _COLUMNS, as_json=False)
        return
    try:
        for row in operations(settings, where, given):
            emit(row)
    except BrokenPipeError:  # the reader has enough; nothing more can be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def operations(settings: Settings, where: str, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of the audit that fulfil a condition, in order of time; few of them are in memory. Raises: Failed."""
    commands, doors = (half.format(where=where).encode() for half in HALVES)
    url = settings.located("postgres", role=READER).postgres_url
    try:
        with psycopg.connect(url, connect_timeout=5, row_factory=dict_row) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            with connection.cursor("commands") as one, connection.cursor("doors") as other:
                one.itersize = other.itersize = FETCHED
                halves = one.execute(commands, values), other.execute(doors, values)
                yield from heapq.merge(*halves, key=lambda row: (row["created_at"], row["id"]))
    except psycopg.Error as error:
        raise Failed(of_postgres(error)) from error


def _time(option: str, text: str | None) -> datetime | None:
    """A time, or one that is so long ago; without a zone it is UTC. Raises: BadParameter."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r} is neither a time, like 2026-01-31T03:00, nor like 24h.") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
