"""An end user: erased once, and another person after a return."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from domain.access.end_user import EndUser, person_id

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def test_a_name_has_one_person_at_a_time() -> None:
    people = [person_id(name, erasures) for name in ("ada", "ada/1", "Ada", "") for erasures in range(3)]
    assert len(set(people)) == len(people)
    assert all(str(UUID(person)) == person for person in people)
    assert person_id("ada") == person_id("ada", 0)


def test_an_erasure_says_whether_there_was_anybody() -> None:
    [erased] = EndUser.begin(EndUser.Erased, person_id("ada"), NOW, known=False).pending()
    assert vars(erased) | {"originator_topic": "end_user"} == vars(erased)
    assert (vars(erased)["known"], vars(erased)["originator_id"]) == (False, person_id("ada"))
