"""`headrace archive` and `headrace restore`: a copy of the log elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapters.jetstream.nats_py import find_streams
from ops import terminal
from ops.cli.frame import Failed, Home, Json, app, connected, run
from ops.settings import Settings
from ops.terminal import emit, say

if TYPE_CHECKING:
    from adapters.archive.archiver import Behind
    from ops.upkeep.restore import Restored

Address = Annotated[
    str | None,
    typer.Option(
        "--archive-url", help="Address of the archive: a folder or s3://bucket/prefix. [dim](HEADRACE_ARCHIVE_URL)[/]"
    ),
]


@app.command(
    epilog="Examples: [bold]headrace archive --archive-url /backup/headrace[/] · "
    "[bold]headrace archive --status --json[/] · [bold]headrace worker --role archive[/]"
)
def archive(
    archive_url: Address = None,
    status: Annotated[bool, typer.Option("--status", help="Print the state of the archive; change nothing.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Copy new messages of the log, with their blobs, to the archive, once.

    A worker of the role `archive` does so continuously.
    """
    settings = addressed(home, archive_url)
    with failing():
        if status:
            show(run(look(settings)), as_json)
        else:
            added, lost = run(update(settings, as_json))
            if as_json:
                emit({"added": added, "lost": lost})
            else:
                say(f"Archived: {numbers(added)}.")
            complain_of(lost)


async def look(settings: Settings) -> list[Behind]:
    from adapters.archive.archiver import status
    from adapters.archive.store import Archive

    async with connected(settings) as client:
        await find_streams(client.connection)
        archive = Archive.at(settings.archive_url, settings.archive_segment_bytes)
        return await status(client.connection, archive, client.blobs)


async def update(settings: Settings, as_json: bool) -> tuple[dict[str, int], dict[str, str]]:
    """Bring the archive up to date. Return messages and blobs added by kind, and a reason by unreadable blob."""
    from adapters.archive.archiver import Archiver
    from adapters.archive.store import Archive

    with terminal.counting(as_json) as progress:
        async with connected(settings) as client:
            await find_streams(client.connection)
            archiver = Archiver(
                client.connection,
                Archive.at(settings.archive_url, settings.archive_segment_bytes),
                segment_bytes=settings.archive_segment_bytes,
                key=settings.archive_signature(make=not settings.nats_url),
                progress=progress,
                blobs=client.blobs,
            )
            return await archiver.update(), archiver.lost


@app.command(
    epilog="Examples: [bold]headrace restore --archive-url s3://backup/headrace[/] · "
    "[bold]headrace restore --expect HASH[/] · [bold]headrace restore --until EVENTS=120000 --trust[/]"
)
def restore(
    archive_url: Address = None,
    until: Annotated[
        list[str] | None,
        typer.Option(help="Last sequence of a stream to restore, as STREAM=SEQUENCE; repeatable."),
    ] = None,
    other_secret: Annotated[
        bool, typer.Option("--other-secret", help="Accept an archive that was written with another secret key.")
    ] = False,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            help="Hash of a chain that was noted elsewhere, by [bold]headrace archive --status[/]; repeatable."
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Restore without proof that the archive is complete and genuine.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Restore the log and its blobs from the archive to an empty NATS. If interrupted, run it again to resume.

    The archive must be signed with the key of this home (or HEADRACE_ARCHIVE_KEY), or have the hashes of --expect.
    """
    settings = addressed(home, archive_url)
    limits = dict(map(limit, until or []))
    from adapters.archive.heads import Proof
    from adapters.archive.store import Archive
    from ops.upkeep.restore import nats_of
    from ops.upkeep.restore import restore as work

    async def bring_back() -> Restored:
        with terminal.counting(as_json) as progress:
            async with nats_of(settings) as located:
                archive = Archive.at(settings.archive_url, settings.archive_segment_bytes)
                return await work(located, archive, limits, progress, proof, other_secret=other_secret)

    proof = None if trust else Proof(settings.archive_signature(), frozenset(expect or ()))

    if settings.secret_key is None and not (settings.home / "secret.key").exists():
        terminal.complain(
            f"{settings.home} has no secret.key: with a new one, providers' keys in the log cannot be decrypted."
        )
    with failing():
        restored = run(bring_back())
    if as_json:
        emit(asdict(restored))
    else:
        say(f"Restored: {numbers(restored.published)}, {restored.blobs} blobs.")
        say("Start everything with `headrace up`, then `headrace rebuild` and `headrace index rebuild`.")
    complain_of(restored.lost)


def addressed(home: Path | None, archive_url: str | None) -> Settings:
    settings = Settings.load(home=home, archive_url=archive_url)
    if not settings.archive_url:
        raise Failed("No archive is configured: set HEADRACE_ARCHIVE_URL or use --archive-url.")
    return settings


def limit(text: str) -> tuple[str, int]:
    """STREAM=SEQUENCE."""
    from adapters.archive.archiver import STREAMS

    stream, _, sequence = text.partition("=")
    if stream not in STREAMS or not sequence.isdecimal():
        rule = f"{text!r} is not STREAM=SEQUENCE with one of {', '.join(STREAMS)}."
        raise typer.BadParameter(rule, param_hint="--until")
    return stream, int(sequence)


@contextmanager
def failing() -> Iterator[None]:
    from adapters.archive.archiver import Differs
    from adapters.archive.heads import Unproven
    from adapters.archive.store import Broken
    from adapters.jetstream.raw import Occupied
    from adapters.privacy.vault import UnknownKey
    from handlers.ports.log import Unavailable
    from ops.upkeep.restore import Busy, NoArchive

    try:
        yield
    except Broken as broken:
        stream = "".join(getattr(broken, "__notes__", []))
        command = f"`headrace restore --until {stream}={broken.whole} --trust`"
        offer = f" Everything before it is intact: {command}." if stream else ""
        raise Failed(f"{broken}{offer}") from broken
    except UnknownKey as error:
        raise Failed(
            f"The archive was written under key {error.id}: set HEADRACE_SECRET_KEY to that secret. If it is lost, "
            "`--other-secret` restores the log: providers must be registered again, and the tables wait at the first "
            "words of a person."
        ) from error
    except Unproven as error:
        advice = "Set HEADRACE_ARCHIVE_KEY, or name a noted hash with --expect; --trust restores it as it is."
        raise Failed(f"{error} Nothing was restored. {advice}") from error
    except (Busy, Differs, NoArchive, Occupied, Unavailable) as error:
        raise Failed(str(error)) from error


def numbers(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} of {stream}" for stream, count in counts.items())


def show(found: list[Behind], as_json: bool) -> None:
    for behind in found:
        if as_json:
            emit(asdict(behind))
        else:
            late = f"{behind.waiting} pending, the oldest for {behind.age_s:.0f} s"
            waiting = late if behind.waiting else "up to date"
            if behind.reset:
                waiting = f"but the log ends at {behind.last}"
            say(f"{behind.stream:<9} {behind.archived} archived, {waiting}  {behind.chain}")


def complain_of(lost: dict[str, str]) -> None:
    """Report the blobs that cannot be read, and exit with 1 when there are any."""
    for name, reason in lost.items():
        terminal.complain(f"Blob {name} {reason}.")
    if lost:
        raise typer.Exit(1)
