"""State, rebuild and drop of search index versions, while workers run."""

from __future__ import annotations

from adapters.index.versions.state import State
from handlers.knowledge.reindex import Built, Reindex
from handlers.work.progress import Progress, no_progress
from ops import index_choice
from ops.settings import Settings
from ops.wiring import WITHIN_S, Wiring


class NotDropped(Exception):
    """The version cannot be dropped; the message says why."""


async def rebuild(
    settings: Settings, dataset: str | None = None, *, keep_old: bool = False, progress: Progress = no_progress
) -> Built:
    """Rebuild the index, or one dataset of the settings' tenant, from the log and swap it in.

    Raises: KeyError when there is no such dataset; Unavailable.
    """
    async with Wiring(settings, "index", within_s=WITHIN_S) as wiring:
        log, index = wiring.log, await wiring.index()
        models, embed = await wiring.embeddings(), await wiring.embed()
        reindex = Reindex(wiring.repository, log, wiring.files, models, embed, index)
        if dataset is None:
            return await reindex.all(progress, keep_old=keep_old)
        return await reindex.dataset(settings.tenant, dataset, progress, keep_old=keep_old)


async def show(settings: Settings) -> State:
    """Versions and builds of the index. Raises: Unavailable."""
    return await index_choice.state(settings)


async def drop(settings: Settings, number: int) -> None:
    """Drop a version that was kept. Raises: NotDropped, Unavailable."""
    if not await index_choice.drop(settings, number):
        raise NotDropped(f"There is no version {number} that is neither searched nor being built.")
