"""Port of the roles of SQL logins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class NotAllowed(Exception):
    """The database does not let us change its roles; the message says what its administrator must do."""


class Role(NamedTuple):
    """A role that is there.

    `tenant` is None for one that reads no rows in this database, such as that of another one on the same server.
    `verifier` is empty where the role is incomplete; None where the database does not show verifiers.
    """

    tenant: str | None
    verifier: str | None


class SqlRoles(Protocol):
    """The roles of SQL logins in the database. Every method raises: Unavailable, NotAllowed."""

    async def held(self) -> Mapping[str, Role]:
        """The roles of SQL logins, by name."""
        ...

    async def make(self, tenant: str, role: str, verifier: str) -> None:
        """Let a role log in that reads the rows of this tenant; may be repeated. A role keeps its tenant."""
        ...

    async def end(self, role: str) -> None:
        """Take its rights from a role, end its sessions, and remove it; may be repeated."""
        ...
