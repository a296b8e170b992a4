"""Invitations to tenants: the table `tenant_invitations`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text

from domain.access.tenant import Tenant
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row
from projections.tenants import itself


def _digest(event: Tenant.Invited | Tenant.InvitationWithdrawn, message: Recorded) -> str:
    return event.digest


def _accepted(event: Tenant.MemberAdded, message: Recorded) -> str | None:
    return event.invitation or None


tenant_invitations = ReadModel(
    "tenant_invitations",
    "Invitations to tenants. The secret of an invitation is in no table.",
    key("id", "SHA-256 of its secret, in hex."),
    required("role", Text, "Role of the account that accepts it."),
    required("status", Text, "open, accepted or withdrawn; an open one also ends with its time."),
    optional("account_id", Id, "Account that accepted it; null before."),
    required("created_by", Text, "Actor who made it."),
    required("ends_at", Time, "When it ends."),
    required("created_at", Time, "When it was made."),
    required("updated_at", Time, "Time of the last change."),
    belongs=itself,
)


@tenant_invitations.makes(Tenant.Invited)
def invited(event: Tenant.Invited, message: Recorded) -> Row:
    return {
        "id": event.digest,
        "role": event.role,
        "status": "open",
        "created_by": message.metadata.actor,
        "ends_at": datetime.fromisoformat(event.ends_at),
    }


@tenant_invitations.changes(Tenant.MemberAdded, pick=_accepted)
def accepted(row: Row, event: Tenant.MemberAdded, message: Recorded) -> Row:
    return {"status": "accepted", "account_id": event.account}


@tenant_invitations.changes(Tenant.InvitationWithdrawn, pick=_digest)
def withdrawn(row: Row, event: Tenant.InvitationWithdrawn, message: Recorded) -> Row:
    return {"status": "withdrawn"}
