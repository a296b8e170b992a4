"""The storage of plugins: bounded, by tenant and plugin, and erased with the person it was stored for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from domain.log import Metadata
from domain.tools.plugin_storage import MOST_VALUES, PluginStorage, Value
from handlers.ports.tools import Refused
from handlers.tools.storage import MOST_KEY, MOST_VALUE, Storage
from tests.handlers.desk import Desk
from tests.memory import Memory

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


@pytest.fixture
def storage(desk: Desk) -> Storage:
    return Storage(desk.repository, desk.files)


def cause(desk: Desk, person: str | None = None) -> Metadata:
    return Metadata("1", desk.tenant, "1", person=person)


async def test_a_value_is_kept_replaced_and_deleted(desk: Desk, storage: Storage) -> None:
    of = "tides", cause(desk)
    assert await storage.get(*of, "mark") is None
    for value in (b"one", b"two", b"two"):
        await storage.set(*of, "mark", value, 100)
        assert await storage.get(*of, "mark") == value
    assert await storage.exists(*of, "mark")
    await storage.delete(*of, "mark")
    await storage.delete(*of, "mark")
    assert not await storage.exists(*of, "mark")
    types = await desk.types("plugin_storage", "tides")
    assert types == [f"plugin_storage.{step}.v1" for step in ("begun", "stored", "stored", "deleted")]


async def test_plugins_do_not_see_each_others_values(desk: Desk, storage: Storage) -> None:
    await storage.set("tides", cause(desk), "mark", b"one", 100)
    assert await storage.get("gates", cause(desk), "mark") is None


async def test_no_key_is_recorded(desk: Desk, storage: Storage) -> None:
    await storage.set("tides", cause(desk), "notes of ada", b"one", 100)
    [commit] = await desk.commits("plugin_storage", "tides")
    assert "notes" not in str(commit)


async def test_a_value_ends_with_the_person_it_was_stored_for(desk: Desk, storage: Storage) -> None:
    ada = await desk.keys.person(desk.tenant, "ada")
    await storage.set("tides", cause(desk, ada), "mark", b"one", 100)
    await storage.set("tides", cause(desk), "other", b"two", 100)
    assert await storage.get("tides", cause(desk), "mark") == b"one"
    await desk.keys.erase(desk.tenant, ada)
    assert await storage.get("tides", cause(desk), "mark") is None
    assert not await storage.exists("tides", cause(desk), "mark")
    assert await storage.get("tides", cause(desk), "other") == b"two"
    with pytest.raises(Refused, match="erased"):
        await storage.set("tides", cause(desk, ada), "mark", b"one", 100)


async def test_the_storage_is_bounded(desk: Desk, storage: Storage) -> None:
    of = "tides", cause(desk)
    await storage.set(*of, "one", b"x" * 60, 100)
    with pytest.raises(Refused, match="120 bytes, 100 are allowed"):
        await storage.set(*of, "two", b"x" * 60, 100)
    await storage.set(*of, "one", b"x" * 100, 100)
    for key, data in (("", b"x"), ("k" * (MOST_KEY + 1), b"x"), ("one", b"x" * (MOST_VALUE + 1))):
        with pytest.raises(Refused):
            await storage.set(*of, key, data, 2**30)


async def test_the_number_of_values_is_bounded(desk: Desk, storage: Storage) -> None:
    await storage.set("tides", cause(desk), "one", b"x", 100)

    def fill(kept: PluginStorage) -> None:
        for number in range(1, MOST_VALUES):
            kept.store(NOW, key=str(number), value=Value(digest="d", size=1, person=None), most=10**6)

    await desk.change("plugin_storage", "tides", fill)
    with pytest.raises(Refused, match="values already"):
        await storage.set("tides", cause(desk), "more", b"x", 10**6)


async def test_a_tenant_deletes_all_values(desk: Desk, storage: Storage) -> None:
    await storage.set("tides", cause(desk), "mark", b"one", 100)
    await desk.done("plugin.clear", plugin="tides")
    assert await storage.get("tides", cause(desk), "mark") is None
    assert await desk.fails("plugin.clear", plugin="other") == ("not_found", "plugin")
