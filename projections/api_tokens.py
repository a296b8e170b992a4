"""API keys: the table `api_tokens`. No key, and no digest of one, is in it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.api_key import ApiKey, kind
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

api_tokens = ReadModel(
    "api_tokens",
    "API keys of tenants' programs. A key and its digest are in no table; when a key was last used is in none, either.",
    key("id", "API key; `k_` and this is its actor."),
    required("type", Text, "app or dataset, for a key of some apps or knowledge bases alone; tenant, for all of them."),
    required("name", Text, "Name, for people."),
    required("hint", Text, "Last characters of the key, to recognize it by."),
    required("permissions", JSONB, "Permissions: a list of names."),
    required("apps", JSONB, "Apps that it is for, in apps."),
    required("datasets", JSONB, "Knowledge bases that it is for, in datasets."),
    optional("expires_at", Time, "When it ends; null for never."),
    optional("account_id", Id, "Account that it belongs to, whose role limits it; null for the tenant's own."),
    required("status", Text, "active or revoked; an active one also ends with its time."),
    optional("former_hint", Text, "Last characters of the key that it replaced; null for none."),
    optional("former_ends_at", Time, "When the key that it replaced ends; null for none."),
    required("created_by", Text, "Actor who created it."),
    required("created_at", Time, "When it was created."),
    required("updated_at", Time, "Time of the last change."),
)


@api_tokens.makes(ApiKey.Created, new=originator)
def created(event: ApiKey.Created, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "type": kind(event.apps, event.datasets),
        "name": event.name,
        "hint": event.hint,
        "permissions": event.permissions,
        "apps": event.apps,
        "datasets": event.datasets,
        "expires_at": event.expires_at and datetime.fromisoformat(event.expires_at),
        "account_id": event.account,
        "status": "active",
        "created_by": message.metadata.actor,
    }


@api_tokens.changes(ApiKey.Renamed)
def renamed(row: Row, event: ApiKey.Renamed, message: Recorded) -> Row:
    return {"name": event.name}


@api_tokens.changes(ApiKey.Replaced)
def replaced(row: Row, event: ApiKey.Replaced, message: Recorded) -> Row:
    ends_at = datetime.fromisoformat(event.former_ends_at)
    return {"hint": event.hint, "former_hint": row["hint"], "former_ends_at": ends_at}


@api_tokens.changes(ApiKey.Revoked)
def revoked(row: Row, event: ApiKey.Revoked, message: Recorded) -> Row:
    return {"status": "revoked"}
