"""Bounded concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def each(things: Iterable[T], act: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Run `act` for every item, at most `at_once` concurrently; the first failure ends it. Raises: errors of `act`."""
    left = iter(things)

    async def work() -> None:
        for thing in left:
            await act(thing)

    workers = [asyncio.create_task(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
