"""`headrace plugin`: make, test, install, enable and configure plugins."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from adapters.jetstream.client import Client, Outcome
from adapters.plugins.logs import entries
from domain.access.tenant import HOUSE
from domain.tools.plugin import Hook
from ops import logs, terminal
from ops.cli.bus import merged, named_secrets
from ops.cli.frame import Failed, Home, Json, Tenant, Wait, Yes, app, conclude, confirm, connected, rows, run, send
from ops.settings import Settings
from ops.terminal import emit, say

if TYPE_CHECKING:
    from handlers.commands.plugin_package import Package

plugin = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(plugin, name="plugin", help="Make, test, install, enable and configure plugins.")

Name = Annotated[str, typer.Argument(help="Name of the plugin.", metavar="PLUGIN")]
Build = Annotated[
    bool, typer.Option("--build", help="Build dependencies that have no wheel, which runs their code on this machine.")
]
Source = Annotated[Path, typer.Argument(help="Folder or zip file with plugin.json, or of Dify.", exists=True)]

SAMPLE: dict[str, Any] = {
    "id": "00000000-0000-7000-8000-000000000000",
    "kind": "chat",
    "provider": "lab",
    "model": "small",
    "app": None,
    "messages": [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "My number is 4711. When does the gate open?"},
    ],
    "passages": [],
    "parameters": {},
    "max_tokens": 512,
    "tools": [],
}
"""The call that `headrace plugin test` sends."""

_OF_MONITORS = {
    "status": "completed",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "span_id": "b7ad6b7169203331",
    "parent_span_id": "00f067aa0ba902b7",
    "started_at": "2026-03-01T12:00:00+00:00",
    "ended_at": "2026-03-01T12:00:00.412500+00:00",
    "prompt_tokens": 24,
    "completion_tokens": 7,
}
"""Further fields of the call, of monitors."""

_FURTHER: dict[str, dict[str, Any]] = {
    "after_invoke": {"response": "The gate opens at 6. ", "last": True, "duration_ms": 412.5, "first_token_ms": 80.0},
    "on_error": {"code": "overloaded", "reason": "The server has too much to do.", "duration_ms": 12.0},
    "check": {"where": "input", "texts": {"query": "My number is 4711."}},
    "after_tool": {"result": [{"type": "text", "text": "18:05"}]},
}
"""Further fields of the call, by hook."""


@plugin.command(
    epilog="Examples: [bold]headrace plugin new mask[/] · [bold]headrace plugin new counter --kind monitor[/]"
)
def new(
    name: Annotated[str, typer.Argument(help="Name: a-z, 0-9, _ and -.")],
    kind: Annotated[str, typer.Option(help="filter or monitor.")] = "filter",
    folder: Annotated[Path | None, typer.Option(help="Folder to make. Default: the name.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Write a plugin that works into a new folder: a manifest, a program, and the plugin's side of the protocol."""
    from domain.aggregate import Rejection
    from ops.plugin_files import new as write
    from ops.resolve import Unpackable

    if kind not in ("filter", "monitor"):
        raise typer.BadParameter("The kind is filter or monitor.")
    try:
        files = write(folder or Path(name), name, kind)
    except (Unpackable, Rejection) as error:
        raise Failed(str(error)) from error
    if as_json:
        emit({"files": [str(file) for file in files]})
        return
    for file in files:
        say(str(file))
    say(f"Next: `headrace plugin test {folder or name}`, then `headrace plugin install {folder or name}`.")


@plugin.command(
    "test",
    epilog="Examples: [bold]headrace plugin test mask[/] · "
    "[bold]headrace plugin test mask.zip --call call.json --setting mark=x --json[/]",
)
def try_plugin(
    source: Source,
    call: Annotated[Path | None, typer.Option(help="File with the call as JSON, in place of a sample.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="Setting, as KEY=TEXT, KEY:=JSON or KEY@=FILE; repeatable.")
    ] = None,
    build: Build = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Build a plugin, start it contained, and send each of its hooks a call. Nothing of Headrace needs to run.

    Exits with 1 if a hook fails.
    """
    settings = Settings.load(home=home)
    logs.configure(settings)
    package = _packed(settings, source, build)
    try:
        given = json.loads(call.read_text("utf-8")) if call else SAMPLE
    except (OSError, ValueError) as error:
        raise Failed(f"{call} is no JSON file: {error}.") from error
    results = run(_tried(settings, package, given, merged({}, setting or [])))
    for result in results:
        if as_json:
            emit(result)
        else:
            mark = "✗" if "failed" in result else "✓"
            said = result.get("failed") or json.dumps(result["reply"], ensure_ascii=False)
            say(f"{mark} {result['hook']:<14} {result['ms']:8.1f} ms  {said}")
    if any("failed" in result for result in results):
        raise typer.Exit(1)


async def _tried(
    settings: Settings, package: Package, call: dict[str, Any], given: dict[str, Any]
) -> list[dict[str, Any]]:
    """The result of each hook: its reply, or why it failed. Raises: Failed."""
    from adapters.plugins.environments import Environments, NotBuilt
    from adapters.plugins.hosts import Containment, Hosts
    from adapters.sandbox.choice import choose
    from handlers.commands.plugins import settings_fault
    from handlers.ports.plugins import EnabledPlugin, PluginFailed
    from ops.egress import egress
    from ops.plugins import OneBlob, uv

    manifest = package.manifest
    if fault := settings_fault(manifest["settings"], given, known=set()):
        raise Failed(f"settings: {fault}")
    sandbox = (await choose(settings.sandbox)).sandbox
    blob = OneBlob(package.data)
    plugin = EnabledPlugin("test", manifest["name"], manifest["version"], blob.digest, manifest, given, {}, "full")

    async def ignore(plugin: EnabledPlugin, reason: str | None) -> None:
        pass

    results = []
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        environments = Environments(Path(folder), blob, sandbox, uv(), settings.plugin_python)
        confined = sandbox.kind == "bubblewrap"
        containment = Containment(sandbox, egress(settings), confined, settings.plugin_network == "unconfined")
        hosts = Hosts(environments, containment, lambda tenant, sealed: sealed, ignore)
        try:
            try:
                await environments.get(plugin.digest)
                await hosts.host(plugin).running(plugin)
            except (NotBuilt, PluginFailed) as error:
                raise Failed(str(error)) from error
            for hook in get_args(Hook):
                if hook not in manifest["hooks"]:
                    continue
                extra = {**(_OF_MONITORS if manifest["kind"] == "monitor" else {}), **_FURTHER.get(hook, {})}
                began = time.perf_counter()
                result: dict[str, Any] = {"hook": hook}
                try:
                    reply = await hosts.ask(plugin, hook, {**call, **extra})
                    result["reply"] = {name: value for name, value in reply.fields.items() if name != "id"}
                except PluginFailed as error:
                    result["failed"] = f"{error.code}: {error.reason}"
                result["ms"] = round((time.perf_counter() - began) * 1000, 3)
                results.append(result)
        finally:
            await hosts.close()
            await environments.close()
    return results


@plugin.command(
    epilog="Examples: [bold]headrace plugin install mask[/] · "
    "[bold]headrace plugin install traces.zip --content masked[/]"
)
def install(
    source: Source,
    content: Annotated[str, typer.Option(help="Texts that a monitor gets: none, masked or full.")] = "none",
    build: Build = False,
    wait: Wait = 60.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Install a plugin, or another version of one, as the operator. Tenants enable it. A package of Dify is one, too.

    Its dependencies are resolved here, unless there is a lock file, and their wheels are put into the package.
    """
    if content not in ("none", "masked", "full"):
        raise typer.BadParameter("The content is none, masked or full.")
    settings = Settings.load(home=home)
    package = _packed(settings, source, build)

    async def work() -> Outcome:
        async with connected(settings) as client:
            house = Client(client.connection, HOUSE)
            digest = await house.upload_blob(package.data)
            fields = {"plugin": package.manifest["name"], "package": digest, "content": content}
            return await house.send("plugin.install", fields, wait=wait)

    for warning in package.manifest["dify"]["warnings"] if "dify" in package.manifest else ():
        terminal.complain(warning)
    conclude(run(work()), as_json)


@plugin.command(epilog="Example: [bold]headrace plugin remove mask --yes[/]")
def remove(plugin: Name, yes: Yes = False, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Remove a plugin, as the operator. The settings of tenants stay."""
    confirm(f"Remove plugin {plugin}? No call of any tenant meets it any more.", yes)
    settings = Settings.load(home=home)

    async def work() -> Outcome:
        async with connected(settings) as client:
            return await Client(client.connection, HOUSE).send("plugin.remove", {"plugin": plugin}, wait=wait)

    conclude(run(work()), as_json)


@plugin.command(
    "list", epilog="Examples: [bold]headrace plugin list[/] · [bold]headrace plugin list --tenant acme --json[/]"
)
def list_plugins(tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """List the installed plugins, and how the tenant uses them."""
    settings = Settings.load(home=home, tenant=tenant)
    query = (
        "SELECT plugin.id, plugin.kind, plugin.version, coalesce(used.status, 'not used') AS status, used.reason, "
        "used.settings, used.secrets, plugin.content, plugin.digest, plugin.updated_at FROM headrace.plugins plugin "
        "LEFT JOIN headrace.plugin_uses used ON used.tenant_id = %(tenant)s AND used.id = plugin.id "
        "WHERE plugin.tenant_id = %(house)s AND plugin.status = 'installed' ORDER BY plugin.id"
    )
    found = run(rows(settings, query, tenant=settings.tenant, house=HOUSE))
    terminal.show_listing(found, ["id", "kind", "version", "status", "reason", "settings", "content"], as_json)


@plugin.command(
    epilog="Examples: [bold]headrace plugin enable mask[/] · [bold]headrace plugin enable traces --no-content[/]"
)
def enable(
    plugin: Name,
    content: Annotated[bool, typer.Option(help="Let a monitor have texts, as far as the operator does.")] = True,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Let the calls of a tenant meet an installed plugin."""
    send("plugin.enable", {"plugin": plugin, "content": content}, wait, tenant, home, as_json)


@plugin.command(epilog="Example: [bold]headrace plugin disable mask --tenant acme[/]")
def disable(plugin: Name, wait: Wait = 10.0, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Let no more calls of a tenant meet a plugin."""
    send("plugin.disable", {"plugin": plugin}, wait, tenant, home, as_json)


@plugin.command(
    epilog="Examples: [bold]headrace plugin configure mask mark=x[/] · "
    "[bold]headrace plugin configure traces endpoint=https://host token@=-[/]"
)
def configure(
    plugin: Name,
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings, as KEY=TEXT, KEY:=JSON or KEY@=FILE.", metavar="KEY=VALUE…", show_default=False),
    ] = None,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Give a plugin its settings for a tenant, in place of earlier ones. Secrets that are left out stay."""
    for secret in named_secrets(settings or []):
        terminal.complain(f"{secret} is in the history of your shell and in the list of processes: use {secret}@=-.")
    send("plugin.configure", {"plugin": plugin, "settings": merged({}, settings or [])}, wait, tenant, home, as_json)


@plugin.command(epilog="Example: [bold]headrace plugin clear notes --yes[/]")
def clear(
    plugin: Name, yes: Yes = False, wait: Wait = 10.0, tenant: Tenant = None, home: Home = None, as_json: Json = False
) -> None:
    """Delete all values that a plugin keeps for the tenant."""
    confirm(f"Delete all values that plugin {plugin} keeps?", yes)
    send("plugin.clear", {"plugin": plugin}, wait, tenant, home, as_json)


@plugin.command(
    "logs", epilog="Examples: [bold]headrace plugin logs mask[/] · [bold]headrace plugin logs mask --lines 20[/]"
)
def show_logs(
    plugin: Name,
    lines: Annotated[int, typer.Option(min=1, help="Number of last lines.")] = 100,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Print what a plugin wrote, and its starts and failures, from the logs of the workers on this machine."""
    settings = Settings.load(home=home)
    folder = settings.home / "log"
    if not folder.is_dir():
        raise Failed(f"There is no folder {folder}: the logs of your workers are where you keep them.")
    for entry in entries(folder, plugin, lines):
        if as_json:
            emit(dict(entry))
        else:
            said = entry.get("text") or entry.get("reason") or ""
            say(f"{entry.get('timestamp', '')}  {entry.get('tenant', ''):<12} {entry['event']:<16} {said}".rstrip())


def _packed(settings: Settings, source: Path, build: bool) -> Package:
    from ops.plugin_files import packed
    from ops.resolve import Unpackable

    try:
        return packed(source, build=build, pythons=settings.plugin_python)
    except Unpackable as error:
        raise Failed(str(error)) from error
