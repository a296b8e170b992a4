from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from domain.access.account import Account
from domain.access.end_user import EndUser
from domain.access.tenant import HOUSE
from projections.accounts import accounts
from tests.projections.history import History

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA"


def created(history: History, id: str = "ada", **fields: Any) -> Account:
    history.person = id if fields.get("kind", "person") == "person" else None
    made = {"kind": "person", "name": "Ada", "email": "ada@example.org", "password": HASH} | fields
    account = Account.begin(Account.Created, id, history.now, **made)
    history.record(account)
    return account


@pytest.fixture
def history() -> History:
    return History(HOUSE)


def test_an_account_has_a_row_of_the_house_without_its_password(history: History) -> None:
    account = created(history)
    [row] = history.rows(accounts)
    assert row == {
        "tenant_id": HOUSE,
        "id": "ada",
        "kind": "person",
        "name": "Ada",
        "email": "ada@example.org",
        "status": "active",
        "has_password": True,
        "signed_out_at": None,
        "created_by": "ada",
        "person_id": "ada",
        "created_at": account.created_on,
        "updated_at": account.created_on,
        "log_position": 1,
    }
    assert HASH not in str(row)


def test_a_service_is_no_person_and_has_no_password(history: History) -> None:
    created(history, "bot", kind="service", email="", password="")
    [row] = history.rows(accounts)
    assert (row["kind"], row["person_id"], row["has_password"]) == ("service", None, False)


def test_renaming_signing_out_disabling_and_enabling_are_followed(history: History) -> None:
    account = created(history, password="")
    seen: list[tuple[str, str, bool, bool]] = []
    changes: list[Callable[[datetime], None]] = [
        lambda at: account.rename(at, name="Lady Ada"),
        lambda at: account.change_password(at, password=HASH),
        account.sign_out,
        account.disable,
        account.enable,
    ]
    for change in changes:
        change(history.now)
        at = history.record(account)
        [row] = history.rows(accounts)
        assert row["updated_at"] == at
        ended = row["signed_out_at"] == at
        seen.append((row["name"], row["status"], row["has_password"], ended))
    assert seen == [
        ("Lady Ada", "active", False, False),
        ("Lady Ada", "active", True, True),
        ("Lady Ada", "active", True, True),
        ("Lady Ada", "disabled", True, True),
        ("Lady Ada", "active", True, False),
    ]


def test_an_erased_account_keeps_its_row_without_words(history: History) -> None:
    account = created(history)
    created(history, "bo", name="Bo", email="bo@example.org")
    account.erase(history.now)
    history.record(account)
    history.record(EndUser.begin(EndUser.Erased, "ada", history.now, known=True))
    ada, bo = history.rows(accounts)
    assert [ada[name] for name in ("name", "email", "status", "has_password")] == ["", "", "erased", False]
    assert (bo["name"], bo["status"]) == ("Bo", "active")


def test_the_erasure_of_the_person_alone_takes_the_words(history: History) -> None:
    created(history)
    history.record(EndUser.begin(EndUser.Erased, "ada", history.now, known=True))
    [row] = history.rows(accounts)
    assert (row["name"], row["email"], row["status"]) == ("", "", "erased")
