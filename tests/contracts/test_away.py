"""A memory that is away says so, as the real servers do, whose own tests are with each contract."""

from __future__ import annotations

import pytest

from domain.log import Subject
from handlers.ports.log import Unavailable
from tests.memory import Memory, MemoryBlobs, MemoryEventStore, MemoryKeys, MemoryLog, MemoryOutcomes, MemorySnapshots


async def test_a_memory_that_is_away_is_unavailable_until_it_is_back() -> None:
    memory, subject = Memory(), Subject("acme", "app", "guide")
    asks = [
        lambda: MemoryEventStore(memory).load(subject),
        lambda: MemoryOutcomes(memory).get("acme", "command"),
        lambda: MemoryBlobs(memory).put("acme", b"data"),
        lambda: MemorySnapshots(memory).get(subject),
        lambda: MemoryKeys(memory).person("acme", "ada"),
        lambda: MemoryLog(memory).last("EVENTS"),
    ]
    memory.away = True
    for ask in asks:
        with pytest.raises(Unavailable):
            await ask()
    memory.away = False
    for ask in asks:
        await ask()
