"""Servers of chat models: the table `providers`."""

from __future__ import annotations

from sqlalchemy import Boolean, Text

from domain.log import Recorded
from domain.models.provider import Provider
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

providers = ReadModel(
    "providers",
    "Servers of chat models that were registered. Their keys are in no table.",
    key("id", "Name that apps call the provider by."),
    required("base_url", Text, "Address of its OpenAI-compatible API."),
    required("has_key", Boolean, "A key was given."),
    required("status", Text, "active or removed; a removed one is not called any more."),
    required("created_by", Text, "Actor who registered it."),
    required("created_at", Time, "When it was first registered."),
    required("updated_at", Time, "Time of the last change."),
)


@providers.makes(Provider.Registered, new=originator)
def registered(event: Provider.Registered, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "base_url": event.base_url,
        "has_key": event.sealed_key != "",
        "status": "active",
        "created_by": message.metadata.actor,
    }


@providers.changes(Provider.Changed)
def changed(row: Row, event: Provider.Changed, message: Recorded) -> Row:
    return {"base_url": event.base_url, "has_key": event.sealed_key != "", "status": "active"}


@providers.changes(Provider.Removed)
def removed(row: Row, event: Provider.Removed, message: Recorded) -> Row:
    return {"status": "removed", "has_key": False}
