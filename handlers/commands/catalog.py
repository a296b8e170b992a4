"""Commands of the catalogue of models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast

from pydantic import Field, model_validator

from domain.aggregate import Rejection
from domain.models.default_model import DefaultModel
from domain.models.model import Ability, Entry, Model, Prices, Type, begun, model_id
from handlers.commands.fields import Command, Handle, Part, ProviderName, one_builtin
from handlers.commands.preparation import MakeOrChange, Preparation, not_found

Tokens = Annotated[int, Field(ge=1, le=100_000_000)]

Price = Annotated[float, Field(ge=0, lt=1_000_000)]

ModelField = Annotated[str, Field(min_length=1, max_length=255, description="Name of the model at its provider")]


class PriceFields(Part):
    """Prices in US dollars per million tokens."""

    input: Price = Field(description="Tokens of the prompt")
    output: Price = Field(description="Tokens of the answer")
    cached: Price | None = Field(None, description="Tokens of the prompt that were read from a cache; null: as `input`")
    cache_write: Price | None = Field(
        None, description="Tokens of the prompt that were written into a cache; null: as `input`"
    )


class SetModel(Command):
    """Set the tenant's entry of a model in the catalogue.

    It replaces an earlier entry as a whole. Its facts count before those that were measured, and before list prices.
    """

    provider: ProviderName
    model: ModelField
    type: Type = Field("chat", description="Type of the model")
    context_window: Tokens | None = Field(
        None, description="Maximum tokens of prompt and answer together; null when unknown"
    )
    max_output: Tokens | None = Field(None, description="Maximum tokens of an answer; null when unknown")
    abilities: dict[Ability, bool] = Field(
        {},
        description="Abilities by name, true or false: usage, tools, forced_tool, schema, image, long_prompt, "
        "audio, document, reasoning",
    )
    prices: PriceFields | None = Field(None, description="Prices; null for those of the catalogue")
    rpm: Annotated[int, Field(ge=1)] | None = Field(None, description="Maximum requests per minute; null for no limit")
    tpm: Annotated[int, Field(ge=1)] | None = Field(None, description="Maximum tokens per minute; null for no limit")

    @property
    def id(self) -> str:
        return model_id(self.provider, self.model)


class RemoveModel(Command):
    """Remove the tenant's entry of a model. What was measured, and the list prices, hold again."""

    provider: Handle = Field(description="Provider, by its name")
    model: ModelField

    @property
    def id(self) -> str:
        return model_id(self.provider, self.model)


class SetDefaultModel(Command):
    """Set the model that the tenant takes by default. An app that names no model is configured with the one of type
    `chat`; a new knowledge base, and the annotations of an app, with the one of type `embedding`."""

    type: Type = Field(description="Type of the model")
    provider: ProviderName
    model: ModelField

    @model_validator(mode="after")
    def _there_is_one(self) -> SetDefaultModel:
        if self.type == "chat":
            one_builtin(self.provider, self.model)
        return self


class RemoveDefaultModel(Command):
    """Remove the default model of a type. Apps keep the model that they were configured with."""

    type: Type = Field(description="Type of the model")


async def set_model(command: SetModel, given: Preparation) -> MakeOrChange[Model]:
    prices = cast("Prices", command.prices.model_dump()) if command.prices else None
    entry = Entry(
        type=command.type,
        context_window=command.context_window,
        max_output=command.max_output,
        abilities={str(ability): able for ability, able in command.abilities.items()},
        prices=prices,
        rpm=command.rpm,
        tpm=command.tpm,
    )

    def decide(known: Model | None, id: str, at: datetime) -> Model:
        found = begun(known, command.provider, command.model, at)
        found.set_entry(at, **entry)
        return found

    return decide


async def remove_model(command: RemoveModel, given: Preparation) -> MakeOrChange[Model]:
    def decide(known: Model | None, id: str, at: datetime) -> Model:
        if known is None:
            raise not_found(Model, f"{command.provider}/{command.model} in the catalogue", "model")
        known.remove_entry(at)
        return known

    return decide


async def set_default(command: SetDefaultModel, given: Preparation) -> MakeOrChange[DefaultModel]:
    def decide(known: DefaultModel | None, id: str, at: datetime) -> DefaultModel:
        if known is None:
            chosen = {"provider": command.provider, "model": command.model}
            return DefaultModel.begin(DefaultModel.Chosen, id, at, **chosen)
        known.change(at, provider=command.provider, model=command.model)
        return known

    return decide


async def remove_default(command: RemoveDefaultModel, given: Preparation) -> MakeOrChange[DefaultModel]:
    def decide(known: DefaultModel | None, id: str, at: datetime) -> DefaultModel:
        if known is None:
            raise Rejection("not_found", f"There is no default model of type {command.type}.", "type")
        known.remove(at)
        return known

    return decide
