"""A tenant: its members with their roles, its open invitations, and whether it is archived.

Tenants are in the house, under the names that subjects have. The house is a tenant as well: its members operate the
installation. A tenant that was never created works too, for the operator and the services of the bus.
"""

from __future__ import annotations

import re
from dataclasses import field
from datetime import datetime
from typing import Annotated, Literal, get_args

from domain import aggregate
from domain.access.actor import account as actor_of
from domain.aggregate import Aggregate, Rejection

HOUSE = "_house"
"""The tenant of accounts and tenants; no other tenant can have this name."""

TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""The names of all other tenants, as in subjects."""

TENANT_OR_HOUSE = re.compile(rf"{HOUSE}|{TENANT.pattern}")

Role = Literal["owner", "admin", "editor", "member", "dataset_operator", "viewer"]

GIVEN_ROLES = tuple(role for role in get_args(Role) if role != "owner")
"""Roles that can be given: only a transfer makes an owner."""

MOST_MEMBERS, MOST_INVITATIONS = 1000, 100

AccountField = Annotated[str, "Account."]
RoleField = Annotated[str, "`owner`, `admin`, `editor`, `member`, `dataset_operator` or `viewer`."]
DigestField = Annotated[str, "SHA-256 of the invitation's secret, in hex."]


class Tenant(Aggregate):
    TOPIC = "tenant"
    owner: str
    members: dict[str, str] = field(default_factory=dict, init=False)
    """Roles by account, without the owner."""
    invitations: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    """Role and end (ISO 8601) by digest."""
    archived: bool = field(default=False, init=False)

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """A tenant was created."""

        TOPIC = "tenant.created.v1"
        name: Annotated[str, "Name, for people."]
        owner: Annotated[str, "Account of the owner."]

    class Renamed(Event):
        """The tenant was renamed; the name in subjects stays."""

        TOPIC = "tenant.renamed.v1"
        name: Annotated[str, "Name, for people."]

    class MemberAdded(Event):
        """An account became a member."""

        TOPIC = "tenant.member_added.v1"
        account: AccountField
        role: RoleField
        invitation: Annotated[str, "Digest of the invitation that was accepted; empty for none."]

        def apply(self, tenant: Tenant) -> None:
            tenant.members[self.account] = self.role
            tenant.invitations.pop(self.invitation, None)

    class RoleSet(Event):
        """A member got another role."""

        TOPIC = "tenant.role_set.v1"
        account: AccountField
        role: RoleField

        def apply(self, tenant: Tenant) -> None:
            tenant.members[self.account] = self.role

    class MemberRemoved(Event):
        """An account is no longer a member."""

        TOPIC = "tenant.member_removed.v1"
        account: AccountField

        def apply(self, tenant: Tenant) -> None:
            del tenant.members[self.account]

    class Transferred(Event):
        """The tenant has another owner; the former one became an admin."""

        TOPIC = "tenant.transferred.v1"
        account: Annotated[str, "Account of the new owner."]

        def apply(self, tenant: Tenant) -> None:
            tenant.members.pop(self.account, None)
            tenant.members[tenant.owner] = "admin"
            tenant.owner = self.account

    class Invited(Event):
        """An invitation was made. An account that shows its secret becomes a member, once."""

        TOPIC = "tenant.invited.v1"
        digest: DigestField
        role: RoleField
        ends_at: Annotated[str, "End of the invitation, ISO 8601."]

        def apply(self, tenant: Tenant) -> None:
            tenant.invitations[self.digest] = {"role": self.role, "ends_at": self.ends_at}

    class InvitationWithdrawn(Event):
        """An invitation was withdrawn."""

        TOPIC = "tenant.invitation_withdrawn.v1"
        digest: DigestField

        def apply(self, tenant: Tenant) -> None:
            del tenant.invitations[self.digest]

    class Archived(Event):
        """The tenant was archived: it can be read, and nothing in it changes."""

        TOPIC = "tenant.archived.v1"

        def apply(self, tenant: Tenant) -> None:
            tenant.archived = True

    class Unarchived(Event):
        """An archived tenant can change again."""

        TOPIC = "tenant.unarchived.v1"

        def apply(self, tenant: Tenant) -> None:
            tenant.archived = False

    def role(self, account: str) -> str | None:
        """The role of an account, None for no member."""
        return "owner" if account == self.owner else self.members.get(account)

    def rename(self, at: datetime, *, name: str) -> None:
        self.record(self.Renamed, at, name=name)

    def add(self, at: datetime, account: str, role: str, invitation: str = "") -> None:
        if self.role(account):
            raise Rejection("member", "This account is a member already.", "account")
        if len(self.members) >= MOST_MEMBERS:
            raise Rejection("too_many", f"A tenant has at most {MOST_MEMBERS:,} members.")
        self._not_owner(role)
        self.record(self.MemberAdded, at, account=account, role=role, invitation=invitation)

    def set_role(self, at: datetime, account: str, role: str, *, by: str) -> None:
        self._another(account, by)
        self._not_owner(role)
        if self.members[account] != role:
            self.record(self.RoleSet, at, account=account, role=role)

    def remove(self, at: datetime, account: str, *, by: str) -> None:
        self._another(account, by)
        self.record(self.MemberRemoved, at, account=account)

    def transfer(self, at: datetime, account: str) -> None:
        if account != self.owner:
            self.record(self.Transferred, at, account=account)

    def invite(self, at: datetime, *, digest: str, role: str, ends_at: datetime) -> None:
        self._not_owner(role)
        open_ones = [each for each in self.invitations.values() if each["ends_at"] > at.isoformat()]
        if len(open_ones) >= MOST_INVITATIONS:
            raise Rejection("too_many", f"At most {MOST_INVITATIONS} invitations are open; withdraw one first.")
        self.record(self.Invited, at, digest=digest, role=role, ends_at=ends_at.isoformat())

    def accept(self, at: datetime, *, digest: str, account: str) -> None:
        found = self.invitations.get(digest)
        if found is None or datetime.fromisoformat(found["ends_at"]) <= at:
            raise Rejection("invitation_ended", "This invitation was used, withdrawn, or has ended.", "digest")
        self.add(at, account, found["role"], digest)

    def withdraw(self, at: datetime, *, digest: str) -> None:
        if digest not in self.invitations:
            raise Rejection("not_found", "There is no such invitation.", "digest")
        self.record(self.InvitationWithdrawn, at, digest=digest)

    def archive(self, at: datetime) -> None:
        if not self.archived:
            self.record(self.Archived, at)

    def unarchive(self, at: datetime) -> None:
        if self.archived:
            self.record(self.Unarchived, at)

    def _another(self, account: str, by: str) -> None:
        """Raise a rejection unless the account is a member that this actor may change."""
        if account == self.owner:
            raise Rejection("owner", "The owner stays one until the tenant is transferred.", "account")
        if account not in self.members:
            raise Rejection("not_found", "This account is no member.", "account")
        if by == actor_of(account):
            raise Rejection("own_role", "No account changes its own role, or removes itself.", "account")

    def _not_owner(self, role: str) -> None:
        if role == "owner":
            raise Rejection("one_owner", "A tenant has one owner; transfer the tenant instead.", "role")
