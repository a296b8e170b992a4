"""Values that plugins keep: the table `plugin_storage`. No value is in it, and no key."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.tools.plugin_storage import PluginStorage
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

plugin_storage = ReadModel(
    "plugin_storage",
    "Values that plugins keep for the tenant.",
    key("id", "Plugin, in plugins."),
    required("keys", Integer, "Number of values."),
    required("bytes", BigInteger, "Size of all values together."),
    required("sizes", JSONB, "Size of each value in bytes, by the SHA-256 of its key."),
    required("created_at", Time, "When the first value was stored."),
    required("updated_at", Time, "Time of the last change."),
)


@plugin_storage.makes(PluginStorage.Begun, new=originator)
def begun(event: PluginStorage.Begun, message: Recorded) -> Row:
    return {"id": event.originator_id, **_counted({})}


@plugin_storage.changes(PluginStorage.Stored)
def stored(row: Row, event: PluginStorage.Stored, message: Recorded) -> Row:
    return _counted({**row["sizes"], event.key: event.size})


@plugin_storage.changes(PluginStorage.Deleted)
def deleted(row: Row, event: PluginStorage.Deleted, message: Recorded) -> Row:
    return _counted({name: size for name, size in row["sizes"].items() if name != event.key})


@plugin_storage.changes(PluginStorage.Cleared)
def cleared(row: Row, event: PluginStorage.Cleared, message: Recorded) -> Row:
    return _counted({})


def _counted(sizes: dict[str, int]) -> Row:
    return {"keys": len(sizes), "bytes": sum(sizes.values()), "sizes": sizes}
