"""Time that a filter of a plugin adds to a call of a model, and that looking for one takes where there is none."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress
from structlog.testing import capture_logs

from adapters.egress.client import Egress
from adapters.plugins import template
from adapters.plugins.environments import Environments
from adapters.plugins.hosts import Containment, Hosts
from adapters.sandbox.choice import choose
from domain.tools.plugin import Hook
from handlers.commands.plugin_package import MANIFEST, pack, read
from handlers.models.filters import filters_of
from handlers.ports.models import ChatMessage, ChatRequest
from handlers.ports.plugins import EnabledPlugin, Reply
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack
from ops.plugins import OneBlob, uv

CALLS = 2000
"""Calls of a figure, at the usual number of questions."""

PROGRAM = """
from headrace_plugin import replace, serve

def before(call):
    messages = [{**each, "content": each["content"].replace("sluice", "gate")} for each in call["messages"]]
    return replace(messages=messages)

serve(globals())
"""

ABOUT = {"id": "a-call", "kind": "chat", "provider": "lab", "model": "small", "app": None}
REQUEST = ChatRequest(
    "small",
    [
        ChatMessage("system", "Answer the question from the numbered passages below. " * 30),
        ChatMessage("user", "When does the sluice open at night, and who has the key?"),
    ],
    512,
)


class _Plugins:
    """The port Plugins for one tenant, without a log."""

    def __init__(self, hosts: Hosts, plugins: Sequence[EnabledPlugin]) -> None:
        self._hosts = hosts
        self.plugins = plugins

    def known(self, tenant: str) -> Sequence[EnabledPlugin]:
        return self.plugins

    async def enabled(self, tenant: str) -> Sequence[EnabledPlugin]:
        return self.plugins

    async def ask(self, plugin: EnabledPlugin, hook: Hook, call: Mapping[str, Any]) -> Reply:
        return await self._hosts.ask(plugin, hook, call)


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    calls = max(20, CALLS * sizes.questions // Sizes().questions)
    bar = bars.add_task("plugin: calls", total=2 * calls)
    manifest = {"name": "bench", "version": "1.0.0", "kind": "filter", "hooks": {"before_invoke": "before"}}
    helper = (Path(template.__path__[0]) / "headrace_plugin.py").read_bytes()
    files = {MANIFEST: json.dumps(manifest).encode(), "main.py": PROGRAM.encode(), "headrace_plugin.py": helper}
    package = read(pack((name, False, data) for name, data in files.items()))
    blob = OneBlob(package.data)
    plugin = EnabledPlugin("bench", "bench", "1.0.0", blob.digest, package.manifest, {}, {}, "none")
    sandbox = (await choose(stack.settings.sandbox)).sandbox

    async def ignore(plugin: EnabledPlugin, reason: str | None) -> None:
        pass

    with capture_logs(), tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        environments = Environments(Path(folder), blob, sandbox, uv())
        hosts = Hosts(environments, Containment(sandbox, Egress(), namespaces=False), lambda tenant, text: text, ignore)
        plugins = _Plugins(hosts, ())
        try:
            none = [await _filtered(plugins) for _ in range(calls)]
            bars.advance(bar, calls)
            plugins.plugins = (plugin,)
            await _filtered(plugins)
            one = [await _filtered(plugins) for _ in range(calls)]
            bars.advance(bar, calls)
        finally:
            await hosts.close()
            await environments.close()
    return [
        Measure("plugin.none.p50", percentile(none, 50), "ms", aim=Aim(at_most=0.01)),
        Measure("plugin.p50", percentile(one, 50), "ms", aim=Aim(at_most=0.5)),
        Measure("plugin.p95", percentile(one, 95), "ms"),
    ]


async def _filtered(plugins: _Plugins) -> float:
    """Milliseconds to find the filters of a call, and to have them handle its request."""
    began = time.perf_counter()
    if filters := await filters_of(plugins, "bench", ABOUT):
        await filters.before(REQUEST)
        filters.take_record()
    return (time.perf_counter() - began) * 1000
