"""Bounded concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def each(things: Iterable[T], act: Callable[[T], Awaitable[object]], at_once: int) -> None:
    """Run `act` for every item, at most `at_once` concurrently; the first failure ends it. Raises: errors of `act`."""
    items = list(things)
    left = iter(items)

    async def work() -> None:
        for thing in left:
            await act(thing)

    await together(work() for _ in range(min(at_once, len(items))))


async def together(acts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all concurrently; the first failure ends the others. Raises: their errors."""
    tasks = [asyncio.create_task(act) for act in acts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
