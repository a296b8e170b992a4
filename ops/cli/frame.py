"""What every command shares: the options, how it reaches the servers, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from adapters.jetstream.client import Client, NoOutcome, NotSent, Unreachable
from ops import supervisor, terminal
from ops.roles import RoleFailed
from ops.servers.daemon import StartFailed
from ops.settings import InvalidSetting, NotRunning, Settings
from ops.terminal import emit

T = TypeVar("T")

app = typer.Typer(
    name="headrace",
    help="A backend for LLM applications on an event log.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Home = Annotated[Path | None, typer.Option(help="Folder of the data. [dim](HEADRACE_HOME, ./.headrace)[/]")]
Tenant = Annotated[str | None, typer.Option(help="Tenant to speak for. [dim](HEADRACE_TENANT, default)[/]")]
Wait = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the outcome.")]


class Failed(Exception):
    """What was asked did not happen; the message says why."""


EXPECTED = (
    Failed,
    InvalidSetting,
    NotRunning,
    NoOutcome,
    NotSent,
    RoleFailed,
    StartFailed,
    Unreachable,
    supervisor.AlreadyRunning,
)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    located = settings.located("nats")
    async with await Client.connect(located.nats_url, located.tenant, credentials=located.nats_credentials) as client:
        yield client


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def until_told(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGINT or SIGTERM, and let the work clean up after itself; later signals do not break into that."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            task.cancel()

    with suppress(RuntimeError, ValueError):  # only the main thread hears of signals
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, tell)
    with suppress(asyncio.CancelledError):
        await task


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # UTF-8 whatever the locale, and any bytes of a path
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app(args=arguments, prog_name="headrace")
    except EXPECTED as error:
        code = "".join(f"_{char.lower()}" if char.isupper() else char for char in type(error).__name__).strip("_")
        fail(getattr(error, "code", code), str(error), "--json" in arguments)
    except Exception as error:
        explain(error, "--json" in arguments)


def fail(code: str, message: str, as_json: bool) -> NoReturn:
    if as_json:
        emit({"error": {"code": code, "message": message}})
    else:
        terminal.complain(message)
    sys.exit(1)


def explain(error: Exception, as_json: bool) -> NoReturn:
    """End with what the machine lacks, or with where an error of Headrace is kept."""
    if isinstance(error, ImportError):
        fail("missing_package", f"A package cannot be loaded: {error} (see {keep(error)})", as_json)
    if isinstance(error, OSError) and (error.filename or error.errno in _FULL):
        place = os.fsdecode(error.filename or home())
        fail("unusable_file", f"{place} cannot be used: {error.strerror}.", as_json)
    note = f"Something unforeseen happened ({type(error).__name__}); what it was is in {keep(error)}"
    fail("unforeseen", note, as_json)


_FULL = (errno.ENOSPC, errno.EDQUOT)


def keep(error: Exception) -> Path:
    """Write the traceback into the log of the command line, or into the system's temporary folder if that fails."""
    path = home() / "log" / "cli.log"
    try:
        return _append(path, error)
    except OSError:
        return _append(Path(gettempdir()) / "headrace-cli.log", error)


def home() -> Path:
    try:
        return Settings.load().home
    except InvalidSetting:
        return Path(".headrace").absolute()


def _append(path: Path, error: Exception) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(
            f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv[:2])}\n{''.join(traceback.format_exception(error))}\n"
        )
    return path
