"""The embedding model of a knowledge base, or of the annotations of an app."""

from __future__ import annotations

from typing import Annotated, TypedDict

from domain.builtin import BUILTIN


class EmbeddingModel(TypedDict):
    """An embedding model of the workers, or of a registered provider."""

    provider: Annotated[str, "`builtin` for a model of the workers, or the name of a registered provider."]
    model: Annotated[str, "Name of the model at its provider; of the workers, by its folder or on the hub."]


Chosen = Annotated[EmbeddingModel, "Embedding model."]
ChosenOrDefault = Annotated[EmbeddingModel | None, "Embedding model; null for the default of the workers."]


def of_workers(model: str | None) -> EmbeddingModel | None:
    """The model of this name among those of the workers; None for None."""
    return EmbeddingModel(provider=BUILTIN, model=model) if model else None


def full_name(tenant: str, chosen: EmbeddingModel) -> str:
    """The name of an embedding model over all tenants: `<tenant>/<provider>/<model>`; of the workers, its own name."""
    if chosen["provider"] == BUILTIN:
        return chosen["model"]
    return f"{tenant}/{chosen['provider']}/{chosen['model']}"


def of_provider(full: str) -> tuple[str, EmbeddingModel] | None:
    """The tenant and the model of a full name; None for a model of the workers, whose name has one slash at most."""
    match full.split("/", 2):
        case [tenant, provider, model]:
            return tenant, EmbeddingModel(provider=provider, model=model)
    return None


def shown(full: str) -> str:
    """A full name as its tenant reads it: without the tenant."""
    return full.partition("/")[2] if of_provider(full) else full
