"""Servers of models: the table `providers`."""

from __future__ import annotations

from sqlalchemy import Boolean, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.models.provider import Provider
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

providers = ReadModel(
    "providers",
    "Servers of models that were registered. Their keys are in no table.",
    key("id", "Name that apps call the provider by."),
    required("kind", Text, "Protocol: openai, openai_responses, ollama, anthropic or gemini."),
    required("base_url", Text, "Address of its API."),
    required("credentials", JSONB, "Names of its credentials: a list. They are rows in provider_credentials."),
    required("has_key", Boolean, "It has a credential."),
    required("status", Text, "active or removed; a removed one is not called any more."),
    required("created_by", Text, "Actor who registered it."),
    required("created_at", Time, "When it was first registered."),
    required("updated_at", Time, "Time of the last change."),
)
providers.derives("has_key", lambda row: bool(row["credentials"]))


@providers.makes(Provider.Registered, new=originator)
def registered(event: Provider.Registered, message: Recorded) -> Row:
    return {"id": event.originator_id, **_server(event), "created_by": message.metadata.actor}


@providers.changes(Provider.Changed)
def changed(row: Row, event: Provider.Changed, message: Recorded) -> Row:
    return _server(event)


def _server(event: Provider.Registered | Provider.Changed) -> Row:
    credentials = [credential["name"] for credential in event.credentials]
    return {"kind": event.kind, "base_url": event.base_url, "credentials": credentials, "status": "active"}


@providers.changes(Provider.CredentialAdded)
def keyed(row: Row, event: Provider.CredentialAdded, message: Recorded) -> Row:
    return {"credentials": [*_others(row, event.name), event.name]}


@providers.changes(Provider.CredentialRemoved)
def unkeyed(row: Row, event: Provider.CredentialRemoved, message: Recorded) -> Row:
    return {"credentials": _others(row, event.name)}


def _others(row: Row, name: str) -> list[str]:
    return [other for other in row["credentials"] if other != name]


@providers.changes(Provider.Removed)
def removed(row: Row, event: Provider.Removed, message: Recorded) -> Row:
    return {"status": "removed", "credentials": []}
