"""The storage of a plugin: values that it keeps for a tenant, by key."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

MOST_VALUES = 1000
"""Maximum number of values of a plugin."""


class Value(TypedDict):
    """A value: the blob that holds it, its size in bytes, and the person with whose key the blob is sealed."""

    digest: str
    size: int
    person: str | None


Key = Annotated[str, "SHA-256 of the key, in hex: keys may be words of people."]


class PluginStorage(Aggregate):
    """The id is the name of the plugin."""

    TOPIC = "plugin_storage"
    values: dict[str, Value] = field(default_factory=dict, init=False)
    """By the SHA-256 of the key."""

    class Event(aggregate.Event):
        pass

    class Begun(Event, aggregate.Created):
        """A plugin stores something for the tenant for the first time."""

        TOPIC = "plugin_storage.begun.v1"

    class Stored(Event):
        """The plugin stored a value, in place of an earlier one."""

        TOPIC = "plugin_storage.stored.v1"
        key: Key
        digest: Annotated[str, "Blob that holds the value."]
        size: Annotated[int, "Size of the value, in bytes."]
        person: Annotated[
            str | None, "Person with whose key the blob is sealed, for whom it was stored; null for none."
        ]

        def apply(self, storage: PluginStorage) -> None:
            storage.values[self.key] = Value(digest=self.digest, size=self.size, person=self.person)

    class Deleted(Event):
        """The plugin deleted a value."""

        TOPIC = "plugin_storage.deleted.v1"
        key: Key

        def apply(self, storage: PluginStorage) -> None:
            storage.values.pop(self.key, None)

    class Cleared(Event):
        """The tenant deleted all values."""

        TOPIC = "plugin_storage.cleared.v1"

        def apply(self, storage: PluginStorage) -> None:
            storage.values = {}

    @property
    def size(self) -> int:
        return sum(value["size"] for value in self.values.values())

    def store(self, at: datetime, *, key: str, value: Value, most: int) -> None:
        """Store a value, where all of them have this number of bytes at most. Raises: Rejection `too_large`."""
        before = self.values.get(key)
        if before == value:
            return
        size = self.size - (before["size"] if before else 0) + value["size"]
        if size > most:
            raise Rejection("too_large", f"The values would have {size:,} bytes, {most:,} are allowed.", "value")
        if before is None and len(self.values) >= MOST_VALUES:
            raise Rejection("too_large", f"There are {MOST_VALUES:,} values already.", "key")
        self.record(self.Stored, at, key=key, **value)

    def delete(self, at: datetime, *, key: str) -> None:
        if key in self.values:
            self.record(self.Deleted, at, key=key)

    def clear(self, at: datetime) -> None:
        if self.values:
            self.record(self.Cleared, at)
