"""The use of an installed plugin by a tenant: its settings, and its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Annotated, Any

from domain import aggregate
from domain.aggregate import Aggregate, ErrorMessage, Rejection


class PluginUse(Aggregate):
    """The id is the name of the plugin."""

    TOPIC = "plugin_use"
    enabled: bool = field(default=False, init=False)
    content: bool = field(default=True, init=False)
    """A monitor may get texts, as far as the operator lets it."""
    settings: dict[str, Any] = field(default_factory=dict, init=False)
    secrets: dict[str, str] = field(default_factory=dict, init=False)
    suspended: str | None = field(default=None, init=False)
    """Digest of the package that failed too often; None when it works."""
    starts: int = field(default=0, init=False)
    """Number of times that the tenant enabled or configured it: failures before the last time do not count."""

    class Event(aggregate.Event):
        pass

    class Begun(Event, aggregate.Created):
        """A tenant uses the plugin for the first time."""

        TOPIC = "plugin_use.begun.v1"

    class Configured(Event):
        """The tenant gave the plugin these settings, in place of earlier ones."""

        TOPIC = "plugin_use.configured.v1"
        settings: Annotated[dict[str, Any], "Settings that are no secrets."]
        secrets: Annotated[dict[str, str], "Secret settings, each as JSON and encrypted."]

        def apply(self, use: PluginUse) -> None:
            use.settings, use.secrets = self.settings, self.secrets
            use.suspended = None
            use.starts += 1

    class Enabled(Event):
        """The calls of the tenant meet the plugin from now on."""

        TOPIC = "plugin_use.enabled.v1"
        content: Annotated[bool, "True if a monitor may get texts, as far as the operator lets it."]

        def apply(self, use: PluginUse) -> None:
            use.enabled, use.content, use.suspended = True, self.content, None
            use.starts += 1

    class Disabled(Event):
        """The calls of the tenant do not meet the plugin any more."""

        TOPIC = "plugin_use.disabled.v1"

        def apply(self, use: PluginUse) -> None:
            use.enabled, use.suspended = False, None

    class Suspended(Event):
        """The plugin failed too often in a row. A worker tries it again each minute."""

        TOPIC = "plugin_use.suspended.v1"
        digest: Annotated[str, "SHA-256 of the package that failed."]
        reason: ErrorMessage

        def apply(self, use: PluginUse) -> None:
            use.suspended = self.digest

    class Resumed(Event):
        """The plugin works again."""

        TOPIC = "plugin_use.resumed.v1"
        digest: Annotated[str, "SHA-256 of the package that works."]

        def apply(self, use: PluginUse) -> None:
            use.suspended = None

    def configure(self, at: datetime, *, settings: dict[str, Any], secrets: Mapping[str, str]) -> None:
        self.record(self.Configured, at, settings=settings, secrets=dict(secrets))

    def enable(self, at: datetime, *, content: bool) -> None:
        if not self.enabled or self.content != content or self.suspended:
            self.record(self.Enabled, at, content=content)

    def disable(self, at: datetime) -> None:
        if self.enabled:
            self.record(self.Disabled, at)

    def suspend(self, at: datetime, *, digest: str, reason: str) -> None:
        if self.enabled and self.suspended != digest:
            self.record(self.Suspended, at, digest=digest, reason=reason)

    def resume(self, at: datetime, *, digest: str) -> None:
        if self.enabled and self.suspended is not None:
            self.record(self.Resumed, at, digest=digest)


def must_be_used(use: PluginUse | None, name: str) -> PluginUse:
    """The use of a plugin. Raises: Rejection `not_found`."""
    if use is None:
        raise Rejection("not_found", f"The tenant does not use the plugin {name}.", "plugin")
    return use
