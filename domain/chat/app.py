"""An app: what answers questions, with a model, a prompt and the knowledge bases it may cite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Any, Self, TypedDict, cast

from domain import aggregate
from domain.aggregate import Aggregate, Rejection


class ModelSettings(TypedDict):
    """A chat model: `builtin/extractive`, or a model name of a registered provider."""

    provider: str
    name: str
    max_tokens: int
    context_window: int
    parameters: dict[str, Any]


class Variable(TypedDict):
    """A value that the asker fills in; `{{name}}` in the prompt stands for it."""

    name: str
    required: bool
    default: str | None


class RerankSettings(TypedDict):
    """What reranks the best `top_n` hits: `model` of a registered provider, or of `builtin`, where null is its own."""

    provider: str
    model: str | None
    top_n: int


class Condition(TypedDict):
    """What a document's metadata must say: `=`, `≠`, `>`, `<`, `≥`, `≤` compare numbers, `before` and `after` times,
    and the others texts; `empty` and `not empty` have no value, `in` and `not in` a list."""

    name: str
    comparison_operator: str
    value: str | float | list[str] | None


class MetadataFilter(TypedDict):
    """Which documents are searched: all where its mode is `disabled`; those that meet all conditions (`and`) or one
    (`or`) where it is `manual`; where it is `automatic`, a model makes the conditions out of the question."""

    mode: str
    logical_operator: str
    conditions: list[Condition]


class RetrievalSettings(TypedDict):
    """How segments are looked for: mode `hybrid`, `semantic` or `full_text`.

    `weight` is the share of the meaning in a hybrid score, null for reciprocal rank fusion. What is found is given to
    the model with so many `neighbours` on each side.
    """

    mode: str
    weight: float | None
    top_k: int
    score_threshold: float | None
    metadata_filter: MetadataFilter
    neighbours: int
    rerank: RerankSettings | None


def settings(given: Mapping[str, Any]) -> RetrievalSettings:
    """The settings with those that were not yet there when they were given: they change nothing."""
    every = MetadataFilter(mode="disabled", logical_operator="and", conditions=[])
    return cast(
        "RetrievalSettings", {"weight": None, "metadata_filter": every, "neighbours": 0, "rerank": None, **given}
    )


class Configuration(TypedDict):
    """One numbered version of how an app answers."""

    number: int
    model: ModelSettings
    prompt: str
    variables: list[Variable]
    datasets: list[str]
    retrieval: RetrievalSettings


class App(Aggregate):
    """An app and every configuration it ever had."""

    TOPIC = "app"
    class_version = 2
    configurations: dict[str, Configuration] = field(default_factory=dict, init=False)

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """An app was created, not yet configured."""

        TOPIC = "app.created.v1"
        name: str
        description: str

    class Configured(Event):
        """The app answers by this configuration from now on; earlier ones keep their numbers."""

        TOPIC = "app.configured.v2"
        class_version = 2
        number: int
        model: ModelSettings
        prompt: str
        variables: list[Variable]
        datasets: list[str]
        retrieval: RetrievalSettings

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["retrieval"] = settings(state["retrieval"])

        def apply(self, app: App) -> None:
            app.configurations[str(self.number)] = Configuration(
                number=self.number,
                model=self.model,
                prompt=self.prompt,
                variables=self.variables,
                datasets=self.datasets,
                retrieval=self.retrieval,
            )

    class Deleted(Event):
        """The app takes no more messages."""

        TOPIC = "app.deleted.v1"

        def apply(self, app: App) -> None:
            app.deleted = True

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        """Brings a snapshot up, which may be of either version."""
        for configuration in state["configurations"].values():
            configuration["retrieval"] = settings(configuration["retrieval"])

    @classmethod
    def create(cls, id: str, at: datetime, *, name: str, description: str) -> Self:
        return cls._create(cls.Created, id=id, timestamp=at, name=name, description=description)

    @property
    def configuration(self) -> Configuration | None:
        """The newest configuration, or None before the first."""
        return self.configurations.get(str(len(self.configurations)))

    def configure(
        self,
        at: datetime,
        *,
        model: ModelSettings,
        prompt: str,
        variables: list[Variable],
        datasets: list[str],
        retrieval: RetrievalSettings,
    ) -> None:
        fields = {
            "model": model,
            "prompt": prompt,
            "variables": variables,
            "datasets": datasets,
            "retrieval": retrieval,
        }
        number = len(self.configurations) + 1
        if self.configuration != {"number": number - 1, **fields}:
            self.record(self.Configured, at, number=number, **fields)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at)

    def inputs(self, given: dict[str, str]) -> dict[str, str]:
        """The value of every variable of the newest configuration, defaults filled in.

        Raises: Rejection `not_configured`, `missing_input` or `unknown_input`.
        """
        if self.configuration is None:
            raise Rejection("not_configured", f"App {self.id} has no configuration; send app.configure first.", "app")
        variables = self.configuration["variables"]
        names = [variable["name"] for variable in variables]
        for name in given:
            if name not in names:
                known = ", ".join(names) or "none"
                raise Rejection("unknown_input", f"The app has no variable {name!r}, only: {known}.", f"inputs.{name}")
        return fill_in(variables, given)


def fill_in(variables: Sequence[Variable], given: Mapping[str, str]) -> dict[str, str]:
    """The value of every variable, defaults filled in, others left out. Raises: Rejection `missing_input`."""
    values = {variable["name"]: given.get(variable["name"], variable["default"]) for variable in variables}
    for variable in variables:
        name = variable["name"]
        if values[name] is None and variable["required"]:
            raise Rejection("missing_input", f"The app requires a value for {name!r}.", f"inputs.{name}")
    return {name: value or "" for name, value in values.items()}
