"""The read tables made anew from the log, while everything else goes on."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from adapters.jetstream.log import JetStreamLog
from adapters.postgres import rebuild as tables
from ops.house import House
from ops.settings import Settings


async def rebuild(
    settings: Settings, names: Iterable[str] = (), progress: tables.Progress = tables.unnoticed
) -> list[str]:
    """Rebuild these tables, or all; gives the names of those rebuilt: these, and those they depend on.

    Raises: KeyError for a name that no table has, and what the adapter's `rebuild` raises.
    """
    async with House(settings, "rebuild") as house:
        with uncollected():
            return await tables.rebuild(settings.postgres_url, JetStreamLog(house.nc), house.blobs, names, progress)


@contextmanager
def uncollected() -> Iterator[None]:
    """Garbage goes by reference counts alone: looking for cycles in so many events would take a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
