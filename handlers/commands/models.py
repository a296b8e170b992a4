"""Commands of providers and replays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from domain.access.tenant import HOUSE
from domain.aggregate import Rejection
from domain.builtin import BUILTIN
from domain.chat.app import App
from domain.models.model_call import ModelCall
from domain.models.piece import InPieces, Turns, pieces
from domain.models.provider import DEFAULT, Credential, Kind, Provider
from domain.models.replay import Replay
from domain.models.route import REACTIONS, Group, Member, ModelRoute, Reaction, RouteSettings, Strategy
from domain.tools.plugin import Plugin
from handlers.commands.dify_form import form_fault
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
from handlers.commands.preparation import Change, Make, MakeOrChange, Preparation


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


def _known_code(code: str) -> str:
    if code not in REACTIONS:
        raise ValueError(f"Must be one of {', '.join(REACTIONS)}")
    return code


ErrorCodeField = Annotated[str, AfterValidator(_known_code)]


class MemberFields(NamedModel):
    """A model of a route."""

    weight: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Share of the calls that it gets, relative to the weights of the others of its group"
    )
    context_window: Annotated[int, Field(ge=256, le=10_000_000)] | None = Field(
        None, description="Maximum tokens of prompt and answer together; null: as far as is known"
    )

    def member(self) -> Member:
        return Member(provider=self.provider, model=self.name, weight=self.weight, context_window=self.context_window)


class GroupFields(Part):
    """Models that share the calls of a route."""

    strategy: Strategy = Field(
        "weighted",
        description="Choice of the model: by weight, with the fewest calls in progress, with the earliest first tokens "
        "of the last minutes, or with the lowest price",
    )
    members: Annotated[list[MemberFields], Field(min_length=1, max_length=32)] = Field(
        description="Models of the group"
    )


class ConfigureRoute(Command):
    """Make or change a route: models that apps use by one name. Where a model cannot answer, the next one is called."""

    name: Handle = Field(description="Name that apps use; the same name again changes the route")
    groups: Annotated[list[GroupFields], Field(min_length=1, max_length=16)] = Field(
        description="Groups of models; a group is used where none before it can answer"
    )
    reactions: dict[ErrorCodeField, Reaction] = Field(
        {},
        description="By error code, other reactions than the usual ones: call the next model, the next one with a "
        "larger window, or none",
    )
    restart: bool = Field(False, description="Let an answer that has begun begin again with another model")
    wait_s: Annotated[int, Field(ge=0, le=300)] = Field(
        0, description="Time to wait for a model when all of them rest, in seconds"
    )


class RemoveRoute(Command):
    """Remove a route; apps that use it cannot answer any more."""

    route: Annotated[Handle, Ref(ModelRoute), Field(description="Route, by its name")]


ADDRESS = r"^(?:https?://[^\s@?#\\]+(\?[^\s#\\]*)?|plugin://[a-z0-9_-]{1,64}(?:/[A-Za-z0-9_.-]{1,64}(?:/[A-Za-z0-9_.-]{1,64})*)?)$"


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


Key = Annotated[str, Field(max_length=10_000, json_schema_extra={"writeOnly": True})]

HINT, SHORTEST = 4, 16
"""Characters of a hint; a key that is shorter than the latter has none."""


class RegisterProvider(Command):
    """Register a server of models, or change its address or key; the key is encrypted at rest.

    Its key is the credential `default`. At another address or of another kind, the provider keeps no other credential.
    """

    name: Annotated[Handle, AfterValidator(_not_builtin)] = Field(
        description="Name that apps use; the same name again changes the provider"
    )
    kind: Kind = Field(
        "openai", description="Protocol of the server; `openai` is every OpenAI-compatible one, Azure's included"
    )
    base_url: Annotated[str, Field(pattern=ADDRESS, max_length=2000), AfterValidator(_of_a_server)] = Field(
        description="Address of its API, like `https://host/v1`, without fragment; a query, like `?api-version=…`, is "
        "sent with each request. Of kind `dify`: `plugin://PLUGIN/PROVIDER`, an installed plugin and its provider"
    )
    key: Key = Field(
        "",
        description="API key; empty for none. Only its encrypted form is kept. Of kind `dify`: the fields of the form "
        "of its credentials, as a JSON object",
    )
    check: bool = Field(True, description="Check the server afterwards, as provider.check does")

    @model_validator(mode="after")
    def _address_of_its_kind(self) -> RegisterProvider:
        if self.base_url.startswith("plugin://") != (self.kind == "dify"):
            raise ValueError(
                "base_url must be an address like plugin://PLUGIN/PROVIDER for kind 'dify', and for no other"
            )
        return self


class CheckProvider(Command):
    """Check the server of a provider: list its models, and measure one of them by six small calls, which are recorded.

    The command is accepted at once; the result is `provider.checked`, and never changes what may be called.
    """

    provider: Annotated[Handle, Ref(Provider), Field(description="Provider, by its name")]
    model: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None,
        description="Model to measure; null for the tenant's default chat model if it is the provider's, or else for "
        "the server's only one",
    )


class AddCredential(Command):
    """Add another key to a provider, or replace the one of this name; the key is encrypted at rest.

    Calls are shared between the credentials of a provider by their weights. One that the server refuses, or whose rate
    limit is reached, is not used for a while.
    """

    provider: Annotated[Handle, Ref(Provider), Field(description="Provider, by its name")]
    name: Handle = Field(description="Name of the credential; the same name again replaces it")
    key: Annotated[Key, Field(min_length=1)] = Field(description="API key. Only its encrypted form is kept")
    weight: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Share of the calls that it gets, relative to the weights of the others"
    )


class RemoveCredential(Command):
    """Remove a key of a provider."""

    provider: Annotated[Handle, Ref(Provider), Field(description="Provider, by its name")]
    name: Handle = Field(description="Name of the credential")


class RemoveProvider(Command):
    """Remove a provider and its keys."""

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


async def configure_route(command: ConfigureRoute, given: Preparation) -> MakeOrChange[ModelRoute]:
    settings = RouteSettings(
        groups=[
            Group(strategy=group.strategy, members=[each.member() for each in group.members])
            for group in command.groups
        ],
        reactions=dict(command.reactions),
        restart=command.restart,
        wait_s=command.wait_s,
    )

    def decide(route: ModelRoute | None, id: str, at: datetime) -> ModelRoute:
        if route is None:
            return ModelRoute.begin(ModelRoute.Configured, id, at, **settings)
        route.change(at, **settings)
        return route

    return decide


async def register(command: RegisterProvider, given: Preparation) -> MakeOrChange[Provider]:
    kind, base_url = command.kind, command.base_url
    if kind == "dify":
        await _of_plugin(command, given)
    credential = _credential(DEFAULT, 1, command.key, given) if command.key else None

    def decide(provider: Provider | None, id: str, at: datetime) -> Provider:
        if provider is None:
            credentials = [credential] if credential else []
            provider = Provider.begin(
                Provider.Registered, id, at, kind=kind, base_url=base_url, credentials=credentials
            )
        else:
            provider.register(at, kind=kind, base_url=base_url, credential=credential)
        if command.check:
            provider.request_check(at, check=given.id, model=None)
        return provider

    return decide


async def _of_plugin(command: RegisterProvider, given: Preparation) -> None:
    """Check the provider and its credentials by what the package declares. Raises: Rejection."""
    name, _, of = command.base_url.removeprefix("plugin://").partition("/")
    plugin = await given.ports.repository.get(Plugin, HOUSE, name)
    if plugin is None or plugin.deleted or "dify" not in plugin.manifest:
        raise Rejection("not_found", f"No plugin {name} with models is installed.", "base_url")
    found = plugin.manifest["dify"]["models"]
    named = [each for each in found if each["name"] == of or (not of and len(found) == 1)]
    if not named:
        names = ", ".join(each["name"] for each in found) or "none"
        raise Rejection("not_found", f"The plugin has no such models; it has {names}.", "base_url")
    fields = named[0]["credentials"] or named[0]["of_models"]
    if command.key and (fault := form_fault(fields, command.key)):
        raise Rejection("invalid", fault, "key")


async def check(command: CheckProvider, given: Preparation) -> Change[Provider]:
    return lambda provider, at: provider.request_check(at, check=given.id, model=command.model)


async def add_credential(command: AddCredential, given: Preparation) -> Change[Provider]:
    credential = _credential(command.name, command.weight, command.key, given)
    return lambda provider, at: provider.add_credential(at, credential)


def _credential(name: str, weight: int, key: str, given: Preparation) -> Credential:
    hint = key[-HINT:] if len(key) >= SHORTEST and not key.startswith("{") else ""
    return Credential(name=name, weight=weight, sealed_key=given.ports.vault.seal(given.tenant, key), hint=hint)
