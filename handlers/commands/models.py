"""Commands of providers and replays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from domain.aggregate import Rejection
from domain.chat.app import App
from domain.models.model_call import ModelCall
from domain.models.piece import InPieces, Turns, pieces
from domain.models.provider import BUILTIN, Provider
from domain.models.replay import Replay
from handlers.commands.fields import (
    Command,
    Handle,
    Id,
    Parameters,
    Part,
    ProviderName,
    Ref,
    one_builtin,
)
from handlers.commands.preparation import Make, MakeOrChange, Preparation


class NamedModel(Part):
    """A chat model by its provider and name."""

    provider: ProviderName
    name: Annotated[str, Field(min_length=1, max_length=255)] = Field(description="Name of the model at its provider")

    @model_validator(mode="after")
    def _there_is_one(self) -> NamedModel:
        one_builtin(self.provider, self.name)
        return self


class RequestReplay(Command):
    """Make a recorded call of a chat model again: as it was, or with another model, other parameters or
    instructions."""

    call: Annotated[Id, Ref(ModelCall)] = Field(description="Recorded call of a chat model")
    model: NamedModel | None = Field(None, description="Chat model to call; null for the recorded one")
    parameters: Parameters | None = Field(
        None, description="Parameters passed to the model; null for the recorded ones"
    )
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Tokens reserved for the answer; null for the recorded number"
    )
    configuration: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Configuration of the app whose instructions replace those sent; null for the recorded ones"
    )


def _not_builtin(name: str) -> str:
    if name == BUILTIN:
        raise ValueError("Must not be 'builtin', which is the provider that needs no server")
    return name


def _of_a_server(base_url: str) -> str:
    rule = "Must be the address of a server, like https://host/v1"
    try:
        parts = urlsplit(base_url)
        there = parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(rule) from None
    if not there:
        raise ValueError(rule)
    return base_url


class RegisterProvider(Command):
    """Register an OpenAI-compatible server, or change its address or key; the key is encrypted at rest."""

    name: Annotated[Handle, AfterValidator(_not_builtin)] = Field(
        description="Name that apps use; the same name again changes the provider"
    )
    base_url: Annotated[
        str, Field(pattern=r"^https?://[^\s@?#\\]+(\?[^\s#\\]*)?$", max_length=2000), AfterValidator(_of_a_server)
    ] = Field(
        description="Address of its OpenAI-compatible API, like `https://host/v1`, without fragment; a query, like "
        "`?api-version=…`, is sent with each request"
    )
    key: Annotated[str, Field(max_length=10_000, json_schema_extra={"writeOnly": True})] = Field(
        "", description="API key; empty for none. Only its encrypted form is kept"
    )


class RemoveProvider(Command):
    """Remove a provider and its key."""

    provider: Annotated[Handle, Ref(Provider), Field(description="Provider, by its name")]


DEFAULT_TOKENS = 512
"""Tokens reserved for the answer to a recorded call without a number."""


async def replay(command: RequestReplay, given: Preparation) -> Make[Replay]:
    """Make the recorded call again, with the changes of the command."""
    call = given.the(ModelCall, "call")
    made = await given.ports.repository.first(ModelCall, given.tenant, call.id)
    recorded = made and made.events[0]
    assert isinstance(recorded, ModelCall.Requested)
    if call.kind != "chat":
        raise Rejection(
            "not_a_chat", f"Model call {call.id} is of kind {call.kind}; only a chat can be replayed.", "call"
        )
    if not recorded.request:
        raise Rejection("erased", f"The request of model call {call.id} was erased.", "call")
    app = (
        await instructed(command.configuration, recorded.request["messages"], given) if command.configuration else None
    )
    return lambda id, at: Replay.begin(
        Replay.Requested,
        id,
        at,
        call=call.id,
        provider=command.model.provider if command.model else call.provider,
        model=command.model.name if command.model else call.model,
        max_tokens=command.max_tokens or recorded.request.get("max_tokens", DEFAULT_TOKENS),
        parameters=recorded.request["parameters"] if command.parameters is None else command.parameters,
        app=app,
        configuration=command.configuration,
    )


async def instructed(number: int, messages: Sequence[InPieces | Turns], given: Preparation) -> str:
    """The app whose instructions were sent, and which has a configuration of this number."""
    id = next((piece["app"] for piece in pieces(messages) if piece.get("from") == "instructions"), None)
    app = await given.get(App, id) if id else None
    if app is None:
        raise Rejection("unknown_prompt", "The app of the call's instructions is not recorded.", "configuration")
    if str(number) not in app.configurations:
        sentence = f"App {app.id} has {len(app.configurations)} configurations, but no number {number}."
        raise Rejection("not_found", sentence, "configuration")
    return app.id


async def register(command: RegisterProvider, given: Preparation) -> MakeOrChange[Provider]:
    base_url, sealed_key = command.base_url, given.ports.vault.seal(given.tenant, command.key)

    def decide(provider: Provider | None, id: str, at: datetime) -> Provider:
        if provider is None:
            return Provider.begin(Provider.Registered, id, at, base_url=base_url, sealed_key=sealed_key)
        provider.change(at, base_url=base_url, sealed_key=sealed_key)
        return provider

    return decide
