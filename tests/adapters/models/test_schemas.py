"""Answers checked in contained processes, within a time limit."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adapters.models import schemas
from adapters.models.schemas import ContainedSchemas
from adapters.sandbox.choice import choose
from handlers.ports.models import ModelError


@pytest.fixture
async def contained() -> AsyncIterator[ContainedSchemas]:
    async with ContainedSchemas((await choose("auto")).sandbox) as found:
        yield found


SCHEMA = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}


async def test_the_fault_of_an_answer_comes_back(contained: ContainedSchemas) -> None:
    assert await contained.fault("default", SCHEMA, '{"hour": 6}') is None
    found = await contained.fault("default", SCHEMA, '{"hour": "сек\ud800"}')
    assert found
    assert found.startswith("hour: ")
    assert "at most" in str(await contained.fault("default", SCHEMA, " " * 300_000))


async def test_a_pattern_without_end_is_ended(contained: ContainedSchemas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "SECONDS", 0.5)
    slow = {"type": "object", "properties": {"x": {"pattern": "^(a|a)*(a|a)*(a|a)*b"}}}
    assert await contained.fault("default", SCHEMA, '{"hour": 6}') is None  # it is warm
    with pytest.raises(ModelError) as caught:
        await contained.fault("default", slow, f'{{"x": "{"a" * 200}"}}')
    assert caught.value.code == "timeout"
    assert await contained.fault("default", SCHEMA, '{"hour": 6}') is None
