"""Commands of tenants: their members, roles and invitations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from domain.access.account import Account
from domain.access.tenant import TENANT_OR_HOUSE, Role, Tenant
from domain.aggregate import Rejection
from handlers.commands.fields import Command, Id, Instant, Name, Ref, Sha256, instant
from handlers.commands.preparation import Change, MakeOrChange, Preparation

TenantName = Annotated[
    str,
    Field(
        pattern=f"^({TENANT_OR_HOUSE.pattern})$",
        description="Tenant, as in subjects; `_house` for the operators of the installation",
    ),
]
Member = Annotated[Id, Ref(Account), Field(description="Account")]
RoleField = Annotated[Role, Field(description="Role")]
Digest = Annotated[Sha256, Field(description="SHA-256 of the invitation's secret, in hex")]


class OfTenant(Command):
    tenant: TenantName


class CreateTenant(OfTenant):
    """Create a tenant with its owner. What the name had before, without an owner, stays."""

    owner: Member
    name: Name


class RenameTenant(OfTenant):
    """Rename a tenant; its name in subjects stays."""

    name: Name


class AddMember(OfTenant):
    """Make an account a member."""

    account: Member
    role: RoleField


class SetRole(OfTenant):
    """Give a member another role. No account changes its own."""

    account: Member
    role: RoleField


class RemoveMember(OfTenant):
    """Remove a member. No account removes itself."""

    account: Annotated[Id, Field(description="Account")]


class TransferTenant(OfTenant):
    """Make another account the owner; the former one becomes an admin. An operator may, when the owner is lost."""

    account: Member


class Invite(OfTenant):
    """Make an invitation; an account that shows its secret becomes a member, once."""

    digest: Digest
    role: RoleField
    ends_at: Instant = Field(description="End of the invitation, ISO 8601 with a time zone")


class AcceptInvitation(OfTenant):
    """Make an account a member by an invitation; sent by the door that has checked the secret and the account."""

    digest: Digest
    account: Member


class WithdrawInvitation(OfTenant):
    """Withdraw an invitation."""

    digest: Digest


class ArchiveTenant(OfTenant):
    """Archive a tenant: it can be read, and nothing in it changes."""


class UnarchiveTenant(OfTenant):
    """Let an archived tenant change again."""


async def create(command: CreateTenant, given: Preparation) -> MakeOrChange[Tenant]:
    _active(given, "owner")

    def decide(tenant: Tenant | None, id: str, at: datetime) -> Tenant:
        if tenant is not None:
            raise Rejection("exists", "There is a tenant with this name already.", "tenant")
        return Tenant.begin(Tenant.Created, id, at, name=command.name, owner=command.owner)

    return decide


async def add(command: AddMember, given: Preparation) -> Change[Tenant]:
    _active(given)
    return lambda tenant, at: tenant.add(at, command.account, command.role)


async def set_role(command: SetRole, given: Preparation) -> Change[Tenant]:
    return lambda tenant, at: tenant.set_role(at, command.account, command.role, by=given.actor)


async def remove(command: RemoveMember, given: Preparation) -> Change[Tenant]:
    return lambda tenant, at: tenant.remove(at, command.account, by=given.actor)


async def transfer(command: TransferTenant, given: Preparation) -> Change[Tenant]:
    _active(given)
    return lambda tenant, at: tenant.transfer(at, command.account)


async def accept(command: AcceptInvitation, given: Preparation) -> Change[Tenant]:
    _active(given)
    return lambda tenant, at: tenant.accept(at, digest=command.digest, account=command.account)


def invite(tenant: Tenant, at: datetime, command: Invite) -> None:
    tenant.invite(at, digest=command.digest, role=command.role, ends_at=instant(command.ends_at))


def _active(given: Preparation, field: str = "account") -> None:
    if not given.the(Account, field).is_active:
        raise Rejection("disabled", "This account is disabled.", field)
