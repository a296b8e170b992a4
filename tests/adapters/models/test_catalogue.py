"""Facts about models of plugins."""

from __future__ import annotations

from adapters.models.catalogue import LogCatalogue
from domain.access.tenant import HOUSE
from projections.values.prices import Prices
from tests.adapters.plugins.dify_models import FILES, MANIFEST
from tests.dify_packages import unpacked
from tests.handlers.desk import Desk
from tests.memory import Memory
from tests.packages import digest

PACKAGE = unpacked(MANIFEST, FILES, wheels=False)


async def test_a_predefined_model_has_the_facts_of_its_package() -> None:
    desk = Desk(Memory(), "acme")
    await desk.blobs.put(HOUSE, PACKAGE)
    await desk.done("plugin.install", plugin="models", package=digest(PACKAGE))
    await desk.done("provider.register", name="lab", kind="dify", base_url="plugin://models/lab", check=False)
    catalogue = LogCatalogue(desk.ports.repository, Prices())
    facts = await catalogue.facts("acme", "lab", "small")
    assert (facts["type"], facts["context_window"], facts["max_output"]) == ("chat", 8192, 1024)
    assert facts["abilities"] == {"tools": True}
    assert facts["prices"] == {"input": 0.5, "output": 1.5, "cached": None, "cache_write": None}
    assert (await catalogue.known("acme", "lab", "small")).prices == (0.5, 1.5)
    assert (await catalogue.facts("acme", "lab", "other"))["context_window"] is None
