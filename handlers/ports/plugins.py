"""Port of plugins: those that a tenant has enabled, and their hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from domain.tools.plugin import Hook, Manifest


class EnabledPlugin(NamedTuple):
    """A plugin that a tenant has enabled, with its installed package.

    `content`: the texts that a monitor gets, as far as operator and tenant let it: `none`, `masked` or `full`.
    `suspended`: it failed too often; with another number of `starts`, earlier failures do not count.
    """

    tenant: str
    name: str
    version: str
    digest: str
    manifest: Manifest
    settings: Mapping[str, Any]
    secrets: Mapping[str, str]
    content: str
    suspended: bool = False
    starts: int = 0


class Reply(NamedTuple):
    """The reply to a hook, by a package that may be older than the enabled one while that is started.

    `fields` are those of the protocol: `action`, and what it needs.
    """

    version: str
    digest: str
    fields: Mapping[str, Any]


class PluginFailed(Exception):
    """A hook has no reply: `code` is `timeout`, `died`, `unusable`, `suspended` or `invalid_reply`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Plugins(Protocol):
    def known(self, tenant: str) -> Sequence[EnabledPlugin] | None:
        """The enabled plugins of a tenant, from memory; None when they must be loaded."""
        ...

    async def enabled(self, tenant: str) -> Sequence[EnabledPlugin]:
        """The enabled plugins of a tenant, by order and name. Raises: Unavailable."""
        ...

    async def ask(self, plugin: EnabledPlugin, hook: Hook, call: Mapping[str, Any]) -> Reply:
        """Have a plugin handle a hook, within its time limit. Raises: PluginFailed."""
        ...
