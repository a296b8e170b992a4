"""Strategies of agents in plugins of Dify, as an app names them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from domain.access.tenant import HOUSE
from domain.aggregate import Rejection
from domain.tools.dify import strategies
from domain.tools.plugin import Plugin
from domain.tools.plugin_use import PluginUse
from handlers.commands.fields import Part, at_most
from handlers.commands.plugin_package import PluginName
from handlers.commands.preparation import Preparation

FIELD = "features.agent.plugin"

Named = Annotated[str, Field(max_length=128)]


class StrategyFields(Part):
    """A strategy of agents in a plugin of Dify, which the tenant has enabled."""

    name: PluginName
    provider: Named = Field("", description="Provider of strategies in its package; empty for the only one")
    strategy: Named = Field("", description="Strategy of that provider; empty for the only one")
    parameters: Annotated[dict[str, JsonValue], at_most(kib=64)] = Field(
        {}, description="Parameters of the strategy, by name; question, instructions, model and tools come from the app"
    )


async def must_be_usable(fields: StrategyFields, given: Preparation) -> None:
    """Check the plugin, the strategy and its parameters by what the package declares. Raises: Rejection."""
    plugin = await given.ports.repository.get(Plugin, HOUSE, fields.name)
    if plugin is None or plugin.deleted or "dify" not in plugin.manifest:
        raise Rejection("not_found", f"No plugin {fields.name} with strategies is installed.", f"{FIELD}.name")
    use = await given.get(PluginUse, fields.name)
    if use is None or not use.enabled:
        sentence = f"The tenant has not enabled the plugin {fields.name}: send plugin.enable first."
        raise Rejection("not_enabled", sentence, f"{FIELD}.name")
    found = strategies(plugin.manifest["dify"], fields.provider, fields.strategy)
    if len(found) != 1:
        names = ", ".join(f"{provider}/{each['name']}" for provider, each in strategies(plugin.manifest["dify"]))
        sentence = f"The plugin has {len(found) or 'no'} such strategies; it has {names or 'none'}."
        raise Rejection("not_found", sentence, f"{FIELD}.strategy")
    [(_, strategy)] = found
    known = {each["name"] for each in strategy["parameters"]}
    if unknown := sorted(fields.parameters.keys() - known):
        sentence = f"The strategy has no parameter {unknown[0][:100]}; it has {', '.join(sorted(known)) or 'none'}."
        raise Rejection("invalid", sentence, f"{FIELD}.parameters")
