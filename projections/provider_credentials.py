"""Keys of providers: the table `provider_credentials`. No key is in it."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Integer, Text

from domain.log import Recorded
from domain.models.provider import Credential, Provider
from projections.engine.columns import Id, Time, key, required
from projections.engine.read_model import ReadModel, Row

provider_credentials = ReadModel(
    "provider_credentials",
    "Credentials of providers. No key is in any table. A removed one has no row.",
    key("id", "Provider and name: openai/default."),
    required("provider_id", Id, "Provider, in providers."),
    required("name", Text, "Name, unique within the provider."),
    required("weight", Integer, "Share of the calls that it gets, relative to the weights of the others."),
    required("status", Text, "unchecked; or of the last check: works, or the error code of the server's refusal."),
    required("hint", Text, "Last characters of the key, to recognize it by; empty when unknown."),
    required("created_by", Text, "Actor who gave it."),
    required("created_at", Time, "When it was given."),
    required("updated_at", Time, "Time of the last change."),
)


def _id(event: Provider.CredentialRemoved | Provider.CredentialChecked, message: Recorded) -> str:
    return f"{event.originator_id}/{event.name}"


provider_credentials.clears(Provider.Changed, column="provider_id")
provider_credentials.clears(Provider.Removed, column="provider_id")
provider_credentials.clears(Provider.CredentialRemoved, pick=_id)


@provider_credentials.makes(Provider.Registered, Provider.Changed)
def registered(event: Provider.Registered | Provider.Changed, message: Recorded) -> Iterator[Row]:
    return (_row(event.originator_id, credential, message) for credential in event.credentials)


@provider_credentials.makes(Provider.CredentialAdded)
def added(event: Provider.CredentialAdded, message: Recorded) -> Row:
    credential = Credential(name=event.name, weight=event.weight, sealed_key="", hint=event.hint)
    return _row(event.originator_id, credential, message)


@provider_credentials.changes(Provider.CredentialChecked, pick=_id)
def checked(row: Row, event: Provider.CredentialChecked, message: Recorded) -> Row:
    return {"status": event.code or "works"}


def _row(provider: str, credential: Credential, message: Recorded) -> Row:
    return {
        "id": f"{provider}/{credential['name']}",
        "provider_id": provider,
        "name": credential["name"],
        "weight": credential["weight"],
        "status": "unchecked",
        "hint": credential["hint"],
        "created_by": message.metadata.actor,
    }
