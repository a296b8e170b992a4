"""`headrace provider`: servers of models, their keys, and checks of their abilities."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from ops import terminal
from ops.cli.frame import (
    Failed,
    Home,
    Json,
    Tenant,
    Wait,
    Yes,
    app,
    conclude,
    confirm,
    outcome_of,
    read_text,
    rows,
    run,
    send,
)
from ops.settings import Settings
from ops.terminal import emit, say

PAUSE_S = 0.5
"""Pause between two looks at a check, in seconds."""

provider = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(provider, name="provider", help="Register, list, check and remove providers of models, and their keys.")

Name = Annotated[str, typer.Argument(help="Name of the provider.", metavar="PROVIDER")]
KeyName = Annotated[str, typer.Argument(help="Name of the key.", metavar="KEY")]
KeyFile = Annotated[
    str | None,
    typer.Option(
        "--key-file", help="File with the API key; - asks for it, or reads standard input.", show_default=False
    ),
]
For = Annotated[float, typer.Option("--for", min=0, help="Seconds to wait for the result; 0 does not wait.")]


@provider.command(
    "list", epilog="Examples: [bold]headrace provider list[/] · [bold]headrace provider list --tenant acme --json[/]"
)
def list_providers(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were removed.")] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the providers of a tenant, with their last checks."""
    settings = Settings.load(home=home, tenant=tenant)
    query = "SELECT * FROM headrace.providers WHERE tenant_id = %(tenant)s ORDER BY id"
    found = run(rows(settings, query, tenant=settings.tenant))
    shown = [each for each in found if everything or each["status"] != "removed"]
    columns = ["id", "kind", "base_url", "credentials", "models", "check_status", "check_code", "checked_at"]
    terminal.show_listing(shown, columns, as_json)


@provider.command(
    epilog="Examples: [bold]headrace provider show lab[/] · [bold]headrace provider show lab --tenant acme --json[/]"
)
def show(provider: Name, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Show a provider, its keys without their secrets, and what is known of its models."""
    settings = Settings.load(home=home, tenant=tenant)
    found, keys, models = run(_known(settings, provider))
    if as_json:
        emit({**found, "credentials": keys, "models": models})
        return
    terminal.show_fields({name: value for name, value in found.items() if name not in _INTERNAL}, as_json=False)
    for heading, columns, listed in (
        ("Keys", ["name", "hint", "weight", "status"], keys),
        ("Models", ["model", "type", "context_window", "abilities", "prices"], models),
    ):
        if listed:
            say(f"\n{heading}")
            terminal.show_rows(columns, [tuple(_plain(each[column]) for column in columns) for each in listed])


@provider.command(
    epilog="Examples: [bold]headrace provider register lab http://127.0.0.1:8000/v1[/] · "
    "[bold]headrace provider register claude https://host --kind anthropic --key-file -[/]"
)
def register(
    provider: Name,
    base_url: Annotated[str, typer.Argument(help="Address of its API, like https://host/v1 or plugin://lab/lab.")],
    kind: Annotated[
        str, typer.Option(help="Protocol: openai, openai_responses, ollama, anthropic, gemini or dify.")
    ] = "openai",
    key_file: KeyFile = None,
    check: Annotated[bool, typer.Option(help="Check the server afterwards.")] = True,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Register a provider, or change its address or its key `default`."""
    key = read_text("Key", key_file) if key_file else ""
    fields = {"name": provider, "base_url": base_url, "kind": kind, "key": key, "check": check}
    send("provider.register", fields, wait, tenant, home, as_json)


@provider.command(
    "add-key",
    epilog="Examples: [bold]headrace provider add-key lab second --key-file second.key --weight 3[/] · "
    "[bold]headrace provider add-key lab second --key-file -[/]",
)
def add_key(
    provider: Name,
    name: KeyName,
    key_file: Annotated[str, typer.Option(help="File with the API key; - asks for it, or reads standard input.")] = "-",
    weight: Annotated[int, typer.Option(min=1, help="Share of the calls that it gets.")] = 1,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Add a key to a provider, or replace the one of this name."""
    fields = {"provider": provider, "name": name, "key": read_text("Key", key_file), "weight": weight}
    send("provider.add_credential", fields, wait, tenant, home, as_json)


@provider.command("remove-key", epilog="Example: [bold]headrace provider remove-key lab second[/]")
def remove_key(
    provider: Name,
    name: KeyName,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove a key of a provider."""
    send("provider.remove_credential", {"provider": provider, "name": name}, wait, tenant, home, as_json)


@provider.command(
    epilog="Examples: [bold]headrace provider check lab[/] · "
    "[bold]headrace provider check lab --model qwen3-8b --json[/]"
)
def check(
    provider: Name,
    model: Annotated[
        str | None, typer.Option(help="Model to measure. Default: the tenant's default one, or the server's only one.")
    ] = None,
    result: For = 300.0,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the models of a provider, measure one of them by six small recorded calls, and print the result.

    Exits with 1 if the server does not answer.
    """
    settings = Settings.load(home=home, tenant=tenant)
    outcome = run(outcome_of(settings, "provider.check", {"provider": provider, "model": model}, wait))
    if outcome["status"] == "rejected" or not result:
        conclude(outcome, as_json)
        return
    found = run(_checked(settings, provider, outcome["command"], result))
    _, _, models = run(_known(settings, provider))
    measured = next((each for each in models if each["model"] == found["checked_model"]), None)
    shown = {name: found[name] for name in _RESULT}
    shown |= {name: measured[name] if measured else None for name in ("abilities", "context_window")}
    terminal.show_fields(shown if as_json else {name: _plain(value) for name, value in shown.items()}, as_json)
    if found["check_status"] == "failed":
        raise typer.Exit(1)


@provider.command(epilog="Example: [bold]headrace provider remove lab --yes[/]")
def remove(
    provider: Name,
    yes: Yes = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove a provider and its keys."""
    confirm(f"Remove provider {provider}? Apps that use it answer no more.", yes)
    send("provider.remove", {"provider": provider}, wait, tenant, home, as_json)


_INTERNAL = {"tenant_id", "log_position", "credentials", "has_key"}

_RESULT = ("check_status", "check_code", "check_reason", "models", "checked_model", "latency_ms", "limits")


def _plain(value: object) -> object:
    """A JSON object as `name=value`, without nulls; what is true by its name alone, what is false as `no …`."""
    if not isinstance(value, dict):
        return value
    words = {True: "{}", False: "no {}"}
    known = [(name, each) for name, each in value.items() if each is not None]
    return ", ".join(words[each].format(name) if isinstance(each, bool) else f"{name}={each}" for name, each in known)


async def _known(settings: Settings, name: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of a provider, its credentials and its models. Raises: Failed when there is none."""
    one = {"tenant": settings.tenant, "provider": name}
    found = await rows(
        settings, "SELECT * FROM headrace.providers WHERE tenant_id = %(tenant)s AND id = %(provider)s", **one
    )
    if not found:
        raise Failed(f"There is no provider {name}; see `headrace provider list`.")
    keys = "SELECT * FROM headrace.provider_credentials WHERE tenant_id = %(tenant)s AND provider_id = %(provider)s"
    models = "SELECT * FROM headrace.provider_models WHERE tenant_id = %(tenant)s AND provider_id = %(provider)s"
    return (
        found[0],
        await rows(settings, f"{keys} ORDER BY name", **one),
        await rows(settings, f"{models} ORDER BY model", **one),
    )


async def _checked(settings: Settings, name: str, check: str, within_s: float) -> dict[str, Any]:
    """The row of a provider once this check has ended. Raises: Failed when it has not in time."""
    query = (
        "SELECT * FROM headrace.providers WHERE tenant_id = %(tenant)s AND id = %(provider)s "
        "AND check_trace_id = %(check)s AND check_status <> 'requested'"
    )
    deadline = asyncio.get_running_loop().time() + within_s
    while not (found := await rows(settings, query, tenant=settings.tenant, provider=name, check=check)):
        if asyncio.get_running_loop().time() > deadline:
            raise Failed(f"The check has no result after {within_s:g} s; see `headrace provider show {name}`.")
        await asyncio.sleep(PAUSE_S)
    return found[0]
