"""The read tables rebuilt from the log, or compared with it, while everything else goes on."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from adapters.postgres import compare as comparing
from adapters.postgres import rebuild as rebuilding
from adapters.postgres.compare import Comparison
from handlers.files import Files
from handlers.ports.log import Log
from handlers.work.progress import Progress, no_progress
from ops.settings import Settings
from ops.values import values
from ops.wiring import WITHIN_S, Wiring


async def rebuild(settings: Settings, names: Iterable[str] = (), progress: Progress = no_progress) -> list[str]:
    """Rebuild these tables, or all; gives the names of those rebuilt: these, and those they depend on.

    Raises: KeyError for a name that no table has, and what the adapter's `rebuild` raises.
    """
    async with _open(settings) as (log, files):
        return await rebuilding.rebuild(
            settings.postgres_url, log, files, names, progress, values(settings), settings.projector_processes
        )


async def undo(settings: Settings, progress: Progress = no_progress) -> list[str]:
    """Put back the tables that the last rebuild swapped out; gives their names. Raises: as the adapter's `undo`."""
    async with _open(settings) as (log, files):
        return await rebuilding.undo(
            settings.postgres_url, log, files, progress, values(settings), settings.projector_processes
        )


async def check(settings: Settings, names: Iterable[str] = (), progress: Progress = no_progress) -> list[Comparison]:
    """Compare these tables, or all, with fresh ones. Raises: as the adapter's `compare`."""
    async with _open(settings) as (log, files):
        return await comparing.compare(
            settings.postgres_url, log, files, names, progress, values(settings), settings.projector_processes
        )


async def drop_old(settings: Settings) -> list[str]:
    """Drop the tables that the last rebuild swapped out; gives their names."""
    return await rebuilding.drop_old(settings.postgres_url)


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[tuple[Log, Files]]:
    async with Wiring(settings, "rebuild", within_s=WITHIN_S) as wiring:
        with uncollected():
            yield wiring.log, wiring.files


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect garbage by reference counts alone: looking for cycles among all events would take a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
