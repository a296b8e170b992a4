"""`headrace toolset`: toolsets of a tenant, their tools, and calls of tools that wait for a person."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any, LiteralString

import typer

from adapters.jetstream.client import Client, Outcome
from handlers.commands.tools import MOST_SCHEMA
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
    connected,
    outcome_of,
    read_text,
    rows,
    run,
    send,
)
from ops.settings import Settings
from ops.terminal import emit, say

PAUSE_S = 0.5
"""Pause between two looks at a list of tools, in seconds."""

LARGEST_TEXT = 256 * 2**10
"""Maximum size of a document, in bytes, that is sent within the command; a larger one goes to the object store."""

LARGEST_DATABASE = 64 * 2**20
"""Maximum size of a SQLite file, in bytes."""

SHOWN = 60
"""Characters of a text that are shown in a row."""

toolset = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(toolset, name="toolset", help="Register, list and remove toolsets; release calls that wait.")

Name = Annotated[str, typer.Argument(help="Name of the toolset.", metavar="TOOLSET")]
Call = Annotated[str, typer.Argument(help="Id of the call; see `headrace toolset calls --held`.", metavar="CALL")]
For = Annotated[float, typer.Option("--for", min=0, help="Seconds to wait for the list of tools; 0 does not wait.")]


@toolset.command(
    epilog="Examples: [bold]headrace toolset register pets openapi https://host/openapi.json[/] · "
    "[bold]headrace toolset register crm openapi crm.yaml --auth bearer --secret-file -[/] · "
    "[bold]headrace toolset register handbook dataset ID[/] · "
    "[bold]headrace toolset register works sql works.db[/]"
)
def register(
    toolset: Name,
    kind: Annotated[str, typer.Argument(help="Kind: openapi, mcp, app, dataset or sql.")],
    place: Annotated[
        str,
        typer.Argument(
            help="openapi: address or file of the document; mcp: address or server; app, dataset: id; "
            "sql: SQLite file, or name of a connection."
        ),
    ],
    description: Annotated[str, typer.Option(help="Description; of a dataset, also for the model.")] = "",
    server: Annotated[str | None, typer.Option(help="openapi: address of the API, in place of the document's.")] = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(help="openapi: operation to offer, by operationId or 'METHOD /path'; repeatable. Default: all."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=50, help="dataset: maximum number of passages.")] = 5,
    auth: Annotated[
        str,
        typer.Option(
            help="Place of the secret: none, header, query, cookie, basic, bearer, client_credentials, oauth."
        ),
    ] = "none",
    auth_name: Annotated[str, typer.Option(help="Name of the header, query parameter or cookie.")] = "Authorization",
    prefix: Annotated[str, typer.Option(help="Text before the secret in a header.")] = "",
    token_url: Annotated[str | None, typer.Option(help="client_credentials: address that gives tokens.")] = None,
    client_id: Annotated[str, typer.Option(help="client_credentials: client.")] = "",
    scope: Annotated[str, typer.Option(help="client_credentials: scopes.")] = "",
    user_header: Annotated[str | None, typer.Option(help="Header that carries the id of the end user, signed.")] = None,
    per_user: Annotated[
        bool, typer.Option("--per-user", help="Each end user has a secret: see `headrace toolset set-user-secret`.")
    ] = False,
    secret_file: Annotated[
        str | None, typer.Option(help="File with the secret; - asks for it, or reads standard input.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, max=600, help="Time limit of a call, in seconds.")] = 30.0,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Register a toolset, or change it. Without a secret file, it keeps the secret that it has.

    Its tools are listed afterwards: see [bold]headrace toolset show[/].
    """
    signing = {
        "type": auth,
        "name": auth_name,
        "prefix": prefix,
        "token_url": token_url,
        "client_id": client_id,
        "scope": scope,
        "user_header": user_header,
        "per_user": per_user,
    }
    fields: dict[str, Any] = {"name": toolset, "kind": kind, "description": description, "timeout_s": timeout_s}
    if secret_file:
        fields["secret"] = read_text("Secret", secret_file)
    is_address = place.startswith(("http://", "https://"))
    data = _document(place) if kind == "openapi" and not is_address else None
    database = _database(place) if kind == "sql" else None
    match kind:
        case "openapi":
            given: dict[str, Any] = {"url": place} if is_address else {}
            fields["openapi"] = {**given, "server": server, "operations": operation or None, "auth": signing}
        case "mcp":
            fields["mcp"] = {"url" if is_address else "server": place, "auth": signing}
        case "app":
            fields["app"] = {"app": place}
        case "dataset":
            fields["dataset"] = {"dataset": place, "top_k": top_k}
        case "sql":
            fields["sql"] = {} if database else {"connection": place}
        case _:
            raise typer.BadParameter(f"{kind!r} is not openapi, mcp, app, dataset or sql.", param_hint="KIND")
    settings = Settings.load(home=home, tenant=tenant)

    async def work() -> Outcome:
        async with connected(settings) as client:
            if data is not None:
                fields["openapi"] |= await _sent(client, data)
            if database:
                fields["sql"]["digest"] = await client.upload_blob(database)
            return await client.send("toolset.register", fields, wait=wait)

    conclude(run(work()), as_json)


@toolset.command(
    epilog="Examples: [bold]headrace toolset refresh pets[/] · [bold]headrace toolset refresh pets --for 120 --json[/]"
)
def refresh(
    toolset: Name,
    result: For = 60.0,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the tools of a toolset again, and print them. Exits with 1 if they cannot be read."""
    settings = Settings.load(home=home, tenant=tenant)
    outcome = run(outcome_of(settings, "toolset.refresh", {"toolset": toolset}, wait))
    if outcome["status"] == "rejected" or not result:
        conclude(outcome, as_json)
        return
    found = run(_refreshed(settings, toolset, outcome["command"], result))
    _show(found, as_json)
    if found["refresh_status"] == "failed":
        raise typer.Exit(1)


@toolset.command(epilog="Example: [bold]headrace toolset remove pets --yes[/]")
def remove(
    toolset: Name,
    yes: Yes = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove a toolset and its secret."""
    confirm(f"Remove toolset {toolset}? Agents go on without its tools.", yes)
    send("toolset.remove", {"toolset": toolset}, wait, tenant, home, as_json)


@toolset.command(
    "list", epilog="Examples: [bold]headrace toolset list[/] · [bold]headrace toolset list --tenant acme --json[/]"
)
def list_toolsets(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were removed.")] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the toolsets of a tenant, and whether their tools could be read."""
    settings = Settings.load(home=home, tenant=tenant)
    query = "SELECT * FROM headrace.toolsets WHERE tenant_id = %(tenant)s ORDER BY id"
    found = run(rows(settings, query, tenant=settings.tenant))
    shown = [each for each in found if everything or each["status"] != "removed"]
    columns = ["id", "kind", "tool_count", "has_secret", "refresh_status", "error_code", "refreshed_at"]
    terminal.show_listing(shown, columns, as_json)


@toolset.command(
    epilog="Examples: [bold]headrace toolset show pets[/] · [bold]headrace toolset show pets --tenant acme --json[/]"
)
def show(toolset: Name, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Show a toolset without its secret, its tools, and what was left out of them."""
    settings = Settings.load(home=home, tenant=tenant)
    found = run(rows(settings, _ONE, tenant=settings.tenant, toolset=toolset))
    if not found:
        raise Failed(f"There is no toolset {toolset}; see `headrace toolset list`.")
    _show(found[0], as_json)


@toolset.command(
    epilog="Examples: [bold]headrace toolset calls --held[/] · [bold]headrace toolset calls pets --limit 5 --json[/]"
)
def calls(
    toolset: Annotated[str | None, typer.Argument(help="Name of the toolset. Default: all.", metavar="TOOLSET")] = None,
    held: Annotated[bool, typer.Option("--held", help="Only those that wait for a person.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of calls.")] = 20,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List calls of tools, the newest first."""
    settings = Settings.load(home=home, tenant=tenant)
    given = {"tenant": settings.tenant, "toolset": toolset, "held": held, "limit": limit}
    found = run(rows(settings, _CALLS, **given))
    if as_json:
        terminal.show_listing(found, [], as_json)
        return
    columns = ["id", "toolset", "tool", "status", "arguments", "question", "error_code", "created_at"]
    shown = [{**each, "arguments": each["arguments"][:SHOWN], "question": _question(each)} for each in found]
    terminal.show_listing(shown, columns, as_json)


@toolset.command(
    epilog="Examples: [bold]headrace toolset release CALL[/] · "
    "[bold]headrace toolset release CALL --answer '{\"size\": 3}'[/]"
)
def release(
    call: Call,
    answer: Annotated[
        str | None, typer.Option(help="Fields of the form, as a JSON object, where the server of the tool asks.")
    ] = None,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Release a call that waits for a person, or answer what its server asks."""
    given = {} if answer is None else {"answer": _object(answer)}
    send("tool_call.release", {"tool_call": call, **given}, wait, tenant, home, as_json)


@toolset.command(
    epilog='Examples: [bold]headrace toolset refuse CALL --reason "Not on a Sunday."[/] · '
    "[bold]headrace toolset refuse CALL --cancel[/]"
)
def refuse(
    call: Call,
    reason: Annotated[str, typer.Option(help="Reason, which the model reads.")] = "",
    cancel: Annotated[bool, typer.Option("--cancel", help="Neither answer nor decline what the server asks.")] = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Refuse a call that waits for a person, or decline what its server asks."""
    fields = {"tool_call": call, "reason": reason, "cancel": cancel}
    send("tool_call.refuse", fields, wait, tenant, home, as_json)


def _question(call: dict[str, Any]) -> str:
    """The question of its server that is open, with the fields of the answer; empty for none."""
    waiting = [each for each in call["questions"] if each["action"] is None]
    if call["status"] != "held" or not waiting:
        return ""
    fields = ", ".join(waiting[0]["form"].get("properties", {}))
    return f"{waiting[0]['message'][:SHOWN]} ({fields})"


def _object(text: str) -> dict[str, Any]:
    """Raises: Failed."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failed("--answer must be a JSON object with the fields of the form.")
    return found


_ONE: LiteralString = "SELECT * FROM headrace.toolsets WHERE tenant_id = %(tenant)s AND id = %(toolset)s"

_CALLS: LiteralString = (
    "SELECT * FROM headrace.tool_calls WHERE tenant_id = %(tenant)s "
    "AND (%(toolset)s::text IS NULL OR toolset = %(toolset)s) AND (NOT %(held)s OR status = 'held') "
    "ORDER BY created_at DESC, id LIMIT %(limit)s"
)

_INTERNAL = {"tenant_id", "log_position", "tools", "warnings"}


def _document(file: str, most: int = MOST_SCHEMA) -> bytes:
    """A document in a file. Raises: Failed."""
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}.") from error
    if len(data) > most:
        raise Failed(f"{file} has {len(data):,} bytes, at most {most:,} are read.")
    return data


def _database(place: str) -> bytes | None:
    """The bytes of a SQLite file; None for the name of a connection. Raises: Failed."""
    is_file = Path(place).is_file() or "." in place or "/" in place
    return _document(place, LARGEST_DATABASE) if is_file else None


async def _sent(client: Client, data: bytes) -> dict[str, Any]:
    """The field that says where a document is; a large one, or one that is no UTF-8, is put into the object store."""
    if len(data) <= LARGEST_TEXT:
        try:
            return {"text": data.decode()}
        except UnicodeDecodeError:
            pass
    return {"digest": await client.upload_blob(data)}


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    terminal.show_fields({name: value for name, value in found.items() if name not in _INTERNAL}, as_json=False)
    if found["tools"]:
        say("\nTools")
        columns = ["name", "destructive", "idempotent", "description"]
        terminal.show_rows(columns, [tuple(_cell(tool[column]) for column in columns) for tool in found["tools"]])
    if found["warnings"]:
        say("\nLeft out")
        for warning in found["warnings"]:
            say(warning)


def _cell(value: object) -> object:
    return " ".join(value.split())[:SHOWN] if isinstance(value, str) else value


async def _refreshed(settings: Settings, name: str, refresh: str, within_s: float) -> dict[str, Any]:
    """The row of a toolset once this refresh has ended. Raises: Failed when it has not in time."""
    query: LiteralString = f"{_ONE} AND refresh_trace_id = %(refresh)s AND refresh_status <> 'requested'"
    deadline = asyncio.get_running_loop().time() + within_s
    while not (found := await rows(settings, query, tenant=settings.tenant, toolset=name, refresh=refresh)):
        if asyncio.get_running_loop().time() > deadline:
            raise Failed(f"There is no list after {within_s:g} s; see `headrace toolset show {name}`.")
        await asyncio.sleep(PAUSE_S)
    return found[0]
