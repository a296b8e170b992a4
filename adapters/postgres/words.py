"""Masked words of the texts in a batch, prepared in processes of their own before the batch is folded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self

import structlog

from domain.log import Recorded
from projections.engine.values import Values
from projections.traces.traces import texts
from projections.values.previews import masked_words

logger = structlog.get_logger(__name__)

WORTH = 200
"""Blocks of text that are worth a process: a batch with fewer is folded without."""

SHARE = 50
"""Blocks that a process takes at a time."""


def _empty_environment() -> None:
    os.environ.clear()


class WordsAhead:
    """Prepares the words that `values` keep, in this number of processes, which the first large batch starts.

    Without processes, or with a masking that cannot be sent to them, the fold prepares them itself.
    """

    def __init__(self, values: Values, processes: int) -> None:
        self._words = values.words
        self._masking = values.masking
        self._processes = 0 if values.masking.further else processes
        self._pool: ProcessPoolExecutor | None = None
        self._started: Future[list[list[str]]]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, batch: Sequence[Recorded]) -> None:
        if not self._processes:
            return
        blocks = self._words.missing(text for message in batch for event in message.events for text in texts(event))
        if len(blocks) < WORTH:
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._processes, get_context("spawn"), _empty_environment)
            self._started = self._pool.submit(masked_words, [], self._masking)
        if not self._started.done():  # a new process takes seconds to start; the fold does not wait for it
            return
        loop = asyncio.get_running_loop()
        shares = [blocks[start : start + SHARE] for start in range(0, len(blocks), SHARE)]
        try:
            prepared = await asyncio.gather(
                *(loop.run_in_executor(self._pool, masked_words, share, self._masking) for share in shares)
            )
        except BrokenProcessPool as error:
            logger.warning("words.not_prepared", reason=str(error))
            self._processes = 0
            return
        for share, found in zip(shares, prepared, strict=True):
            self._words.keep(zip(share, found, strict=True))
