"""`headrace rotate-key`: another master secret, for everything that is encrypted under it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.jetstream.client import Client
from adapters.privacy.masters import replace
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, app, connected, read_text, run
from ops.servers.embedded import disk_key
from ops.settings import Settings
from ops.terminal import emit, say

if TYPE_CHECKING:
    from ops.upkeep.rotate import Needed, Rewrapped

STEPS = """HEADRACE_SECRET_KEY is set, so the new secret is yours to distribute. In this order:
1. Make a secret: `openssl rand -hex 32`, into your store of secrets.
2. Add it to HEADRACE_FURTHER_SECRET_KEYS of all workers, and restart them: now all can read what it encrypts.
3. Set HEADRACE_SECRET_KEY to it, HEADRACE_FURTHER_SECRET_KEYS to the earlier one, and restart all workers.
4. Run `headrace rotate-key` with the same two variables: it encrypts people's keys again.
5. Run `headrace rotate-key --check`: it lists what still needs the earlier secret."""


@app.command(
    "rotate-key",
    epilog="Examples: [bold]headrace rotate-key[/] · [bold]headrace rotate-key --check --json[/] · "
    "[bold]headrace rotate-key --new secret.txt[/]",
)
def rotate_key(
    new: Annotated[
        str | None, typer.Option(help="File with the new secret; - reads standard input. Default: a random one.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="List what each secret encrypts; change nothing.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a new secret key the current one, and encrypt people's keys again with it.

    On one machine, stop Headrace first: the new secret is written to secret.key, above the earlier ones, which still
    decrypt. On a cluster, it prints the steps, of which it does the last. If interrupted, run it again: it continues.
    With --check, the exit status is 1 while anything needs an earlier secret.
    """
    settings = Settings.load(home=home)
    try:
        if check:
            remaining = run(_check(settings))
            report(settings, {}, remaining, as_json)
            raise typer.Exit(1 if remaining.ids - {settings.vault().current} else 0)
        done, made, remaining = run(_rotate(settings, new, as_json))
    except Unavailable as error:
        raise Failed(str(error)) from error
    report(settings, {"made": made, **asdict(done)}, remaining, as_json)
    for person, reason in done.faults.items():
        terminal.complain(f"The key of {person} stays as it is: {reason}")
    if done.faults:
        raise typer.Exit(1)


async def _check(settings: Settings) -> Needed:
    from ops.upkeep.rotate import needed

    async with _stopped_or_running(settings) as client:
        return await needed(client.connection, settings.vault(), _archive(settings))


async def _rotate(settings: Settings, new: str | None, as_json: bool) -> tuple[Rewrapped, bool, Needed]:
    """The result, True if the current secret is a new one, and what each secret encrypts. Raises: Failed."""
    from ops.upkeep.restore import Busy, idle, nats_of
    from ops.upkeep.rotate import needed, outdated, rewrap

    masters, made = settings.masters(), False
    if masters.given:
        if len(masters.read()) == 1 or new:
            raise Failed(STEPS)
        server = _running(settings)
    else:
        server = nats_of(settings)
    with terminal.counting(as_json) as progress:
        async with server as located, connected(located) as client:
            nc = client.connection
            if not masters.given:
                try:
                    await idle(client)
                except Busy as error:
                    raise Failed("A worker runs: stop all workers first, so that none lacks the new secret.") from error
                if new or len(masters.read()) == 1 or not await outdated(nc, settings.vault()):
                    secret = _given(new) if new else secrets.token_hex(32)
                    if not settings.nats_url:
                        replace(settings.home / "jetstream.key", disk_key(settings.home) + "\n")
                    made = secret.encode() != masters.read()[0]
                    masters.renew(secret)
            done = await rewrap(nc, settings.vault(), progress)
            return done, made, await needed(nc, settings.vault(), _archive(settings))


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[Settings]:
    yield settings.located("nats")


@asynccontextmanager
async def _stopped_or_running(settings: Settings) -> AsyncIterator[Client]:
    """A client of the server that runs, or of an embedded one that runs for this."""
    from ops.upkeep.restore import nats_of

    stopped = not settings.nats_url and not settings.running()
    async with (
        nats_of(settings) if stopped else _running(settings) as located,
        connected(located) as client,
    ):
        yield client


def _archive(settings: Settings) -> Any:
    from adapters.archive.store import Archive

    return Archive.at(settings.archive_url, settings.archive_segment_bytes) if settings.archive_url else None


def _given(file: str) -> str:
    """Raises: Failed."""
    secret = read_text("secret", file).strip()
    if len(secret) < 16 or "\n" in secret:
        raise Failed(f"{file} must have one line of 16 characters or more.")
    return secret


def report(settings: Settings, done: dict[str, Any], remaining: Needed, as_json: bool) -> None:
    """Print the secrets by id, the current one first, with what each encrypts."""
    vault = settings.vault()
    ids = [*vault.ids, *sorted(remaining.ids - set(vault.ids))]
    found: list[dict[str, Any]] = [
        {
            "id": id,
            "current": id == vault.current,
            "people": remaining.people[id],
            "archived": remaining.archived[id],
            "providers": remaining.providers.get(id, []),
            "sql_logins": remaining.sql_logins.get(id, []),
            "toolsets": remaining.toolsets.get(id, []),
            "variables": remaining.variables.get(id, []),
        }
        for id in ids
    ]
    if as_json:
        emit({**done, "secrets": found})
        return
    if done:
        verb = "Made" if done["made"] else "Kept"
        say(f"{verb} secret {vault.current}. Encrypted {done['keys']} keys of people again.")
    for each in found:
        state = "current" if each["current"] else "earlier"
        archived = f", {each['archived']} archived ones" if settings.archive_url else ""
        logins = f", {len(each['sql_logins'])} SQL logins" if each["sql_logins"] else ""
        toolsets = f", {len(each['toolsets'])} toolsets" if each["toolsets"] else ""
        variables = f", {len(each['variables'])} variables of workflows" if each["variables"] else ""
        providers = f"{len(each['providers'])} providers"
        others = f"{archived}, {providers}{logins}{toolsets}{variables}"
        say(f"{each['id']:<8} {state}: {each['people']} keys of people{others}")
        for name in [] if each["current"] else each["providers"]:
            tenant, provider, key = name.split("/")
            say(f"         headrace provider add-key {provider} {key} --tenant {tenant}")
        for name in [] if each["current"] else each["sql_logins"]:
            tenant, _, login = name.partition("/")
            say(f"         headrace sql-login create NAME --tenant {tenant}, then revoke {login}")
        for name in [] if each["current"] else each["toolsets"]:
            tenant, _, toolset = name.partition("/")
            say(f"         headrace toolset register {toolset} … --secret-file - --tenant {tenant}")
        for name in [] if each["current"] else each["variables"]:
            tenant, app, variable = name.split("/", 2)
            say(f"         headrace send workflow.save app={app} secrets.{variable}@=- … --tenant {tenant}")
    if any(each["archived"] for each in found if not each["current"]):
        say("The archive follows: run `headrace archive`, or its worker.")
