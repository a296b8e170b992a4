"""The streams of the log as batches: each stream in order and whole, the streams side by side."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

from domain.log import Recorded
from handlers.ports.log import Log

BATCH, BYTES = 5000, 16 * 2**20
"""A batch is complete at this number of messages, or of their bytes."""

BLOBS = 256
"""Blobs that the messages of a batch need; they are all in memory at once."""

PERIOD_S, LONGEST_S = 0.05, 0.25
"""Minimum interval between two batches, in seconds: usually, and where batches take long."""

GATHER_S = 0.02
"""Time for which a batch waits for more after a quiet time, in seconds: most steps write several messages."""

REST = 4
"""Minimum interval as a multiple of the time that a batch takes: on a busy machine, fewer and larger batches take less
of it."""

AHEAD = 5
"""Chunks of a stream that are read before they are asked for."""


class Gap(Exception):
    """The log has lost messages: see `docs/operations.md` before anything else."""


async def batches(
    log: Log,
    after: Mapping[str, int],
    until: Mapping[str, int] | None,
    blobs: Callable[[Recorded], Sequence[object]],
) -> AsyncGenerator[list[Recorded]]:
    """Yield the messages after these sequences, up to and including those of `until`, or for ever.

    Raises, when all before it was given: Gap when a stream skips a sequence or ends before `until`; what `read` raises.
    """
    chunks: asyncio.Queue[Sequence[Recorded] | Exception | None] = asyncio.Queue(AHEAD)
    streams = [stream for stream in after if until is None or until[stream] > after[stream]]

    async def pump(stream: str) -> None:
        try:
            async for chunk in _read(log, stream, after[stream], None if until is None else until[stream]):
                await chunks.put(chunk)
            await chunks.put(None)
        except Exception as error:
            await chunks.put(error)

    pumps = [asyncio.create_task(pump(stream), name=f"read {stream}") for stream in streams]
    pending: deque[Recorded] = deque()
    held = 0  # bytes
    running, due = len(pumps), 0.0
    failure: Exception | None = None
    try:
        while running or pending:
            if until is None and not pending and (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            quiet = until is None and not pending and chunks.empty()
            # What follows the log goes on with what has arrived; what has an end waits for whole batches.
            while running and (
                not pending or (len(pending) < BATCH and held < BYTES and (until is not None or not chunks.empty()))
            ):
                match await chunks.get():
                    case None:
                        running -= 1
                    case Exception() as failure:
                        running = 0
                    case chunk:
                        pending.extend(chunk)
                        held += sum(message.size for message in chunk)
                if quiet:
                    quiet = False
                    await asyncio.sleep(GATHER_S)
            began = time.monotonic()
            batch: list[Recorded] = []
            needed = size = 0
            while pending and len(batch) < BATCH and needed < BLOBS and size < BYTES:
                needed += len(blobs(pending[0]))
                size += pending[0].size
                batch.append(pending.popleft())
            held -= size
            if batch:
                yield batch
            due = began + min(LONGEST_S, max(PERIOD_S, REST * (time.monotonic() - began)))
        if failure:
            raise failure
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _read(log: Log, stream: str, after: int, until: int | None) -> AsyncGenerator[Sequence[Recorded]]:
    async with aclosing(log.read(stream, after, follow=until is None)) as chunks:
        async for chunk in chunks:
            for index, message in enumerate(chunk):
                if message.position.sequence != after + 1:
                    yield chunk[:index]
                    raise Gap(f"Stream {stream} goes from {after} to {message.position.sequence}: messages are lost.")
                after += 1
            if until is None or after < until:
                yield chunk
            else:
                yield chunk[: len(chunk) - (after - until)]
                return
    where = f"ends before {after}" if until is None else f"ends at {after}"
    raise Gap(f"Stream {stream} {where}, and the tables are further: at {until or after}.")
