"""Commands of API keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from domain.access.api_key import ApiKey
from domain.access.permissions import OF_KEYS
from domain.aggregate import Rejection
from handlers.commands.fields import AppId, Command, DatasetId, Id, Instant, Name, Sha256, instant
from handlers.commands.preparation import Make, Preparation

Digest = Annotated[Sha256, Field(description="SHA-256 of the key, in hex")]
Hint = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,8}$", description="Last characters of the key")]
KeyId = Annotated[Id, Field(description="API key")]


class CreateKey(Command):
    """Create an API key; the door that makes it shows it once, and sends only its SHA-256."""

    name: Name
    digest: Digest
    hint: Hint
    permissions: Annotated[list[str], Field(min_length=1, max_length=50, description="Permissions of the key")]
    apps: Annotated[list[AppId], Field(max_length=100, description="Apps that it is for")] = Field([])
    datasets: Annotated[list[DatasetId], Field(max_length=100, description="Knowledge bases that it is for")] = Field(
        []
    )
    expires_at: Instant | None = Field(None, description="End, ISO 8601 with a time zone; null for none")
    account: Id | None = Field(None, description="Account that it belongs to: never more than its role; null for none")


class RenameKey(Command):
    """Rename a key."""

    api_key: KeyId
    name: Name


class ReplaceKey(Command):
    """Replace a key by another one with the same rights; the former one works for a while."""

    api_key: KeyId
    digest: Digest
    hint: Hint
    overlap_s: Annotated[int, Field(ge=0, le=90 * 86_400)] = Field(
        86_400, description="Time for which the former key works, in seconds"
    )


class RevokeKey(Command):
    """Revoke a key, at once and for ever."""

    api_key: KeyId


async def create(command: CreateKey, given: Preparation) -> Make[ApiKey]:
    for number, permission in enumerate(command.permissions):
        if permission not in OF_KEYS:
            message = f"Must be one of {', '.join(sorted(OF_KEYS))}."
            raise Rejection("invalid", message, f"permissions.{number}")
    if command.account and not await given.ports.is_member(given.tenant, command.account):
        raise Rejection("not_found", "This account is no member of the tenant.", "account")

    def make(id: str, at: datetime) -> ApiKey:
        if command.expires_at and instant(command.expires_at) <= at:
            raise Rejection("invalid", "Must be in the future.", "expires_at")
        return ApiKey.begin(
            ApiKey.Created,
            id,
            at,
            name=command.name,
            digest=command.digest,
            hint=command.hint,
            permissions=sorted(set(command.permissions)),
            apps=command.apps,
            datasets=command.datasets,
            expires_at=command.expires_at and instant(command.expires_at).isoformat(),
            account=command.account,
        )

    return make


def replace(key: ApiKey, at: datetime, command: ReplaceKey) -> None:
    former_ends_at = at + timedelta(seconds=command.overlap_s)
    key.replace(at, digest=command.digest, hint=command.hint, former_ends_at=former_ends_at)
