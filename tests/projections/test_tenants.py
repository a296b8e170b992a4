from __future__ import annotations

from datetime import timedelta

import pytest

from domain.access.tenant import HOUSE, Tenant
from projections.tenant_account_joins import tenant_account_joins
from projections.tenant_invitations import tenant_invitations
from projections.tenants import tenants
from tests.projections.history import History

DIGEST, OTHER = "0" * 64, "1" * 64


@pytest.fixture
def history() -> History:
    return History(HOUSE)


def created(history: History, name: str = "acme", owner: str = "ada") -> Tenant:
    tenant = Tenant.begin(Tenant.Created, name, history.now, name=name.title(), owner=owner)
    history.record(tenant)
    return tenant


def roles(history: History) -> dict[tuple[str, str], str]:
    return {(row["tenant_id"], row["account_id"]): row["role"] for row in history.rows(tenant_account_joins)}


def test_a_tenant_has_a_row_that_belongs_to_itself(history: History) -> None:
    tenant = created(history)
    [row] = history.rows(tenants)
    assert row == {
        "tenant_id": "acme",
        "id": "acme",
        "name": "Acme",
        "owner_account_id": "ada",
        "status": "normal",
        "created_by": "ada",
        "created_at": tenant.created_on,
        "updated_at": tenant.created_on,
        "log_position": 1,
    }
    assert roles(history) == {("acme", "ada"): "owner"}


def test_renaming_archiving_and_unarchiving_are_followed(history: History) -> None:
    tenant = created(history)
    tenant.rename(history.now, name="Acme Ltd")
    tenant.archive(history.now)
    at = history.record(tenant)
    [row] = history.rows(tenants)
    assert (row["name"], row["status"], row["updated_at"]) == ("Acme Ltd", "archive", at)
    tenant.unarchive(history.now)
    history.record(tenant)
    assert [row["status"] for row in history.rows(tenants)] == ["normal"]


def test_members_come_change_their_role_and_go(history: History) -> None:
    tenant, other = created(history), created(history, "other", "bo")
    tenant.add(history.now, "bo", "editor")
    tenant.add(history.now, "cy", "viewer")
    other.add(history.now, "cy", "admin")
    history.record(tenant)
    history.record(other)
    tenant.set_role(history.now, "bo", "admin", by="anon")
    at = history.record(tenant)
    tenant.remove(history.now, "cy", by="anon")
    history.record(tenant)
    assert roles(history) == {
        ("acme", "ada"): "owner",
        ("acme", "bo"): "admin",
        ("other", "bo"): "owner",
        ("other", "cy"): "admin",
    }
    assert next(row["created_at"] for row in history.rows(tenant_account_joins) if row["role"] == "admin") == at


@pytest.mark.parametrize("member", [True, False])
def test_a_transfer_makes_the_former_owner_an_admin(history: History, member: bool) -> None:
    tenant = created(history)
    if member:
        tenant.add(history.now, "bo", "viewer")
        history.record(tenant)
    tenant.transfer(history.now, "bo")
    history.record(tenant)
    assert roles(history) == {("acme", "ada"): "admin", ("acme", "bo"): "owner"}
    assert [row["owner_account_id"] for row in history.rows(tenants)] == ["bo"]
    tenant.transfer(history.now, "ada")
    history.record(tenant)
    assert roles(history) == {("acme", "ada"): "owner", ("acme", "bo"): "admin"}


def test_an_invitation_is_open_until_it_is_accepted_or_withdrawn(history: History) -> None:
    tenant = created(history)
    ends_at = history.now + timedelta(days=1)
    for digest in (DIGEST, OTHER):
        tenant.invite(history.now, digest=digest, role="editor", ends_at=ends_at)
    history.record(tenant)
    first, second = history.rows(tenant_invitations)
    assert (first["tenant_id"], first["id"], first["role"], first["status"]) == ("acme", DIGEST, "editor", "open")
    assert (first["ends_at"], first["account_id"]) == (ends_at, None)
    tenant.accept(history.now, digest=DIGEST, account="bo")
    tenant.withdraw(history.now, digest=OTHER)
    history.record(tenant)
    first, second = history.rows(tenant_invitations)
    assert (first["status"], first["account_id"]) == ("accepted", "bo")
    assert (second["status"], second["account_id"]) == ("withdrawn", None)
    assert roles(history)["acme", "bo"] == "editor"
