"""Commands of providers, replays and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from domain.aggregate import Aggregate, Rejection
from domain.chat.app import App
from domain.models.budget import Budget
from domain.models.model_call import ModelCall, Source
from domain.models.provider import BUILTIN, Provider
from handlers.commands.fields import (
    Command,
    Fields,
    Handle,
    Id,
    Part,
    Preparation,
    ProviderName,
    Ref,
    _is_uuid,
    at_most_16_kib,
    not_found,
    one_builtin,
)


class NamedModel(Part):
    """A chat model by its provider and name."""

    provider: Annotated[ProviderName, Ref(Provider)]
    name: Annotated[str, Field(min_length=1, max_length=255)]

    @model_validator(mode="after")
    def _there_is_one(self) -> NamedModel:
        one_builtin(self.provider, self.name)
        return self


class RequestReplay(Command):
    """Make a recorded call of a chat model again: as it was, or to another model, with other parameters or
    instructions."""

    call: Annotated[Id, Ref(ModelCall)] = Field(description="Recorded call of a chat model")
    model: NamedModel | None = Field(None, description="Chat model to call; null: the recorded one")
    parameters: dict[str, JsonValue] | None = Field(None, description="Passed on to the model; null: as recorded")
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Tokens reserved for the answer; null: as recorded"
    )
    configuration: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Configuration of the app whose instructions take the place of those sent; null: as recorded"
    )

    @model_validator(mode="after")
    def _small(self) -> RequestReplay:
        at_most_16_kib(self.parameters)
        return self


class SetBudget(Command):
    """Set what calls of models may cost in a calendar month, or change it. Nothing is refused beyond it: it shows."""

    name: Handle
    scope: Literal["tenant", "app", "model", "user"]
    subject: Annotated[str, Field(max_length=255)] = Field(
        "", description="Id of the app, name of the model or user; empty for the tenant"
    )
    amount_usd: Annotated[float, Field(gt=0, le=1e9)] = Field(description="US dollars")

    @model_validator(mode="after")
    def _of_something(self) -> SetBudget:
        if (self.scope == "tenant") != (not self.subject.strip()):
            raise ValueError("subject must name an app, model or user, and be empty for the tenant")
        if self.scope == "app" and not _is_uuid(self.subject):
            raise ValueError("subject must be the id of an app")
        return self


class RemoveBudget(Command):
    """Forget a budget."""

    budget: Annotated[Handle, Ref(Budget)]


class RegisterProvider(Command):
    """Make an OpenAI-compatible server known, or change its address or key; the key is encrypted at rest."""

    name: ProviderName
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)]
    key: Annotated[str, Field(max_length=10_000, json_schema_extra={"writeOnly": True})] = ""

    @model_validator(mode="after")
    def _not_builtin(self) -> RegisterProvider:
        if self.name == BUILTIN:
            raise ValueError("name 'builtin' is taken by the provider that needs no server")
        return self


class RemoveProvider(Command):
    """Forget a provider and its key."""

    provider: Annotated[ProviderName, Ref(Provider)]


DEFAULT_TOKENS = 512
"""Tokens reserved for the answer to a call that does not say how many."""


async def look_up(command: RequestReplay, preparation: Preparation) -> Fields:
    """What was recorded of the call, where the command does not say otherwise."""
    call = preparation.named["call"]
    assert isinstance(call, ModelCall)
    made = await preparation.repository.first(ModelCall, preparation.tenant, call.id)
    recorded = made and made.events[0]
    assert isinstance(recorded, ModelCall.Requested)
    if call.kind != "chat":
        raise Rejection("not_a_chat", f"call: {call.id} is of kind {call.kind}; only a chat can be replayed.", "call")
    if not recorded.request:
        raise Rejection("erased", f"call: what {call.id} sent was erased.", "call")
    app = await instructed(command.configuration, recorded.sources, preparation) if command.configuration else None
    return {
        "call": call.id,
        "provider": command.model.provider if command.model else call.provider,
        "model": command.model.name if command.model else call.model,
        "max_tokens": command.max_tokens or recorded.request.get("max_tokens", DEFAULT_TOKENS),
        "parameters": recorded.request["parameters"] if command.parameters is None else command.parameters,
        "app": app,
        "configuration": command.configuration,
    }


async def instructed(number: int, sources: Sequence[Source], preparation: Preparation) -> str:
    """The app whose instructions were sent, and which has a configuration of this number."""
    id = next((source["app"] for source in sources if source["from"] == "instructions"), None)
    app = await preparation.repository.get(App, preparation.tenant, id) if id else None
    if app is None:
        sentence = "configuration: it is not on record where the instructions of this call came from."
        raise Rejection("unknown_prompt", sentence, "configuration")
    if str(number) not in app.configurations:
        sentence = f"configuration: app {app.id} has {len(app.configurations)}, and no number {number}."
        raise Rejection("not_found", sentence, "configuration")
    return app.id


async def budgeted(command: SetBudget, preparation: Preparation) -> Fields:
    """Make sure of the app."""
    if command.scope == "app" and not await preparation.repository.get(App, preparation.tenant, command.subject):
        raise not_found(App, command.subject, "subject")
    return command.model_dump(exclude={"name"})


async def seal(command: RegisterProvider, preparation: Preparation) -> Fields:
    return {"base_url": command.base_url, "sealed_key": preparation.vault.seal(preparation.tenant, command.key)}


def register(provider: Aggregate | None, id: str, at: datetime, fields: Fields) -> Aggregate:
    if provider is None:
        return Provider.register(id, at, **fields)
    assert isinstance(provider, Provider)
    provider.change(at, **fields)
    return provider


def set_budget(budget: Aggregate | None, id: str, at: datetime, fields: Fields) -> Aggregate:
    if budget is None:
        return Budget.set(id, at, **fields)
    assert isinstance(budget, Budget)
    budget.change(at, **fields)
    return budget
