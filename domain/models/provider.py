"""A provider: a server of chat models, known to a tenant by its name."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate

BUILTIN = "builtin"
"""The provider that needs neither a server nor a registration."""

Address = Annotated[str, "Address of its OpenAI-compatible API, like `https://host/v1`."]
SealedKey = Annotated[str, "API key, encrypted; empty for none."]


class Provider(Aggregate):
    """`sealed_key` is the API key encrypted by the tenant's vault; the clear key is never recorded."""

    TOPIC = "provider"
    base_url: str
    sealed_key: str

    class Event(aggregate.Event):
        pass

    class Registered(Event, aggregate.Created):
        """A server of chat models was registered."""

        TOPIC = "provider.registered.v1"
        base_url: Address
        sealed_key: SealedKey

    class Changed(Event):
        """The address or the key changed, or a removed provider was registered again."""

        TOPIC = "provider.changed.v1"
        base_url: Address
        sealed_key: SealedKey

        def apply(self, provider: Provider) -> None:
            provider.deleted = False
            provider.base_url = self.base_url
            provider.sealed_key = self.sealed_key

    class Removed(Event):
        """The provider and its key were removed."""

        TOPIC = "provider.removed.v1"

        def apply(self, provider: Provider) -> None:
            provider.deleted = True
            provider.sealed_key = ""

    def change(self, at: datetime, *, base_url: str, sealed_key: str) -> None:
        if self.deleted or (self.base_url, self.sealed_key) != (base_url, sealed_key):
            self.record(self.Changed, at, base_url=base_url, sealed_key=sealed_key)

    def remove(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Removed, at)
