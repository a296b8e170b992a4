"""A plugin: a package that an operator has installed, known to the installation by its name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypedDict, Unpack

from domain import aggregate
from domain.aggregate import Aggregate
from domain.tools.dify import Declared

Hook = Literal["before_invoke", "after_invoke", "on_error", "check", "before_tool", "after_tool"]
"""Places where a plugin is called. `load` and `close` are no hooks on the wire: every plugin is loaded and closed."""

BEFORE: Sequence[Hook] = ("before_invoke", "before_tool", "check")
"""The hooks that run in the order of the plugins; the others run in reverse."""

Kind = Literal["monitor", "filter", "tool", "model", "dify"]
Content = Literal["none", "masked", "full"]
OnFailure = Literal["open", "closed"]
Window = Literal["sentence", "whole"]


class Match(TypedDict):
    """The calls that a plugin is for; an empty list stands for all."""

    kinds: Annotated[list[str], "Kinds of calls, as `chat` or `embedding`."]
    providers: Annotated[list[str], "Providers, by name."]
    models: Annotated[list[str], "Models, by their names at their providers."]
    apps: Annotated[list[str], "Apps, by id."]


class Manifest(TypedDict):
    """The manifest of a package, with every default in place."""

    name: Annotated[str, "Name."]
    version: Annotated[str, "Version, as `1.2.3`."]
    description: Annotated[str, "Description, for people."]
    main: Annotated[str, "File that is started: by Python where it ends with `.py`, else a program."]
    python: Annotated[str, "Version of Python, as `3.12`; empty for that of the workers."]
    dependencies: Annotated[dict[str, str], "Packages from PyPI with the versions that they must have, as `>=2,<3`."]
    hooks: Annotated[dict[str, str], "Hooks of the plugin, each with the function that handles it."]
    kind: Annotated[str, "`monitor`, `filter`, `tool`, `model` or `dify`."]
    match: Annotated[Match, "Calls that the plugin is for."]
    order: Annotated[int, "Place among filters: lower ones run first before a call, and last after it."]
    timeout_ms: Annotated[int, "Time limit of a hook, in milliseconds."]
    on_failure: Annotated[str, "When a hook fails: `open` goes on without it, `closed` fails the call."]
    window: Annotated[
        str, "Parts of an answer that `after_invoke` gets: a `sentence` after the other, or the `whole` answer."
    ]
    settings: Annotated[dict[str, Any], "JSON Schema of the settings; a property with `secret` is sealed."]
    network: Annotated[
        list[str], "Hosts that it may call, as `host` or `host:port`; `*` for every one; empty: no network."
    ]
    memory_mb: Annotated[int, "Limit of its address space, in MiB."]
    api: Annotated[int, "Version of the protocol."]
    instances: NotRequired[Annotated[int, "Maximum number of processes of a worker for a tenant; missing for 1."]]
    dify: NotRequired[Annotated[Declared, "Contents of a package of kind `dify`."]]


class PluginRun(TypedDict):
    """A hook that a filter of a plugin handled."""

    name: Annotated[str, "Plugin."]
    version: Annotated[str, "Version of its package."]
    digest: Annotated[str, "SHA-256 of its package."]
    hook: Annotated[str, "Hook, as `before_invoke`."]
    action: Annotated[str, "`continue`, `replace`, `answer`, `refuse`, or `fail` where the hook failed."]
    changed: Annotated[bool, "True if it changed something."]
    ms: Annotated[float, "Milliseconds that it took."]
    code: Annotated[str | None, "Error code of a hook that failed; null for none."]


class Package(TypedDict):
    """An installed package."""

    package_version: str
    digest: str
    manifest: Manifest
    content: str


Version = Annotated[str, "Version of the package."]
Digest = Annotated[str, "SHA-256 of the package, a blob of the house."]
TheManifest = Annotated[Manifest, "Manifest of the package."]
Texts = Annotated[str, "Texts that a monitor gets: `none`, `masked` or `full`."]


class Plugin(Aggregate):
    """In the house: one package at a time is installed under a name."""

    TOPIC = "plugin"
    package_version: str
    digest: str
    manifest: Manifest
    content: str

    class Event(aggregate.Event):
        pass

    class Installed(Event, aggregate.Created):
        """A package was installed under a name for the first time."""

        TOPIC = "plugin.installed.v1"
        package_version: Version
        digest: Digest
        manifest: TheManifest
        content: Texts

    class Replaced(Event):
        """Another package took the place of the installed one, or a removed plugin was installed again."""

        TOPIC = "plugin.replaced.v1"
        package_version: Version
        digest: Digest
        manifest: TheManifest
        content: Texts

        def apply(self, plugin: Plugin) -> None:
            plugin.deleted = False
            plugin.package_version, plugin.digest = self.package_version, self.digest
            plugin.manifest, plugin.content = self.manifest, self.content

    class Removed(Event):
        """The plugin was removed: no tenant's calls meet it any more."""

        TOPIC = "plugin.removed.v1"

        def apply(self, plugin: Plugin) -> None:
            plugin.deleted = True

    def install(self, at: datetime, **package: Unpack[Package]) -> None:
        """Install a package; the installed one again changes nothing."""
        if self.deleted or (self.digest, self.content) != (package["digest"], package["content"]):
            self.record(self.Replaced, at, **package)

    def remove(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Removed, at)


def secrets(manifest: Manifest) -> frozenset[str]:
    """The names of the settings that are sealed."""
    properties = manifest["settings"].get("properties", {})
    return frozenset(name for name, each in properties.items() if isinstance(each, dict) and each.get("secret"))
