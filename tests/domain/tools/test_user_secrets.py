from __future__ import annotations

from domain.aggregate import new_id
from domain.tools.user_secrets import UserSecrets
from tests.domain.scenario import NOW, given


def begun() -> UserSecrets:
    return UserSecrets.begin(UserSecrets.Begun, new_id(), NOW)


def give(secrets: UserSecrets) -> None:
    secrets.set(NOW, toolset="crm", sealed="c2VhbGVk", place="a" * 64)


def test_a_secret_is_set_once_and_replaced() -> None:
    known = given(begun()).when(give).then(UserSecrets.Set, toolset="crm", sealed="c2VhbGVk", place="a" * 64)
    known.when(give).nothing()
    moved = known.when(lambda it: it.set(NOW, toolset="crm", sealed="c2VhbGVk", place="b" * 64))
    moved.then(UserSecrets.Set, place="b" * 64)


def test_a_secret_is_removed_where_there_is_one() -> None:
    removed = given(begun(), give).when(lambda it: it.remove(NOW, toolset="crm")).then(UserSecrets.Removed)
    assert removed.aggregate.secrets == {}
    removed.when(lambda it: it.remove(NOW, toolset="crm")).rejects("not_found", "toolset")
