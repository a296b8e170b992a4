"""An end user: erased once, and another person after a return."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from domain.access.end_user import EndUser, earlier_person_id, person_id

NOW = datetime(2026, 5, 4, tzinfo=UTC)
KEY = bytes(32)


def test_a_name_has_one_person_at_a_time() -> None:
    names = ("ada", "ada/1", "Ada", "", "\ud800")
    people = [
        person_id(key, tenant, name, erasures)
        for key in (KEY, b"another")
        for tenant in ("acme", "ac")
        for name in names
        for erasures in range(3)
    ] + [earlier_person_id(name, erasures) for name in names[:4] for erasures in range(3)]
    assert len(set(people)) == len(people)
    assert all(str(UUID(person)) == person for person in people)
    assert person_id(KEY, "acme", "ada") == person_id(KEY, "acme", "ada", 0)


def test_the_ids_of_earlier_versions_stay() -> None:
    assert earlier_person_id("ada") == "687909b0-09f3-54ef-9444-17454df42788"
    assert earlier_person_id("ada", 1) == "95d789b1-a805-585b-9842-061cb81af1b6"


def test_an_erasure_says_whether_there_was_anybody() -> None:
    [erased] = EndUser.begin(EndUser.Erased, person_id(KEY, "acme", "ada"), NOW, known=False).pending()
    assert vars(erased) | {"originator_topic": "end_user"} == vars(erased)
    assert (vars(erased)["known"], vars(erased)["originator_id"]) == (False, person_id(KEY, "acme", "ada"))
