from __future__ import annotations

from typing import get_args

from domain.access.permissions import IN_ARCHIVES, OF_KEYS, OF_SERVICES, OPERATORS, PERMISSIONS, ROLES, UNLIMITED
from domain.access.tenant import Role


def test_each_role_has_its_permissions() -> None:
    assert set(ROLES) == set(get_args(Role))
    assert ROLES["owner"] == set(PERMISSIONS) - OPERATORS
    assert ROLES["owner"] - ROLES["admin"] == {"tenant.transfer"}
    for weaker, stronger in (("viewer", "editor"), ("member", "editor"), ("editor", "admin"), ("admin", "owner")):
        assert ROLES[weaker] < ROLES[stronger]
    assert ROLES["dataset_operator"] < ROLES["editor"]


def test_no_program_manages_keys_members_or_accounts() -> None:
    for of_programs in (OF_SERVICES, OF_KEYS):
        assert not of_programs & OPERATORS
        assert not of_programs & {"key.manage", "member.manage", "sql.manage", "tenant.manage", "tenant.transfer"}


def test_what_ends_a_danger_is_never_refused_for_a_limit_or_an_archive() -> None:
    assert {"key.manage", "sql.manage", "end_user.erase", "account.manage"} <= UNLIMITED & IN_ARCHIVES
