"""Abilities of models, as far as they are known: by the tenant's entry in the catalogue, else by a check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domain.builtin import BUILTIN
from domain.models.abilities import EXTRACTIVE
from domain.models.model import Model, model_id
from handlers.repository import Repository


@dataclass(frozen=True, slots=True)
class Abilities:
    repository: Repository

    async def of(self, tenant: str, provider: str, model: str) -> Mapping[str, bool]:
        """The abilities of a model by name, like `image` and `audio`; missing where unknown. Raises: Unavailable.

        Provider and model are empty where a route chooses them, by their abilities.
        """
        if provider == BUILTIN:
            return EXTRACTIVE
        if not provider:
            return {}
        known = await self.repository.get(Model, tenant, model_id(provider, model))
        return known.facts["abilities"] if known else {}
