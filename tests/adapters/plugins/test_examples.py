"""The plugins of the examples, in real hosts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from domain.access.tenant import HOUSE
from handlers.ports.plugins import EnabledPlugin
from ops.plugin_files import packed
from tests.adapters.plugins.conftest import Site
from tests.packages import digest

EXAMPLES = Path(__file__).parents[3] / "examples" / "plugins"

PERSONAL = [
    ("Write to ada.lovelace+x@example.co.uk!", "Write to ‹email-1›!"),
    ("Call +49 30 123456-78 or 030/1234567.", "Call ‹phone-1› or ‹phone-2›."),
    ("Card 4111 1111 1111 1111, please.", "Card ‹card-1›, please."),
    ("IBAN DE89 3704 0044 0532 0130 00 it is.", "IBAN ‹iban-1› it is."),
    ("From 192.168.4.17 to 192.168.4.17.", "From ‹ip-1› to ‹ip-1›."),
    ("a@b.de, c@d.de, a@b.de", "‹email-1›, ‹email-2›, ‹email-1›"),
]
PLAIN = [
    "In 1987, 250 gates opened.",
    "Version 3.11.4 of 2026-03-01.",
    "Order 4111 1111 1111 1112?",
    "Room 101 at 18:05",
]


async def example(site: Site, name: str, **settings: Any) -> EnabledPlugin:
    package = packed(EXAMPLES / name)
    await site.blobs.put(HOUSE, package.data)
    known = package.manifest
    return EnabledPlugin("acme", name, known["version"], digest(package.data), known, settings, {}, "none")


async def sent(site: Site, plugin: EnabledPlugin, text: str, id: str = "1") -> str:
    call = {"id": id, "messages": [{"role": "user", "content": text}], "passages": []}
    reply = await site.hosts.ask(plugin, "before_invoke", call)
    return str(reply.fields["messages"][0]["content"]) if reply.fields["action"] == "replace" else text


async def said(site: Site, plugin: EnabledPlugin, text: str, id: str = "1", *, last: bool = True) -> str:
    reply = await site.hosts.ask(plugin, "after_invoke", {"id": id, "response": text, "last": last})
    return str(reply.fields.get("response", text))


async def test_personal_data_are_masked_and_other_numbers_are_not(site: Site) -> None:
    plugin = await example(site, "pii")
    for text, masked in PERSONAL:
        assert await sent(site, plugin, text) == masked
        assert await said(site, plugin, text) == masked
    for text in PLAIN:
        assert await sent(site, plugin, text) == text


async def test_a_tenant_chooses_the_kinds(site: Site) -> None:
    plugin = await example(site, "pii", kinds=["email"])
    assert await sent(site, plugin, "a@b.de from 192.168.4.17") == "‹email-1› from 192.168.4.17"


async def test_originals_come_back_for_the_call_that_they_are_of(site: Site) -> None:
    plugin = await example(site, "pii", restore=True)
    await sent(site, plugin, "I am ada@example.com", "one")
    await sent(site, plugin, "I am bob@example.com", "two")
    assert await said(site, plugin, "Hello ‹email-1›. ", "one", last=False) == "Hello ada@example.com. "
    assert await said(site, plugin, "Bye ‹email-1› and ‹email-2›.", "one") == "Bye ada@example.com and ‹email-2›."
    assert await said(site, plugin, "Hello ‹email-1›.", "two") == "Hello bob@example.com."
    assert await said(site, plugin, "Hello ‹email-1›.", "one") == "Hello ‹email-1›."  # it is forgotten


async def test_texts_of_messages_are_checked(site: Site) -> None:
    plugin = await example(site, "pii")
    call = {"id": "1", "where": "input", "texts": {"query": "I am ada@example.com", "inputs.tone": "calm"}}
    reply = await site.hosts.ask(plugin, "check", call)
    assert reply.fields["texts"] == {"query": "I am ‹email-1›", "inputs.tone": "calm"}


@pytest.mark.parametrize("text", ["a." * 50_000, "1 " * 50_000, "@" * 100_000, "DE12 " * 20_000, "1-" * 50_000])
async def test_hostile_texts_take_bounded_time(site: Site, text: str) -> None:
    plugin = await example(site, "pii")
    plugin = plugin._replace(manifest={**plugin.manifest, "timeout_ms": 20_000})
    await sent(site, plugin, "warm")
    began = time.monotonic()
    await sent(site, plugin, text)
    assert time.monotonic() - began < 5


def test_every_example_is_a_package() -> None:
    for folder in EXAMPLES.iterdir():
        manifest = json.loads((folder / "plugin.json").read_text())
        assert manifest["name"] == folder.name
