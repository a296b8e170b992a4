"""Members of tenants: the table `tenant_account_joins`."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Text

from domain.access.tenant import Tenant
from domain.log import Recorded
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row, originator
from projections.tenants import itself, tenants


def _account(event: Tenant.MemberRemoved, message: Recorded) -> str:
    return event.account


tenant_account_joins = ReadModel(
    "tenant_account_joins",
    "Members of tenants, each with one role; a tenant has exactly one owner. A member that was removed has no row.",
    key("account_id", "Account, in accounts."),
    required("role", Text, "owner, admin, editor, member, dataset_operator or viewer."),
    required("created_at", Time, "When the account became a member, or last got another role."),
    belongs=itself,
)
tenant_account_joins.clears(Tenant.MemberRemoved, pick=_account)


@tenant_account_joins.makes(Tenant.Created)
def created(event: Tenant.Created, message: Recorded) -> Row:
    return {"account_id": event.owner, "role": "owner"}


@tenant_account_joins.makes(Tenant.MemberAdded, Tenant.RoleSet)
def has_role(event: Tenant.MemberAdded | Tenant.RoleSet, message: Recorded) -> Row:
    return {"account_id": event.account, "role": event.role}


@tenant_account_joins.makes(Tenant.Transferred, related=(tenants, originator))
def transferred(event: Tenant.Transferred, message: Recorded, tenant: Row | None) -> Iterable[Row]:
    yield {"account_id": event.account, "role": "owner"}
    if tenant:
        yield {"account_id": tenant["owner_account_id"], "role": "admin"}
