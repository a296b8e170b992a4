from __future__ import annotations

import asyncio

import pytest

from adapters.many import each


async def test_all_items_are_done_with_bounded_concurrency() -> None:
    done: list[int] = []
    now = most = 0

    async def act(number: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        done.append(number)

    await each(range(20), act, 3)
    assert sorted(done) == list(range(20))
    assert most == 3


async def test_what_fails_first_ends_it() -> None:
    begun: list[int] = []

    async def act(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0)
        if number == 2:
            raise KeyError(number)

    with pytest.raises(KeyError):
        await each(range(1000), act, 3)
    at = len(begun)
    await asyncio.sleep(0.01)
    assert len(begun) == at < 20
