"""`headrace quota`: list, set and remove quotas of a tenant."""

from __future__ import annotations

from typing import Annotated

import typer

from adapters.postgres.quotas import ALERTS, CURRENT
from domain.models.quota import NANO, UTC_ZONE
from ops import terminal
from ops.cli.frame import Home, Json, Tenant, Wait, app, rows, run, send
from ops.settings import Settings

quota = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(quota, name="quota", help="List, set or remove quotas of calls of models, of their tokens and costs.")

Operator = Annotated[bool, typer.Option("--operator", help="The operator's quota; default: the tenant's own.")]
Name = Annotated[str, typer.Argument(help="Name of the quota: a to z, 0 to 9, _ and -.")]

COLUMNS = [
    "set_by",
    "name",
    "scope",
    "subject",
    "unit",
    "period",
    "time_zone",
    "rolling",
    "most",
    "hard",
    "granted",
    "used",
    "alerts",
    "ends_at",
]

QUOTAS = f"""
SELECT q.set_by, q.name, q.scope, coalesce(nullif(q.subject, ''), w.subject, '') AS subject, q.unit, q.period,
    q.time_zone, q.rolling, q.most, q.hard, w.granted, CASE WHEN w.rolling > 0 THEN (
        SELECT coalesce(sum(value::bigint), 0)::bigint FROM jsonb_each_text(w.parts) WHERE key::timestamptz > now()
    ) ELSE w.used END AS used, w.exhausted_at, ARRAY(SELECT (alert ->> 'percent')::int {ALERTS}) AS alerts, w.ends_at
FROM headrace.quotas q LEFT JOIN headrace.quota_windows w
    ON (w.tenant_id, w.quota_id, w.scope, w.unit, w.period, w.time_zone, w.rolling)
        = (q.tenant_id, q.id, q.scope, q.unit, q.period, q.time_zone, q.rolling)
    AND {CURRENT}
WHERE q.tenant_id = %(tenant)s ORDER BY q.set_by, q.name, w.subject
"""


@quota.command(
    "list", epilog="Examples: [bold]headrace quota list[/] · [bold]headrace quota list --tenant acme --json[/]"
)
def list_quotas(tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """List the quotas of a tenant, with the windows of now in which hard ones count, or that have had alerts."""
    settings = Settings.load(home=home, tenant=tenant)
    found = run(rows(settings, QUOTAS, tenant=settings.tenant))
    for row in found:
        if row["unit"] == "money":
            for column in ("granted", "used"):
                row[column] = None if row[column] is None else row[column] / NANO
    terminal.show_listing(found, COLUMNS, as_json)


@quota.command(
    "set",
    epilog="Examples: [bold]headrace quota set monthly 100 --unit money --period month --soft[/] · "
    "[bold]headrace quota set each-user 200000 --unit tokens --period day --time-zone Europe/Berlin --scope user[/] · "
    "[bold]headrace quota set burst 500 --unit calls --period hour --rolling 24[/] · "
    "[bold]headrace quota set trial 1000 --unit calls --period month --tenant acme --operator[/]",
)
def set_quota(
    name: Name,
    limit: Annotated[float, typer.Argument(help="Limit: calls, tokens or US dollars in a window.", min=0)],
    unit: Annotated[str, typer.Option(help="Unit: calls, tokens or money.")],
    period: Annotated[str, typer.Option(help="Window: minute, hour, day or month.")],
    scope: Annotated[str, typer.Option(help="Scope: tenant, app, user, key, provider or model.")] = "tenant",
    subject: Annotated[
        str, typer.Option(help="App id, user, key, provider or model that it is for; default: each of them.")
    ] = "",
    time_zone: Annotated[
        str, typer.Option(help="IANA name of the time zone in which windows begin, such as Europe/Berlin.")
    ] = UTC_ZONE,
    rolling: Annotated[
        int, typer.Option(help="Count over this number of last periods at any time; default: in the calendar.", min=0)
    ] = 0,
    soft: Annotated[bool, typer.Option("--soft", help="Only report what exceeds it; default: refuse it.")] = False,
    operator: Operator = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Set or change a quota. It holds after 5 s at the latest, for calls that begin then."""
    fields = {
        "name": name,
        "scope": scope,
        "subject": subject,
        "unit": unit,
        "period": period,
        "time_zone": time_zone,
        "rolling": rolling,
        "limit": limit,
        "hard": not soft,
    }
    send(f"quota.{'impose' if operator else 'set'}", fields, wait, tenant, home, as_json)


@quota.command(
    epilog="Examples: [bold]headrace quota remove monthly[/] · "
    "[bold]headrace quota remove trial --tenant acme --operator[/]"
)
def remove(
    name: Name,
    operator: Operator = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove a quota. Calls are no longer counted for it after 5 s at the latest."""
    send(f"quota.{'lift' if operator else 'remove'}", {"quota": name}, wait, tenant, home, as_json)
