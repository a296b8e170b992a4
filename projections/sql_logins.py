"""Logins of tenants for SQL: the table `sql_logins`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.access.sql_login import SqlLogin
from domain.log import Recorded
from projections.engine.columns import Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

sql_logins = ReadModel(
    "sql_logins",
    "Logins that read the tenant's rows by SQL. Neither their passwords nor verifiers of these are in any table.",
    key("id", "Id of the command that created it."),
    required("name", Text, "Name, for people."),
    required("role", Text, "Role in PostgreSQL, which is the user name."),
    required("status", Text, "active or revoked."),
    required("created_by", Text, "Actor who created it."),
    optional("revoked_by", Text, "Actor who revoked it; null before."),
    required("created_at", Time, "When it was created."),
    optional("revoked_at", Time, "When it was revoked; null before."),
)


@sql_logins.makes(SqlLogin.Created, new=originator)
def created(event: SqlLogin.Created, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "name": event.name,
        "role": event.role,
        "status": "active",
        "created_by": message.metadata.actor,
    }


@sql_logins.changes(SqlLogin.Revoked)
def revoked(row: Row, event: SqlLogin.Revoked, message: Recorded) -> Row:
    return {"status": "revoked", "revoked_by": message.metadata.actor, "revoked_at": event.timestamp}
