"""An API key of a tenant's program: what it may do, where, and how long.

The door that makes a key shows it once, and sends its SHA-256: the key itself is in no command.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

Kind = Literal["app", "dataset", "tenant"]

KeyName = Annotated[str, "Name, for people."]
Digest = Annotated[str, "SHA-256 of the key, in hex."]
Hint = Annotated[str, "Last characters of the key, to recognize it by."]


def kind(apps: Sequence[str], datasets: Sequence[str]) -> Kind:
    """The kind of a key for these apps and knowledge bases; without any, it is for the whole tenant."""
    return "app" if apps else "dataset" if datasets else "tenant"


class ApiKey(Aggregate):
    TOPIC = "api_key"
    digest: str

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """A key was created."""

        TOPIC = "api_key.created.v1"
        name: KeyName
        digest: Digest
        hint: Hint
        permissions: Annotated[list[str], "Permissions; see [access](access.md)."]
        apps: Annotated[list[str], "Apps that it is for."]
        datasets: Annotated[list[str], "Knowledge bases that it is for; without any, and no app, it is for all."]
        expires_at: Annotated[str | None, "End, ISO 8601; null for none."]
        account: Annotated[str | None, "Account that it belongs to, whose role limits it; null for the tenant's own."]

    class Renamed(Event):
        """The key was renamed."""

        TOPIC = "api_key.renamed.v1"
        name: KeyName

    class Replaced(Event):
        """Another key took its place, with the same rights; the former one ends later."""

        TOPIC = "api_key.replaced.v1"
        digest: Digest
        hint: Hint
        former: Annotated[str, "SHA-256 of the former key, in hex."]
        former_ends_at: Annotated[str, "End of the former key, ISO 8601."]

        def apply(self, key: ApiKey) -> None:
            key.digest = self.digest

    class Revoked(Event):
        """The key was revoked."""

        TOPIC = "api_key.revoked.v1"

        def apply(self, key: ApiKey) -> None:
            key.deleted = True

    def rename(self, at: datetime, *, name: str) -> None:
        self.record(self.Renamed, at, name=name)

    def replace(self, at: datetime, *, digest: str, hint: str, former_ends_at: datetime) -> None:
        if digest == self.digest:
            raise Rejection("invalid", "The new key must be another one.", "digest")
        ends_at = former_ends_at.isoformat()
        self.record(self.Replaced, at, digest=digest, hint=hint, former=self.digest, former_ends_at=ends_at)

    def revoke(self, at: datetime) -> None:
        self.record(self.Revoked, at)
