"""Installing plugins, and their use by tenants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import pytest

from domain.aggregate import Event, Rejection
from domain.tools.plugin import Manifest, Package, Plugin, secrets
from domain.tools.plugin_use import PluginUse, must_be_used

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MANIFEST = cast("Manifest", {"settings": {"properties": {"key": {"secret": True}, "mark": {"type": "string"}}}})
PACKAGE = Package(package_version="1.0.0", digest="a" * 64, manifest=MANIFEST, content="none")
NEWER = Package(package_version="1.1.0", digest="b" * 64, manifest=MANIFEST, content="none")
READING = Package(package_version="1.1.0", digest="b" * 64, manifest=MANIFEST, content="full")


def installed() -> Plugin:
    plugin = Plugin.begin(Plugin.Installed, "mask", NOW, **PACKAGE)
    plugin.pending()
    return plugin


def topics(events: list[Event]) -> list[str]:
    return [event.TOPIC for event in events]


def test_the_same_package_again_changes_nothing() -> None:
    plugin = installed()
    plugin.install(NOW, **PACKAGE)
    assert plugin.pending() == []


def test_another_package_replaces_it() -> None:
    plugin = installed()
    plugin.install(NOW, **NEWER)
    assert (plugin.package_version, plugin.digest) == ("1.1.0", "b" * 64)
    plugin.install(NOW, **READING)
    assert plugin.content == "full"
    assert topics(plugin.pending()) == ["plugin.replaced.v1"] * 2


def test_a_removed_plugin_can_be_installed_again() -> None:
    plugin = installed()
    plugin.remove(NOW)
    plugin.remove(NOW)
    assert plugin.deleted
    plugin.install(NOW, **PACKAGE)
    assert not plugin.deleted
    assert topics(plugin.pending()) == ["plugin.removed.v1", "plugin.replaced.v1"]


def test_secret_settings_are_marked_in_the_schema() -> None:
    assert secrets(MANIFEST) == {"key"}


def used() -> PluginUse:
    use = PluginUse.begin(PluginUse.Begun, "mask", NOW)
    use.enable(NOW, content=True)
    use.pending()
    return use


def test_enabling_again_changes_nothing_unless_texts_are_refused() -> None:
    use = used()
    use.enable(NOW, content=True)
    assert use.pending() == []
    use.enable(NOW, content=False)
    assert topics(use.pending()) == ["plugin_use.enabled.v1"]


def test_a_suspended_use_is_resumed_or_enabled_again() -> None:
    use = used()
    use.suspend(NOW, digest="a", reason="It ended.")
    use.suspend(NOW, digest="a", reason="It ended.")
    assert use.suspended == "a"
    use.resume(NOW, digest="a")
    use.resume(NOW, digest="a")
    use.suspend(NOW, digest="a", reason="It ended.")
    use.enable(NOW, content=True)
    assert use.suspended is None
    assert [topic.split(".")[1] for topic in topics(use.pending())] == ["suspended", "resumed", "suspended", "enabled"]


def test_a_disabled_use_is_not_suspended() -> None:
    use = used()
    use.disable(NOW)
    use.disable(NOW)
    use.suspend(NOW, digest="a", reason="It ended.")
    assert topics(use.pending()) == ["plugin_use.disabled.v1"]


def test_what_is_not_used_cannot_be_disabled() -> None:
    with pytest.raises(Rejection, match="does not use"):
        must_be_used(None, "mask")
