"""The choice of an embedding model in commands."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from domain.aggregate import Rejection
from domain.builtin import BUILTIN
from domain.embedding import EmbeddingModel
from domain.models.default_model import DefaultModel
from domain.models.provider import Provider
from handlers.commands.fields import Handle, Ref
from handlers.commands.preparation import Preparation

EmbeddingProvider = Annotated[
    Handle,
    Ref(Provider),
    Field(description="Provider of the embedding model; `builtin` for one of the workers, by its folder or on the hub"),
]

EmbeddingModelName = Annotated[str, Field(min_length=1, max_length=255)]


async def chosen_embedding(given: Preparation, provider: str, model: str | None) -> EmbeddingModel | None:
    """The model of a provider or of the workers; without one the tenant's default, None where it has none.

    Raises: Rejection `unknown_model` when the workers do not run it; `invalid` for a provider without a model.
    """
    if model is None and provider != BUILTIN:
        raise Rejection("invalid", "Name a model of the provider.", "embedding_model")
    if model is None:
        default = await given.get(DefaultModel, "embedding")
        if default is None or default.deleted:
            return None
        provider, model = default.provider, default.model
    known = given.ports.embedding_models
    if provider == BUILTIN and model not in known:
        sentence = f"The workers run the embedding models {', '.join(known)}, not {model!r}."
        raise Rejection("unknown_model", sentence, "embedding_model")
    return EmbeddingModel(provider=provider, model=model)
