"""The tools of a provider in a package of Dify, as a toolset of kind `plugin`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from adapters.models.withheld import Withheld
from adapters.plugins.dify import DifyError, DifyPlugins, Session, declared, tools_of
from adapters.tools.plugin.call_backs import Answering, Asking
from adapters.tools.plugin.parameters import arguments, completed, definition
from adapters.tools.plugin.results import Results
from domain.tools.dify import ToolProvider
from domain.tools.toolset import Toolset
from handlers.ports.plugins import EnabledPlugin, PluginFailed
from handlers.ports.tools import Invocation, Listing, Result, ToolError

VALIDATION_S = 60.0
"""Time limit of the check of credentials, in seconds."""

CODES = (
    ("Authorization", "unauthorized"),
    ("Credential", "unauthorized"),
    ("OAuth", "unauthorized"),
    ("RateLimit", "rate_limited"),
    ("ServerUnavailable", "unreachable"),
    ("Connection", "unreachable"),
    ("Connect", "unreachable"),
    ("Timeout", "timeout"),
    ("BadRequest", "bad_request"),
    ("TooLarge", "too_large"),
)
"""Error codes by parts of the names of exceptions."""

OF_PLUGINS = {"timeout": "timeout", "died": "server_error", "unusable": "unsupported", "suspended": "unreachable"}


@dataclass(frozen=True, slots=True)
class PluginToolbox:
    """A Toolbox of one provider of tools. What a tool says has stars in place of the secrets that it was given."""

    tenant: str
    plugins: DifyPlugins
    settings: Mapping[str, Any]
    credentials: Mapping[str, Any]
    timeout_s: float
    answering: Answering | None = None
    server = ""

    async def list(self) -> Listing:
        """The tools of the package, once the credentials are found valid. Raises: ToolError."""
        plugin, provider = await self._provider()
        if provider["credentials"]:
            await self._validate(plugin, provider)
        warnings = [each for each in declared(plugin)["warnings"] if each.startswith("Tool ")]
        return Listing([definition(tool) for tool in provider["tools"]], warnings)

    async def call(self, invocation: Invocation) -> Result:
        plugin, provider = await self._provider()
        name = invocation.tool["name"]
        tool = next((each for each in provider["tools"] if each["name"] == name), None)
        if tool is None:
            raise ToolError("not_found", f"The plugin {plugin.name} has no tool {name} any more.")
        settings = self.settings["parameters"].get(name, {})
        data = {
            "type": "tool",
            "action": "invoke_tool",
            "provider": provider["name"],
            "tool": name,
            "credentials": completed(provider["credentials"], self.credentials),
            "credential_type": "api-key",
            "tool_parameters": arguments(tool, invocation.arguments, settings),
        }
        cause = invocation.cause
        message, results = cause.id if cause.noun == "message" else "", Results()
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(asyncio.timeout(self.timeout_s))
                answers = None
                if self.answering and invocation.backs:
                    asking = Asking(plugin, invocation.backs, cause.metadata.caused(invocation.id), results.file)
                    answers = stack.enter_context(self.answering.to(asking))
                session = Session(user=invocation.user, message=message, app=cause.app or "", answers=answers)
                pieces = self.plugins.stream(plugin, data, session)
                await stack.enter_async_context(aclosing(pieces))
                async for piece in pieces:
                    results.add(self._cleansed(piece))
        except TimeoutError:
            raise ToolError("timeout", f"The tool took longer than {self.timeout_s:g} s.") from None
        except (DifyError, PluginFailed) as error:
            raise self._error(error) from None
        return results.result()

    async def _provider(self) -> tuple[EnabledPlugin, ToolProvider]:
        """Raises: ToolError, Unavailable."""
        try:
            plugin = await self.plugins.plugin(self.tenant, self.settings["name"])
            return plugin, tools_of(plugin, self.settings["provider"])
        except PluginFailed as error:
            raise self._error(error) from None

    async def _validate(self, plugin: EnabledPlugin, provider: ToolProvider) -> None:
        """Raises: ToolError."""
        data = {
            "type": "tool",
            "action": "validate_tool_credentials",
            "provider": provider["name"],
            "credentials": completed(provider["credentials"], self.credentials),
        }
        try:
            async with asyncio.timeout(VALIDATION_S):
                await self.plugins.one(plugin, data, Session())
        except TimeoutError:
            raise ToolError("timeout", f"The credentials were not checked within {VALIDATION_S:g} s.") from None
        except DifyError as error:
            if error.type == "NotImplementedError":
                return
            found = self._error(error)
            code = "unauthorized" if found.code == "server_error" else found.code
            raise ToolError(code, f"The credentials are not valid: {found.reason}") from None
        except PluginFailed as error:
            raise self._error(error) from None

    def _error(self, error: DifyError | PluginFailed) -> ToolError:
        if isinstance(error, PluginFailed):
            return ToolError(OF_PLUGINS.get(error.code, "server_error"), error.reason)
        code = next((code for part, code in CODES if part in error.type), "server_error")
        return ToolError(code, self._stars(f"{error.type}: {error.message}")[:1000])

    def _cleansed(self, piece: dict[str, Any]) -> Mapping[str, Any]:
        if piece.get("type") in ("blob", "blob_chunk") or not self.credentials:
            return piece
        return orjson.loads(self._stars(orjson.dumps(piece).decode()))  # type: ignore[no-any-return]

    def _stars(self, text: str) -> str:
        return Withheld([value for value in self.credentials.values() if isinstance(value, str)]).text(text)


@dataclass(frozen=True, slots=True)
class PluginToolboxes:
    """Makes the toolboxes of toolsets of kind `plugin`."""

    plugins: DifyPlugins
    unseal: Callable[[str, str], str]
    """Opens a sealed secret of a tenant."""
    answering: Answering | None = None

    def __call__(self, tenant: str, toolset: Toolset) -> PluginToolbox:
        """Raises: ToolError."""
        secret = self.unseal(tenant, toolset.secret["sealed"]) if toolset.secret else ""
        try:
            credentials = orjson.loads(secret) if secret else {}
        except orjson.JSONDecodeError:
            credentials = None
        if not isinstance(credentials, dict):
            raise ToolError("unauthorized", "The secret of the toolset is no JSON object with the fields of the form.")
        return PluginToolbox(tenant, self.plugins, toolset.settings, credentials, toolset.timeout_s, self.answering)
