"""Facts about models: of the tenant's entries, of checks and lists on the log, and of the prices that come along."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from domain.access.tenant import HOUSE
from domain.builtin import BUILTIN
from domain.models.model import Facts, Model, merged, model_id
from domain.models.provider import Provider
from domain.tools.plugin import Plugin
from handlers.models.choose import Known
from handlers.models.rates import Rate
from handlers.repository import Repository
from projections.values.prices import Call, Prices


class LogCatalogue:
    def __init__(self, repository: Repository, prices: Prices) -> None:
        self._repository = repository
        self._prices = prices

    async def facts(self, tenant: str, provider: str, model: str) -> Facts:
        """The facts from all sources. Raises: Unavailable."""
        known = await self._repository.get(Model, tenant, model_id(provider, model))
        entry, measured, listed = (known.entry, known.measured, known.listed) if known else (None, None, None)
        server = (listed or {}).get("server", "")
        catalog = await self._declared(tenant, provider, model)
        if catalog is None:
            catalog = self._prices.known(Call(provider, server, model, datetime.now(UTC)))
        return merged({"entry": entry, "measured": measured, "listed": listed, "catalog": catalog})[0]

    async def _declared(self, tenant: str, provider: str, model: str) -> dict[str, Any] | None:
        """The facts of a predefined model of a plugin; None for any other. Raises: Unavailable."""
        known = await self._repository.get(Provider, tenant, provider)
        if known is None or known.kind != "dify":
            return None
        name, _, of = known.base_url.removeprefix("plugin://").partition("/")
        plugin = await self._repository.get(Plugin, HOUSE, name)
        declared = plugin.manifest.get("dify") if plugin and not plugin.deleted else None
        for each in declared["models"] if declared else ():
            for predefined in each["models"] if each["name"] == of or not of else ():
                if predefined["name"] == model:
                    prices = predefined["prices"]
                    return {**predefined, "prices": {**prices, "cached": None, "cache_write": None} if prices else None}
        return None

    async def known(self, tenant: str, provider: str, model: str) -> Known:
        """As the port. Raises: Unavailable."""
        if provider == BUILTIN:
            return Known(price=0.0)
        facts = await self.facts(tenant, provider, model)
        prices = facts["prices"]
        parts = (prices["input"], prices["output"]) if prices else None
        rate = Rate(facts["rpm"], facts["tpm"])
        return Known(facts["context_window"], sum(parts) if parts else None, facts["abilities"], rate, parts)
