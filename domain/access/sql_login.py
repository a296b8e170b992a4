"""A SQL login: a role in PostgreSQL with which people of a tenant, and their tools, read its rows."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate


def role_of(tenant: str, id: str) -> str:
    """The role of a login, by its id: a name that reveals neither the tenant nor the login.

    Its sender cannot choose it, so that no tenant can name the role of another.
    """
    return f"t_{sha256(f'sql_login/{tenant}/{id}'.encode()).hexdigest()[:16]}"


class SqlLogin(Aggregate):
    """`sealed_verifier` proves the password, and is encrypted by the tenant's vault; neither is recorded in clear."""

    TOPIC = "sql_login"
    role: str
    sealed_verifier: str

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """A login was created."""

        TOPIC = "sql_login.created.v1"
        name: Annotated[str, "Name, for people."]
        role: Annotated[str, "Role in PostgreSQL."]
        sealed_verifier: Annotated[str, "SCRAM-SHA-256 verifier of the password, encrypted."]

    class Revoked(Event):
        """The login was revoked for good; its sessions are ended."""

        TOPIC = "sql_login.revoked.v1"

        def apply(self, login: SqlLogin) -> None:
            login.deleted = True
            login.sealed_verifier = ""

    def revoke(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Revoked, at)
