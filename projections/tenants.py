"""Tenants: the table `tenants`. Each row belongs to the tenant that it is about."""

from __future__ import annotations

from sqlalchemy import Text

from domain.access.tenant import Tenant
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, required
from projections.engine.read_model import ReadModel, Row, originator


def itself(message: Recorded) -> str:
    """The tenant that a message of a tenant is about."""
    return message.subject.id


tenants = ReadModel(
    "tenants",
    "Tenants that were created; another tenant of the bus has no row. The house, _house, has the operators.",
    key("id", "Tenant, as in subjects."),
    required("name", Text, "Name, for people."),
    required("owner_account_id", Id, "Account of the owner, in accounts."),
    required("status", Text, "normal, or archive: it can be read, and nothing in it changes."),
    required("created_by", Text, "Actor who created it."),
    required("created_at", Time, "When it was created."),
    required("updated_at", Time, "Time of the last change."),
    belongs=itself,
)


@tenants.makes(Tenant.Created, new=originator)
def created(event: Tenant.Created, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "name": event.name,
        "owner_account_id": event.owner,
        "status": "normal",
        "created_by": message.metadata.actor,
    }


@tenants.changes(Tenant.Renamed)
def renamed(row: Row, event: Tenant.Renamed, message: Recorded) -> Row:
    return {"name": event.name}


@tenants.changes(Tenant.Transferred)
def transferred(row: Row, event: Tenant.Transferred, message: Recorded) -> Row:
    return {"owner_account_id": event.account}


@tenants.changes(Tenant.Archived)
def archived(row: Row, event: Tenant.Archived, message: Recorded) -> Row:
    return {"status": "archive"}


@tenants.changes(Tenant.Unarchived)
def unarchived(row: Row, event: Tenant.Unarchived, message: Recorded) -> Row:
    return {"status": "normal"}
