"""Commands of plugins: an operator installs them, a tenant uses them."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, JsonValue

from domain.access.tenant import HOUSE
from domain.aggregate import Rejection
from domain.tools.plugin import Content, Package, Plugin, secrets
from domain.tools.plugin_storage import PluginStorage
from domain.tools.plugin_use import PluginUse, must_be_used
from handlers.commands import plugin_package
from handlers.commands.fields import Command, Ref, Sha256, at_most
from handlers.commands.plugin_package import PluginName
from handlers.commands.preparation import MakeOrChange, Preparation, not_found


class InstallPlugin(Command):
    """Install a package, a zip file with `plugin.json`, or install another version in its place, for tenants to
    enable."""

    plugin: PluginName = Field(description="Name of the plugin, as in its manifest")
    package: Annotated[Sha256, Field(description="SHA-256 of the package, a blob of the house, in hex")]
    content: Content = Field(
        "none", description="Texts of calls that a monitor gets: none, with personal data masked, or in full"
    )


class RemovePlugin(Command):
    """Remove a plugin: no call meets it any more. Settings of tenants stay, for when it is installed again."""

    plugin: Annotated[PluginName, Ref(Plugin)]


class EnablePlugin(Command):
    """Let the calls of the tenant meet an installed plugin. A suspended one is tried again at once."""

    plugin: PluginName
    content: bool = Field(True, description="Let a monitor have texts, as far as the operator does; false refuses")


class DisablePlugin(Command):
    """Let no more calls of the tenant meet a plugin."""

    plugin: PluginName


class ConfigurePlugin(Command):
    """Give a plugin its settings for the tenant, in place of earlier ones. Secrets that are left out stay."""

    plugin: PluginName
    settings: Annotated[dict[str, JsonValue], at_most(kib=64)] = Field(
        description="Settings, by the schema in the manifest of the plugin"
    )


class ClearPlugin(Command):
    """Delete all values that a plugin keeps for the tenant."""

    plugin: PluginName


async def install(command: InstallPlugin, given: Preparation) -> MakeOrChange[Plugin]:
    missing = Rejection("not_found", f"There is no blob {command.package} in the house.", "package")
    if (size := await given.ports.blobs.size(given.tenant, command.package)) is None:
        raise missing
    if size > plugin_package.MOST_BYTES:
        sentence = f"It has {size:,} bytes, at most {plugin_package.MOST_BYTES:,} are allowed."
        raise Rejection("invalid_package", sentence, "package")
    try:
        data = await given.ports.blobs.get(given.tenant, command.package)
    except (KeyError, ValueError):
        raise missing from None
    manifest = (await asyncio.to_thread(plugin_package.read, data)).manifest
    if manifest["name"] != command.plugin:
        raise Rejection("invalid", f"The manifest has the name {manifest['name']}.", "plugin")
    await given.ports.blobs.keep(given.tenant, command.package)

    def decide(plugin: Plugin | None, id: str, at: datetime) -> Plugin:
        installed = Package(
            package_version=manifest["version"], digest=command.package, manifest=manifest, content=command.content
        )
        if plugin is None:
            return Plugin.begin(Plugin.Installed, id, at, **installed)
        plugin.install(at, **installed)
        return plugin

    return decide


async def enable(command: EnablePlugin, given: Preparation) -> MakeOrChange[PluginUse]:
    plugin = await _installed(given, command.plugin)
    required = plugin.manifest["settings"].get("required", [])

    def decide(use: PluginUse | None, id: str, at: datetime) -> PluginUse:
        use = use or PluginUse.begin(PluginUse.Begun, id, at)
        if missing := [name for name in required if name not in use.settings and name not in use.secrets]:
            sentence = f"The plugin needs the setting {missing[0]}: send plugin.configure first."
            raise Rejection("not_configured", sentence, "plugin")
        use.enable(at, content=command.content)
        return use

    return decide


async def disable(command: DisablePlugin, given: Preparation) -> MakeOrChange[PluginUse]:
    def decide(use: PluginUse | None, id: str, at: datetime) -> PluginUse:
        use = must_be_used(use, id)
        use.disable(at)
        return use

    return decide


async def clear(command: ClearPlugin, given: Preparation) -> MakeOrChange[PluginStorage]:
    def decide(storage: PluginStorage | None, id: str, at: datetime) -> PluginStorage:
        if storage is None:
            raise Rejection("not_found", f"The plugin {id} keeps nothing for the tenant.", "plugin")
        storage.clear(at)
        return storage

    return decide


async def configure(command: ConfigurePlugin, given: Preparation) -> MakeOrChange[PluginUse]:
    plugin = await _installed(given, command.plugin)
    schema, secret = plugin.manifest["settings"], secrets(plugin.manifest)
    plain: dict[str, Any] = {name: value for name, value in command.settings.items() if name not in secret}
    new = {
        name: given.ports.vault.seal(given.tenant, json.dumps(value))
        for name, value in command.settings.items()
        if name in secret
    }

    def decide(use: PluginUse | None, id: str, at: datetime) -> PluginUse:
        use = use or PluginUse.begin(PluginUse.Begun, id, at)
        kept = {name: sealed for name, sealed in use.secrets.items() if name in secret and name not in new}
        if fault := settings_fault(schema, command.settings, known=set(kept)):
            raise Rejection("invalid", fault, "settings")
        use.configure(at, settings=plain, secrets={**kept, **new})
        return use

    return decide


def settings_fault(schema: dict[str, Any], settings: dict[str, Any], *, known: set[str]) -> str | None:
    """The rule of the schema that settings break; None for valid ones. Settings that are `known` may be left out."""
    if not schema:
        return "The plugin has no settings." if settings else None
    from jsonschema import Draft202012Validator  # takes a third of a second

    required = [name for name in schema.get("required", []) if name not in known]
    names = schema.get("properties", {})
    if unknown := [name for name in settings if name not in names]:
        return f"The plugin has no setting {unknown[0]}."
    for error in Draft202012Validator({**schema, "required": required}).iter_errors(settings):
        path = ".".join(map(str, error.absolute_path))
        return f"{path or 'They'} must meet the rule {error.validator} of the plugin's schema."
    return None


async def _installed(given: Preparation, name: str) -> Plugin:
    """Raises: Rejection `not_found`."""
    found = await given.ports.repository.get(Plugin, HOUSE, name)
    if found is None or found.deleted:
        raise not_found(Plugin, name, "plugin")
    return found
