"""Keeps values for plugins: each in a blob, sealed with the key of the person for whom it was stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from domain.aggregate import Rejection, new_id
from domain.log import Metadata
from domain.tools.plugin_storage import PluginStorage, Value
from handlers.files import Files
from handlers.ports.people import Erased
from handlers.ports.tools import Refused
from handlers.repository import Repository

MOST_KEY, MOST_VALUE, MOST_BYTES = 256, 2 * 2**20, 64 * 2**20
"""Maximum length of a key, in characters; of a value, and of all values of a plugin, in bytes."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The values of plugins; each call has a `cause`. Every method raises: Refused, Unavailable."""

    repository: Repository
    files: Files

    async def get(self, plugin: str, cause: Metadata, key: str) -> bytes | None:
        """The value; None where there is none, and where its person was erased."""
        value = await self._value(plugin, cause, key)
        if value is None:
            return None
        try:
            return await self.files.get(cause.tenant, value["person"], "file", value["digest"])
        except (KeyError, ValueError):
            return None

    async def exists(self, plugin: str, cause: Metadata, key: str) -> bool:
        return await self.get(plugin, cause, key) is not None

    async def set(self, plugin: str, cause: Metadata, key: str, data: bytes, most: int) -> None:
        """Store a value; all of the plugin's have `most` bytes together, as its package asks for."""
        if len(data) > MOST_VALUE:
            raise Refused(f"A value has at most {MOST_VALUE:,} bytes.")
        name, at = _named(key), datetime.now(UTC)
        try:
            digest = await self.files.put(cause.tenant, cause.person, "file", data)
        except Erased:
            raise Refused("The person was erased.") from None
        value = Value(digest=digest, size=len(data), person=cause.person)

        def decide(storage: PluginStorage | None) -> PluginStorage:
            storage = storage or PluginStorage.begin(PluginStorage.Begun, plugin, at)
            storage.store(at, key=name, value=value, most=min(most, MOST_BYTES))
            return storage

        try:
            await self.repository.change(PluginStorage, plugin, _of_all(cause), decide)
        except Rejection as rejection:
            raise Refused(rejection.message) from None

    async def delete(self, plugin: str, cause: Metadata, key: str) -> None:
        if await self._value(plugin, cause, key) is None:
            return
        name, at = _named(key), datetime.now(UTC)

        def decide(storage: PluginStorage | None) -> PluginStorage:
            assert storage is not None
            storage.delete(at, key=name)
            return storage

        await self.repository.change(PluginStorage, plugin, _of_all(cause), decide)

    async def _value(self, plugin: str, cause: Metadata, key: str) -> Value | None:
        name = _named(key)
        storage = await self.repository.get(PluginStorage, cause.tenant, plugin)
        return storage.values.get(name) if storage else None


def _named(key: str) -> str:
    if not 0 < len(key) <= MOST_KEY:
        raise Refused(f"A key has 1 to {MOST_KEY} characters.")
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _of_all(cause: Metadata) -> Metadata:
    """The metadata of a change: the storage is of many persons, each value names its own."""
    return replace(cause.caused(new_id()), person=None)
