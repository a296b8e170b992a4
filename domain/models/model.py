"""A model of a provider: the tenant's entry in the catalogue, and what its server listed or a check measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, TypedDict, Unpack
from uuid import NAMESPACE_OID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

Type = Literal["chat", "embedding", "rerank", "transcription", "speech", "moderation"]

Ability = Literal["usage", "tools", "forced_tool", "schema", "image", "long_prompt", "audio", "document", "reasoning"]

ABILITIES: Mapping[str, str] = {
    "usage": "counts the tokens of a streamed answer",
    "tools": "asks for tools",
    "forced_tool": "asks for the tool that it must",
    "schema": "keeps to a JSON Schema",
    "image": "sees images",
    "long_prompt": "reads a prompt of 5,000 tokens whole",
    "audio": "hears audio",
    "document": "reads files",
    "reasoning": "reasons before it answers",
}
"""Abilities of models. A check measures all but the last three."""

SOURCES = ("entry", "measured", "listed", "catalog")
"""Sources of a fact, the first one that has it counts: the tenant's entry, a check, the list of the server, and the
prices and windows that come with Headrace or are set by its operator."""


class Prices(TypedDict):
    """Prices in US dollars per million tokens."""

    input: Annotated[float, "Tokens of the prompt."]
    output: Annotated[float, "Tokens of the answer."]
    cached: Annotated[float | None, "Tokens of the prompt that were read from a cache; null: as `input`."]
    cache_write: Annotated[float | None, "Tokens of the prompt that were written into a cache; null: as `input`."]


ModelType = Annotated[str, "`chat`, `embedding`, `rerank`, `transcription`, `speech` or `moderation`."]
ProviderName = Annotated[str, "Provider, by its name."]
ModelName = Annotated[str, "Name of the model at its provider."]
Window = Annotated[int | None, "Maximum tokens of prompt and answer together; null when unknown."]
MaxOutput = Annotated[int | None, "Maximum tokens of an answer; null when unknown."]
Abilities = Annotated[dict[str, bool], "Abilities by name, see [models](models.md#abilities): true or false."]


class Entry(TypedDict):
    """Facts that a tenant states about a model."""

    type: str
    context_window: int | None
    max_output: int | None
    abilities: dict[str, bool]
    prices: Prices | None
    rpm: int | None
    tpm: int | None


@lru_cache(maxsize=1024)
def model_id(provider: str, model: str) -> str:
    """The id of a model within its tenant."""
    return str(uuid5(NAMESPACE_OID, f"model/{provider}/{model}"))


class Model(Aggregate):
    """`entry`, `measured` and `listed` are the facts of each source, by name; None for none."""

    TOPIC = "model"
    provider: str
    model: str
    entry: Entry | None = field(default=None, init=False)
    measured: dict[str, Any] | None = field(default=None, init=False)
    listed: dict[str, Any] | None = field(default=None, init=False)

    class Event(aggregate.Event):
        pass

    class Begun(Event, aggregate.Created):
        """The first fact about a model is about to be recorded."""

        TOPIC = "model.begun.v1"
        provider: ProviderName
        model: ModelName

    class Set(Event):
        """The tenant's entry was set; it replaces an earlier one."""

        TOPIC = "model.set.v1"
        type: ModelType
        context_window: Window
        max_output: MaxOutput
        abilities: Abilities
        prices: Annotated[Prices | None, "Prices; null when unknown."]
        rpm: Annotated[int | None, "Maximum requests per minute; null for no limit."]
        tpm: Annotated[int | None, "Maximum tokens per minute; null for no limit."]

        def apply(self, model: Model) -> None:
            model.entry = Entry(
                type=self.type,
                context_window=self.context_window,
                max_output=self.max_output,
                abilities=self.abilities,
                prices=self.prices,
                rpm=self.rpm,
                tpm=self.tpm,
            )

    class Removed(Event):
        """The tenant's entry was removed; what else is known of the model stays."""

        TOPIC = "model.removed.v1"

        def apply(self, model: Model) -> None:
            model.entry = None

    class Listed(Event):
        """The server lists the model, or lists it with other facts than before."""

        TOPIC = "model.listed.v1"
        server: Annotated[str, "Address of the server, as `host:port`."]
        type: Annotated[str | None, "As in `model.set`; null when unknown."]
        context_window: Window
        max_output: MaxOutput

        def apply(self, model: Model) -> None:
            model.listed = {
                "server": self.server,
                "type": self.type,
                "context_window": self.context_window,
                "max_output": self.max_output,
            }

    class Checked(Event):
        """The model's abilities were measured by small calls; an ability that is left out could not be measured."""

        TOPIC = "model.checked.v1"
        check: Annotated[str, "Check, the cause of the calls."]
        abilities: Abilities
        context_window: Annotated[int | None, "Tokens at which the server cut a longer prompt; null for no cut."]

        def apply(self, model: Model) -> None:
            model.measured = {"abilities": self.abilities, "context_window": self.context_window}

    @property
    def facts(self) -> Facts:
        """The facts known of it, without those of the catalogue."""
        return merged({"entry": self.entry, "measured": self.measured, "listed": self.listed})[0]

    def set_entry(self, at: datetime, **entry: Unpack[Entry]) -> None:
        if self.entry != entry:
            self.record(self.Set, at, **entry)

    def remove_entry(self, at: datetime) -> None:
        if self.entry is None:
            raise Rejection("not_found", f"The catalogue has no entry of {self.provider}/{self.model}.", "model")
        self.record(self.Removed, at)

    def take_listing(
        self, at: datetime, *, server: str, type: str | None, context_window: int | None, max_output: int | None
    ) -> None:
        facts = {"server": server, "type": type, "context_window": context_window, "max_output": max_output}
        if self.listed != facts:
            self.record(self.Listed, at, server=server, type=type, context_window=context_window, max_output=max_output)

    def take_check(
        self, at: datetime, *, check: str, abilities: dict[str, bool], context_window: int | None = None
    ) -> None:
        self.record(self.Checked, at, check=check, abilities=abilities, context_window=context_window)


class Facts(TypedDict):
    """The facts about a model from all sources; None, or no ability of a name, when unknown."""

    type: str | None
    context_window: int | None
    max_output: int | None
    abilities: dict[str, bool]
    prices: dict[str, Any] | None
    rpm: int | None
    tpm: int | None


def merged(sources: Mapping[str, Mapping[str, Any] | None]) -> tuple[Facts, dict[str, str]]:
    """The facts of all sources, by their precedence, and the source of each (`abilities.tools` of one ability)."""
    facts: Any = dict.fromkeys(Facts.__annotations__)
    facts["abilities"], of = {}, dict[str, str]()
    for source in SOURCES:
        given = sources.get(source) or {}
        for name in Facts.__annotations__:
            if name != "abilities" and facts[name] is None and given.get(name) is not None:
                facts[name], of[name] = given[name], source
        for ability, able in (given.get("abilities") or {}).items():
            if ability not in facts["abilities"]:
                facts["abilities"][ability], of[f"abilities.{ability}"] = able, source
    return facts, of


def begun(known: Model | None, provider: str, name: str, at: datetime) -> Model:
    """The model, begun where nothing is recorded of it yet."""
    return known or Model.begin(Model.Begun, model_id(provider, name), at, provider=provider, model=name)
