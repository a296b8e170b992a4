from __future__ import annotations

import re

from domain.access.sql_login import SqlLogin, role_of
from domain.aggregate import new_id
from tests.domain.scenario import NOW, given, made


def login() -> SqlLogin:
    return SqlLogin.begin(SqlLogin.Created, new_id(), NOW, name="bi", role="t_1", sealed_verifier="v2:c2VhbGVk")


def revoke(login: SqlLogin) -> None:
    login.revoke(NOW)


def test_is_created() -> None:
    made(login()).then(SqlLogin.Created).whole(name="bi", role="t_1", sealed_verifier="v2:c2VhbGVk")


def test_is_revoked_for_good_and_forgets_its_verifier() -> None:
    scenario = given(login()).once(revoke, SqlLogin.Revoked)
    assert (scenario.aggregate.deleted, scenario.aggregate.sealed_verifier) == (True, "")


def test_a_role_reveals_nothing_and_is_another_for_each_login_and_tenant() -> None:
    id = new_id()
    roles = {role_of("acme", id), role_of("other", id), role_of("acme", new_id())}
    assert len(roles) == 3
    assert all(re.fullmatch("t_[0-9a-f]{16}", role) for role in roles)
    assert role_of("acme", id) in roles
