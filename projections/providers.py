"""Servers of models: the table `providers`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Double, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.models.provider import Provider
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

providers = ReadModel(
    "providers",
    "Servers of models that were registered. Their keys are in no table.",
    key("id", "Name that apps call the provider by."),
    required("kind", Text, "Protocol: openai, openai_responses, ollama, anthropic, gemini, or dify, a plugin."),
    required("base_url", Text, "Address of its API."),
    required("credentials", JSONB, "Names of its credentials: a list. They are rows in provider_credentials."),
    required("has_key", Boolean, "It has a credential."),
    required("status", Text, "active or removed; a removed one is not called any more."),
    required("check_status", Text, "State of the last check: none, requested, ok or failed."),
    optional("check_trace_id", Id, "Trace of the last check, in traces: its calls have it; null for none."),
    optional("check_code", Text, "Error code of the last check; null on success, and before its end."),
    optional("check_reason", Text, "Error message of the last check; null likewise."),
    optional("checked_at", Time, "When the last check ended; null before."),
    optional("checked_model", Text, "Model that the last check measured; null for none."),
    optional("models", BigInteger, "Number of models that the server listed; null when it gave no list."),
    optional("latency_ms", Double, "Milliseconds to the first token or to the list of models in the last check."),
    required("limits", JSONB, "Limits that the headers of the server stated in the last check, by name."),
    required("created_by", Text, "Actor who registered it."),
    required("created_at", Time, "When it was first registered."),
    required("updated_at", Time, "Time of the last change."),
)
providers.sorted_by("open", postgresql_where=text("check_status = 'requested'"))
providers.derives("has_key", lambda row: bool(row["credentials"]))


@providers.makes(Provider.Registered, new=originator)
def registered(event: Provider.Registered, message: Recorded) -> Row:
    unchecked = {"check_status": "none", "limits": {}}
    return {"id": event.originator_id, **_server(event), **unchecked, "created_by": message.metadata.actor}


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


@providers.changes(Provider.CheckRequested)
def check_requested(row: Row, event: Provider.CheckRequested, message: Recorded) -> Row:
    trace = message.metadata.correlation
    return {"check_status": "requested", "check_trace_id": trace, "check_code": None, "check_reason": None}


@providers.changes(Provider.Checked)
def checked(row: Row, event: Provider.Checked, message: Recorded) -> Row:
    return {
        "check_status": "failed" if event.code else "ok",
        "check_code": event.code,
        "check_reason": event.reason,
        "checked_at": event.timestamp,
        "checked_model": event.model,
        "models": event.models,
        "latency_ms": event.latency_ms,
        "limits": event.limits,
    }


@providers.changes(Provider.Removed)
def removed(row: Row, event: Provider.Removed, message: Recorded) -> Row:
    ended = {"check_status": "none"} if row["check_status"] == "requested" else {}
    return {"status": "removed", "credentials": [], **ended}
