"""Plugins of packages, run by real hosts in the strongest sandbox of this machine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from adapters.egress.addresses import allowances
from adapters.egress.client import Egress
from adapters.plugins.environments import Environments
from adapters.plugins.hosts import Containment, Hosts
from adapters.sandbox.choice import choose
from domain.access.tenant import HOUSE
from handlers.commands.plugin_package import parse
from handlers.ports.plugins import EnabledPlugin
from tests.memory import Memory, MemoryBlobs
from tests.packages import digest, manifest, package


class Site:
    """Hosts, and the packages that they can start; `suspended` are the reasons that were recorded, None for a plugin
    that works again."""

    def __init__(self, home: Path, sandbox: Any) -> None:
        self.blobs = MemoryBlobs(Memory())
        self.suspended: list[str | None] = []
        self.environments = Environments(home, self.blobs, sandbox, Path(find_uv_bin()))
        egress = Egress()
        self.egress = egress
        containment = Containment(sandbox, egress, namespaces=sandbox.kind == "bubblewrap")
        self.hosts = Hosts(self.environments, containment, lambda tenant, sealed: sealed, self._suspend, "0")

    async def _suspend(self, plugin: EnabledPlugin, reason: str | None) -> None:
        self.suspended.append(reason)

    def allow(self, entry: str) -> None:
        """Allow an address, as a setting of the operator does."""
        self.egress._allowed, self.egress._rules = allowances(entry), None

    async def plugin(
        self, program: str, tenant: str = "acme", settings: dict[str, Any] | None = None, **fields: Any
    ) -> EnabledPlugin:
        """A plugin whose package has this program, with these fields of the manifest."""
        whole = manifest(**fields)
        data = package(program, whole)
        await self.blobs.put(HOUSE, data)
        parsed = parse(json.dumps(whole).encode())
        return EnabledPlugin(
            tenant, parsed["name"], parsed["version"], digest(data), parsed, settings or {}, {}, "none"
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, (await choose()).sandbox)
    yield site
    await site.hosts.close()
    await site.environments.close()
