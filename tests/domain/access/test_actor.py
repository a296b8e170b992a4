from __future__ import annotations

import pytest

from domain.access.actor import ACTOR, BUS, OPERATOR, VIEWER, CommandSubject, door, service
from domain.nouns import NOUNS


@pytest.mark.parametrize("token", ["anon", "s_crm", "s_a-b_c", "a_0193aaaa-0000-7000-8000-000000000001", "k_9", "k_Ab"])
def test_an_actor_is_one_token(token: str) -> None:
    assert ACTOR.fullmatch(token)


@pytest.mark.parametrize(
    "text", ["", "anon2", "anonymous", "s_", "s__x", "x_1", "S_x", "s_a.b", "s_*", "s_a b", ">", "s_ä"]
)
def test_nothing_else_is(text: str) -> None:
    assert not ACTOR.fullmatch(text)


def test_no_noun_can_be_taken_for_an_actor() -> None:
    """Else a subject without an actor would have two meanings."""
    assert not [noun for noun in NOUNS if ACTOR.fullmatch(noun)]


def test_a_service_is_an_actor_whatever_its_login_is_called() -> None:
    for name in ("a", "0", "crm-2", "x" * 63):
        assert ACTOR.fullmatch(service(name))


@pytest.mark.parametrize(
    ("actor", "named", "found"),
    [
        ("s_crm", None, BUS),
        ("s_crm", VIEWER, BUS),
        ("k_1", VIEWER, BUS),
        ("anon", None, OPERATOR),
        ("anon", VIEWER, VIEWER),
        ("anon", BUS, BUS),
        ("a_1", "back", OPERATOR),
    ],
)
def test_a_service_and_a_key_name_no_door(actor: str, named: str | None, found: str) -> None:
    assert door(actor, named) == found


@pytest.mark.parametrize(
    ("subject", "parts", "old"),
    [
        ("cmd.acme.s_crm.app.create", ("acme", "s_crm", "app.create"), False),
        ("cmd.acme.a.1b-2.app.create", ("acme", "a_1b-2", "app.create"), False),
        ("cmd.acme.a_1b-2.app.create", ("acme", "a_1b-2", "app.create"), False),
        ("cmd.acme.a", ("acme", "", "a"), False),
        ("cmd.acme.a.>.app.create", ("acme", "", "a.>.app.create"), False),
        ("cmd.acme.app.create", ("acme", "", "app.create"), True),
        ("cmd.acme.viewer.app.create", ("acme", "", "viewer.app.create"), False),
        ("cmd.acme.anon.app", ("acme", "anon", "app"), False),
        ("cmd.acme.app", ("acme", "", "app"), False),
        ("cmd.acme", ("acme", "", ""), False),
        ("cmd", ("", "", ""), False),
    ],
)
def test_a_subject_is_taken_apart(subject: str, parts: tuple[str, str, str], old: bool) -> None:
    found = CommandSubject.of(subject)
    assert found == parts
    assert found.is_old == old
    if found.actor:
        assert str(found) == subject.replace(".a_", ".a.")
