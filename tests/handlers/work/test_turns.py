from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from handlers.work.turns import Turns


class Crowd:
    """Tenants that ask for turns; a turn lasts until it is let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.held: list[tuple[str, asyncio.Event]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, tenant: str, times: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._turn(tenant)) for _ in range(times)]
        await self.settle()

    async def _turn(self, tenant: str) -> None:
        async with self.turns.turn(tenant):
            self.begun.append(tenant)
            end = asyncio.Event()
            self.held.append((tenant, end))
            await end.wait()
            self.held.remove((tenant, end))

    async def end(self, tenant: str) -> None:
        next(end for name, end in self.held if name == tenant).set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def end_all(self) -> None:
        while self.held:
            for _, end in self.held:
                end.set()
            await self.settle()

    def now(self) -> Counter[str]:
        return Counter(tenant for tenant, _ in self.held)


async def test_a_tenant_never_holds_more_than_its_share() -> None:
    crowd = Crowd(Turns(slots=8, each=4, queued=100))
    await crowd.ask("busy", 64)
    assert crowd.now() == {"busy": 4}
    await crowd.ask("victim")
    assert crowd.now()["victim"] == 1
    await crowd.end_all()
    assert Counter(crowd.begun) == {"busy": 64, "victim": 1}


async def test_tenants_that_wait_are_served_one_after_the_other() -> None:
    crowd = Crowd(Turns(slots=1, each=1, queued=100))
    await crowd.ask("first", 3)
    await crowd.ask("second", 2)
    await crowd.ask("third")
    await crowd.end_all()
    assert crowd.begun == ["first", "first", "second", "third", "first", "second"]


async def test_a_quarter_of_the_slots_is_kept_for_tenants_that_have_none() -> None:
    crowd = Crowd(Turns(slots=16, each=8, queued=100))
    for tenant in ("a", "b", "c"):
        await crowd.ask(tenant, 8)
    assert crowd.now() == {"a": 8, "b": 4, "c": 1}
    for number in range(3):
        await crowd.ask(f"new {number}")
    assert sum(crowd.now().values()) == 16
    await crowd.ask("late")
    assert "late" not in crowd.now()
    await crowd.end("a")
    assert crowd.now()["late"] == 1, "before those that hold slots"


async def test_no_tenant_starves_among_many() -> None:
    """Each of 50 tenants gets a turn before the first, which began with a share of four, has two more."""
    crowd = Crowd(Turns(slots=8, each=4, queued=10_000))
    for number in range(50):
        await crowd.ask(f"t{number}", 10)
    await crowd.end_all()
    counts = Counter[str]()
    for tenant in crowd.begun:
        counts[tenant] += 1
        if counts[tenant] == 6:
            break
    assert len(counts) == 50
    assert len(crowd.begun) == 500


async def test_tenants_share_the_room_for_turns_that_wait() -> None:
    turns = Turns(slots=1, each=1, queued=8)
    crowd = Crowd(turns)
    await crowd.ask("busy", 9)
    assert not turns.has_room("busy")
    assert turns.has_room("other"), "the first of a tenant always may wait"
    await crowd.ask("other", 1)
    assert turns.has_room("other", 3)
    assert not turns.has_room("other", 4)
    await crowd.end_all()
    assert turns.has_room("busy")


async def test_a_turn_that_is_cancelled_frees_what_it_has() -> None:
    crowd = Crowd(Turns(slots=1, each=1, queued=8))
    await crowd.ask("a", 2)
    await crowd.ask("b", 1)
    holding, waiting, last = crowd.tasks
    waiting.cancel()
    holding.cancel()
    await crowd.settle()
    assert crowd.begun == ["a", "b"]
    last.cancel()
    for task in crowd.tasks:
        with suppress(asyncio.CancelledError):
            await task
    await crowd.settle()
    crowd.held.clear()
    await crowd.ask("a")
    assert crowd.now() == {"a": 1}
    await crowd.end_all()


async def test_a_turn_that_is_cancelled_as_it_begins_is_passed_on() -> None:
    turns = Turns(slots=1, each=1, queued=8)
    crowd = Crowd(turns)
    await crowd.ask("a")
    await crowd.ask("b")
    await crowd.ask("c")
    _, given, _ = crowd.tasks
    [(_, end)] = crowd.held
    end.set()
    await asyncio.sleep(0)  # the first ends, and the second has its slot without having run
    given.cancel()
    await crowd.settle()
    assert crowd.begun[-1] == "c"
    await crowd.end_all()
