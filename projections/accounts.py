"""Accounts of people and services: the table `accounts`."""

from __future__ import annotations

from sqlalchemy import Boolean, Text

from domain.access.account import Account
from domain.access.end_user import EndUser
from domain.log import Recorded
from projections.engine.columns import Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

_ERASED = {"name": "", "email": "", "status": "erased", "has_password": False}

accounts = ReadModel(
    "accounts",
    "Accounts of people and services, in the tenant _house. An erased account stays, without its words.",
    key("id", "Account."),
    required("kind", Text, "person or service."),
    required("name", Text, "Name, for people; empty when the account was erased."),
    required("email", Text, "E-mail address, in lower case; empty for a service, and when the account was erased."),
    required("status", Text, "active, disabled or erased."),
    required("has_password", Boolean, "It can sign in with a password."),
    optional("signed_out_at", Time, "Sessions that began before this time have ended; null for none."),
    required("created_by", Text, "Actor who created it."),
    person(),
    required("created_at", Time, "When it was created."),
    required("updated_at", Time, "Time of the last change."),
)
accounts.sets(EndUser.Erased, _ERASED, column="person_id")


@accounts.makes(Account.Created, new=originator)
def created(event: Account.Created, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "kind": event.kind,
        "name": event.name,
        "email": event.email,
        "status": "active",
        "has_password": event.password != "",
        "created_by": message.metadata.actor,
        "person_id": message.metadata.person,
    }


@accounts.changes(Account.Renamed)
def renamed(row: Row, event: Account.Renamed, message: Recorded) -> Row:
    return {"name": event.name}


@accounts.changes(Account.PasswordChanged)
def password_changed(row: Row, event: Account.PasswordChanged, message: Recorded) -> Row:
    return {"has_password": event.password != "", "signed_out_at": event.timestamp}


@accounts.changes(Account.SignedOut)
def signed_out(row: Row, event: Account.SignedOut, message: Recorded) -> Row:
    return {"signed_out_at": event.timestamp}


@accounts.changes(Account.Disabled)
def disabled(row: Row, event: Account.Disabled, message: Recorded) -> Row:
    return {"status": "disabled", "signed_out_at": event.timestamp}


@accounts.changes(Account.Enabled)
def enabled(row: Row, event: Account.Enabled, message: Recorded) -> Row:
    return {"status": "active"}


@accounts.changes(Account.Erased)
def erased(row: Row, event: Account.Erased, message: Recorded) -> Row:
    return _ERASED
