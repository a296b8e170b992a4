from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from domain.access import tenant as rules
from domain.access.tenant import Tenant
from tests.domain.scenario import NOW, given, made

OWNER, ADMIN, OTHER = "a-owner", "a-admin", "a-other"
DIGEST = "0" * 64


def tenant() -> Tenant:
    return Tenant.begin(Tenant.Created, "acme", NOW, name="Acme", owner=OWNER)


def with_admin(tenant: Tenant) -> None:
    tenant.add(NOW, ADMIN, "admin")


def invited(tenant: Tenant) -> None:
    tenant.invite(NOW, digest=DIGEST, role="editor", ends_at=NOW + timedelta(days=1))


def accept(tenant: Tenant) -> None:
    tenant.accept(NOW, digest=DIGEST, account=OTHER)


def test_has_one_owner() -> None:
    scenario = made(tenant()).then(Tenant.Created).whole(name="Acme", owner=OWNER)
    assert [scenario.aggregate.role(each) for each in (OWNER, ADMIN)] == ["owner", None]


@pytest.mark.parametrize(
    "decision",
    [
        lambda tenant: tenant.add(NOW, OTHER, "owner"),
        lambda tenant: tenant.set_role(NOW, ADMIN, "owner", by="anon"),
        lambda tenant: tenant.invite(NOW, digest=DIGEST, role="owner", ends_at=NOW),
    ],
)
def test_only_a_transfer_makes_another_owner(decision: Callable[[Tenant], None]) -> None:
    given(tenant(), with_admin).when(decision).rejects("one_owner", "role")


def test_a_transfer_makes_the_former_owner_an_admin() -> None:
    scenario = given(tenant(), with_admin).once(lambda it: it.transfer(NOW, ADMIN), Tenant.Transferred, account=ADMIN)
    assert {each: scenario.aggregate.role(each) for each in (OWNER, ADMIN)} == {OWNER: "admin", ADMIN: "owner"}


def test_a_role_is_changed_by_another() -> None:
    scenario = given(tenant(), with_admin)
    scenario.once(lambda it: it.set_role(NOW, ADMIN, "editor", by=f"a_{OWNER}"), Tenant.RoleSet, role="editor")
    assert scenario.aggregate.role(ADMIN) == "editor"


@pytest.mark.parametrize(
    ("account", "by", "code"),
    [(ADMIN, f"a_{ADMIN}", "own_role"), (OWNER, f"a_{ADMIN}", "owner"), (OTHER, f"a_{ADMIN}", "not_found")],
)
def test_no_account_changes_its_own_role_or_the_owners(account: str, by: str, code: str) -> None:
    given(tenant(), with_admin).when(lambda it: it.set_role(NOW, account, "viewer", by=by)).rejects(code, "account")
    given(tenant(), with_admin).when(lambda it: it.remove(NOW, account, by=by)).rejects(code, "account")


def test_a_member_is_removed() -> None:
    scenario = given(tenant(), with_admin).when(lambda it: it.remove(NOW, ADMIN, by="anon")).then(Tenant.MemberRemoved)
    assert scenario.aggregate.role(ADMIN) is None


def test_a_member_is_added_once() -> None:
    given(tenant(), with_admin).when(with_admin).rejects("member", "account")
    given(tenant()).when(lambda it: it.add(NOW, OWNER, "viewer")).rejects("member", "account")


def test_there_is_a_maximum_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MOST_MEMBERS", 1)
    given(tenant(), with_admin).when(lambda it: it.add(NOW, OTHER, "viewer")).rejects("too_many", None)


def test_an_invitation_is_accepted_once() -> None:
    scenario = given(tenant(), invited).when(accept).then(Tenant.MemberAdded, role="editor", invitation=DIGEST)
    assert scenario.aggregate.role(OTHER) == "editor"
    scenario.when(lambda it: it.accept(NOW, digest=DIGEST, account=ADMIN)).rejects("invitation_ended", "digest")


def test_an_invitation_ends() -> None:
    late = NOW + timedelta(days=1)
    given(tenant(), invited).when(lambda it: it.accept(late, digest=DIGEST, account=OTHER)).rejects(
        "invitation_ended", "digest"
    )


def test_an_invitation_is_withdrawn() -> None:
    scenario = given(tenant(), invited).when(lambda it: it.withdraw(NOW, digest=DIGEST))
    scenario.then(Tenant.InvitationWithdrawn).when(accept).rejects("invitation_ended", "digest")


def test_is_archived_and_changes_again() -> None:
    scenario = given(tenant()).once(lambda it: it.archive(NOW), Tenant.Archived)
    assert scenario.aggregate.archived
    assert not scenario.once(lambda it: it.unarchive(NOW), Tenant.Unarchived).aggregate.archived
