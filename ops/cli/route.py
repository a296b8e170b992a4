"""`headrace route`: list, set and remove routes of models."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer

from domain.models.route import STRATEGIES, Group, Strategy
from ops import terminal
from ops.cli.frame import Home, Json, Tenant, Wait, app, conclude, outcome_of, rows, run, send
from ops.settings import Settings

route = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(route, name="route", help="List, set or remove routes: models that apps use by one name.")


@route.command(
    "list", epilog="Examples: [bold]headrace route list[/] · [bold]headrace route list --tenant acme --json[/]"
)
def list_routes(tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """List the routes of a tenant, with their groups of models."""
    settings = Settings.load(home=home, tenant=tenant)
    query = "SELECT * FROM headrace.routes WHERE tenant_id = %(tenant)s ORDER BY id"
    found = run(rows(settings, query, tenant=settings.tenant))
    if not as_json:
        found = [{**row, "groups": "; then ".join(map(_group, row["groups"]))} for row in found]
    terminal.show_listing(found, ["id", "groups", "reactions", "restart", "wait_s"], as_json)


def _group(group: Group) -> str:
    members = (f"{each['provider']}/{each['model']}" + _weight(each["weight"]) for each in group["members"])
    return f"{group['strategy']}: {', '.join(members)}"


def _weight(weight: int) -> str:
    return f"*{weight}" if weight != 1 else ""


@route.command(
    "set",
    epilog="Examples: [bold]headrace route set fast local/qwen3-8b cloud/small[/] · "
    "[bold]headrace route set fast fastest:cloud/small*3,other/small local/qwen3-8b --wait-s 10[/]",
)
def set_route(
    name: Annotated[str, typer.Argument(help="Name that apps use.")],
    groups: Annotated[
        list[str],
        typer.Argument(
            help=f"Group of models, in the order of use; *WEIGHT is 1 unless given, STRATEGY {STRATEGIES[0]} or "
            f"{', '.join(STRATEGIES[1:])}.",
            metavar="[STRATEGY:]PROVIDER/MODEL[*WEIGHT],…",
        ),
    ],
    reaction: Annotated[
        list[str] | None, typer.Option(help="CODE=next, larger or stop, where it is not the usual one; repeatable.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Let an answer that has begun begin again.")] = False,
    wait_s: Annotated[int, typer.Option(min=0, max=300, help="Seconds to wait when all models rest.")] = 0,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a route, or replace it."""
    settings = Settings.load(home=home, tenant=tenant)
    payload = {
        "name": name,
        "groups": [_parsed(group) for group in groups],
        "reactions": dict(_reaction(text) for text in reaction or ()),
        "restart": restart,
        "wait_s": wait_s,
    }
    conclude(run(outcome_of(settings, "route.configure", payload, wait)), as_json)


@route.command(epilog="Example: [bold]headrace route remove fast[/]")
def remove(
    name: Annotated[str, typer.Argument(help="Name of the route.")],
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove a route. Apps that use it cannot answer any more."""
    send("route.remove", {"route": name}, wait, tenant, home, as_json)


def _parsed(group: str) -> dict[str, Any]:
    strategy, colon, rest = group.partition(":")
    if not (colon and strategy in get_args(Strategy)):
        strategy, rest = STRATEGIES[0], group
    return {"strategy": strategy, "members": [_member(text) for text in rest.split(",")]}


def _member(text: str) -> dict[str, Any]:
    named, star, weight = text.rpartition("*")
    named = named if star and weight.isascii() and weight.isdigit() else text
    provider, slash, model = named.partition("/")
    if not (provider and slash and model):
        raise typer.BadParameter(f"{text!r} is not like local/qwen3-8b or local/qwen3-8b*3.")
    return {"provider": provider, "name": model, **({"weight": int(weight)} if named != text else {})}


def _reaction(text: str) -> tuple[str, str]:
    code, equals, reaction = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not like timeout=stop.")
    return code, reaction
