"""The model that a tenant takes by default, one for each type."""

from __future__ import annotations

from datetime import datetime

from domain import aggregate
from domain.aggregate import Aggregate, Rejection
from domain.models.model import ModelName, ProviderName


class DefaultModel(Aggregate):
    """The id is the type."""

    TOPIC = "default_model"
    provider: str
    model: str

    class Event(aggregate.Event):
        pass

    class Chosen(Event, aggregate.Created):
        """A default was chosen."""

        TOPIC = "default_model.chosen.v1"
        provider: ProviderName
        model: ModelName

    class Changed(Event):
        """Another default was chosen, or one again after the removal."""

        TOPIC = "default_model.changed.v1"
        provider: ProviderName
        model: ModelName

        def apply(self, default: DefaultModel) -> None:
            default.deleted = False
            default.provider = self.provider
            default.model = self.model

    class Removed(Event):
        """There is no default any more."""

        TOPIC = "default_model.removed.v1"

        def apply(self, default: DefaultModel) -> None:
            default.deleted = True

    def change(self, at: datetime, *, provider: str, model: str) -> None:
        if self.deleted or (self.provider, self.model) != (provider, model):
            self.record(self.Changed, at, provider=provider, model=model)

    def remove(self, at: datetime) -> None:
        if self.deleted:
            raise Rejection("not_found", f"There is no default model of type {self.id}.", "type")
        self.record(self.Removed, at)
