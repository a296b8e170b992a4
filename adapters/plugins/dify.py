"""Requests to Dify's plugins: each is a session, whose pieces come as they are made, and which may call back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

import structlog

from adapters.plugins.dify_protocol import request, response, said
from adapters.plugins.hosts import Hosts, Send
from adapters.plugins.process import Ended
from domain.tools.dify import Declared, ModelProvider, ToolProvider
from handlers.ports.plugins import EnabledPlugin, PluginFailed, Plugins

log = structlog.get_logger(__name__)

MOST_PIECES, MOST_BYTES = 200_000, 128 * 2**20
"""Maximum number of pieces of a result, and their size together as JSON, in bytes."""

AT_ONCE = 16
"""Maximum number of calls back of a session at a time."""

Answers = Callable[[str, dict[str, Any]], AsyncIterator[dict[str, Any]]]
"""Answers a call back: takes its type and its request, and yields the pieces of the reply. Raises: CallBackRefused."""


class DifyError(Exception):
    """A plugin's own error: `type` is the name of its exception."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.message = message


class CallBackRefused(Exception):
    """A call back cannot be made; the plugin reads why."""


class Session(NamedTuple):
    """The place that a request comes from: ids of Headrace, empty where there is none, and its answers to calls
    back."""

    user: str = ""
    conversation: str = ""
    message: str = ""
    app: str = ""
    answers: Answers | None = None


class DifyPlugins:
    """The plugins of kind `dify` that tenants have enabled."""

    def __init__(self, plugins: Plugins, hosts: Hosts) -> None:
        self._plugins = plugins
        self._hosts = hosts

    async def plugin(self, tenant: str, name: str) -> EnabledPlugin:
        """Raises: PluginFailed `unusable`; Unavailable."""
        for plugin in await self._plugins.enabled(tenant):
            if plugin.name == name and "dify" in plugin.manifest:
                return plugin
        raise PluginFailed("unusable", f"The tenant has not enabled the plugin {name}: send plugin.enable first.")

    async def stream(
        self, plugin: EnabledPlugin, data: Mapping[str, Any], session: Session
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the pieces of the result; the caller sets a time limit. Raises: DifyError, PluginFailed."""
        id = uuid.uuid4().hex
        where = {"conversation": session.conversation, "message": session.message, "app": session.app}
        message = request(id, {"user_id": session.user or "headrace", **data}, **where)
        calls: set[asyncio.Task[None]] = set()
        failed: DifyError | None = None
        pieces = size = 0
        try:
            async with aclosing(self._hosts.host(plugin).stream(plugin, id, message)) as replies:
                async for reply, send in replies:
                    kind, content = said(reply)
                    if kind == "stream":
                        pieces, size = pieces + 1, size + _size(content)
                        if pieces > MOST_PIECES or size > MOST_BYTES:
                            raise DifyError("TooLarge", f"The result has more than {MOST_BYTES:,} bytes.")
                        yield content
                    elif kind == "error" and failed is None:
                        failed = DifyError(str(content.get("error_type")), str(content.get("message"))[:2000])
                    elif kind == "invoke":
                        if len(calls) >= AT_ONCE:
                            raise DifyError("TooLarge", f"It makes more than {AT_ONCE} calls back at a time.")
                        task = asyncio.create_task(_answer(session, id, content, send))
                        calls.add(task)
                        task.add_done_callback(calls.discard)
        finally:
            for task in calls:
                task.cancel()
            if calls:  # what they record is recorded before the session ends
                await asyncio.wait(calls)
        if failed:
            raise failed

    async def one(self, plugin: EnabledPlugin, data: Mapping[str, Any], session: Session) -> dict[str, Any]:
        """The only piece of a result. Raises: DifyError, PluginFailed."""
        async with aclosing(self.stream(plugin, data, session)) as pieces:
            found = [piece async for piece in pieces]
        if not found:
            raise DifyError("NoResult", f"The plugin {plugin.name} gave no result for {data.get('action')}.")
        return found[0]


async def _answer(session: Session, id: str, content: Mapping[str, Any], send: Send) -> None:
    """Answer a call back by one or more lines."""
    kind, number = str(content.get("type")), str(content.get("backwards_request_id"))
    asked = content.get("request")
    with suppress(Ended):
        try:
            if session.answers is None or not isinstance(asked, dict):
                raise CallBackRefused(f"Headrace answers no calls back of type {kind} here.")
            async for piece in session.answers(kind, asked):
                send(response(id, number, "response", piece))
        except CallBackRefused as refused:
            send(response(id, number, "error", None, str(refused)))
        except Exception as error:
            log.exception("plugin.call_back", type=kind)
            send(response(id, number, "error", None, f"The call back failed: {type(error).__name__}."))
        send(response(id, number, "end", None))


def _size(content: Mapping[str, Any]) -> int:
    """About the size of a piece: that of its texts."""
    message = content.get("message")
    inner = message if isinstance(message, dict) else content
    return 100 + sum(len(each) for each in inner.values() if isinstance(each, str))


def declared(plugin: EnabledPlugin) -> Declared:
    return plugin.manifest["dify"]


def tools_of(plugin: EnabledPlugin, name: str) -> ToolProvider:
    """A provider of tools; an empty name stands for the only one. Raises: PluginFailed `unusable`."""
    found = declared(plugin)["tools"]
    for each in found:
        if each["name"] == name or (not name and len(found) == 1):
            return each
    names = ", ".join(each["name"] for each in found) or "none"
    raise PluginFailed("unusable", f"The plugin {plugin.name} has no tools {name!r}; it has {names}.")


def models_of(plugin: EnabledPlugin, name: str) -> ModelProvider:
    """A provider of models; an empty name stands for the only one. Raises: PluginFailed `unusable`."""
    found = declared(plugin)["models"]
    for each in found:
        if each["name"] == name or (not name and len(found) == 1):
            return each
    names = ", ".join(each["name"] for each in found) or "none"
    raise PluginFailed("unusable", f"The plugin {plugin.name} has no models {name!r}; it has {names}.")
