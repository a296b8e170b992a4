"""A lab: packages of Dify that the tenant `acme` has enabled, and a server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from adapters.plugins.dify import DifyPlugins
from adapters.tools.plugin.call_backs import Answering
from domain.access.tenant import HOUSE
from handlers.ports.models import ChatUsage, Delta, ToolCall
from handlers.ports.plugins import EnabledPlugin
from handlers.ports.tools import AskedModel, Result
from handlers.tools.storage import Storage
from tests.adapters.plugins.conftest import Site
from tests.dify_packages import package
from tests.handlers.desk import Desk
from tests.memory import Memory
from tests.packages import digest


class Backs:
    """Calls back that a plugin makes: a model says one of these at each, a tool gives its name and its arguments."""

    def __init__(self, *says: str | Exception | tuple[str, Sequence[ToolCall]]) -> None:
        self.says = list(says)
        self.models: list[AskedModel] = []
        self.tools: list[tuple[str, str, dict[str, Any]]] = []

    async def model(self, asked: AskedModel) -> AsyncGenerator[Delta]:
        self.models.append(asked)
        said = self.says[0] if len(self.says) == 1 else self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        text, calls = said if isinstance(said, tuple) else (said, ())
        for word in text.split(" "):
            yield Delta(word if text.startswith(word) else f" {word}")
        yield Delta("", "stop", ChatUsage(10, 5), tool_calls=calls)

    async def tool(self, toolset: str, tool: str, arguments: dict[str, Any]) -> Result:
        self.tools.append((toolset, tool, arguments))
        return Result(f"{tool} of {toolset}: 42")


class Lab:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.plugins: list[EnabledPlugin] = []
        self.dify = DifyPlugins(self, site.hosts)  # type: ignore[arg-type]  # only `enabled` is called
        desk = Desk(Memory(), "acme")
        self.answering = Answering(
            Storage(desk.repository, desk.files), site.hosts.uploads if site.hosts.have_proxies else None
        )

    async def enabled(self, tenant: str) -> Sequence[EnabledPlugin]:
        return [plugin._replace(tenant=tenant) for plugin in self.plugins]

    async def add(self, manifest: dict[str, Any], files: dict[str, str]) -> EnabledPlugin:
        made = package(manifest, files)
        await self.site.blobs.put(HOUSE, made.data)
        known = made.manifest
        plugin = EnabledPlugin("acme", known["name"], known["version"], digest(made.data), known, {}, {}, "none")
        self.plugins.append(plugin)
        return plugin


class served:
    """A server on loopback that answers each request by a function of its head and its body, until it is left."""

    def __init__(self, answer: Callable[[str, bytes], bytes]) -> None:
        self._answer = answer
        self.heads: list[str] = []

    async def __aenter__(self) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            sizes = [line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length")]
            body = await reader.readexactly(int(sizes[0])) if sizes else b""
            answer = self._answer(head, body)
            said = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n"
            writer.write(said.encode() + answer)
            await writer.drain()
            writer.close()

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
