from __future__ import annotations

from datetime import timedelta

from domain.access.account import Account
from tests.domain.scenario import NOW, given, made

WORDS = {"name": "Ada", "email": "ada@example.com", "password": "hash"}


def account(kind: str = "person") -> Account:
    return Account.begin(Account.Created, "a-1", NOW, kind=kind, **WORDS)


def disable(account: Account) -> None:
    account.disable(NOW)


def change_password(account: Account) -> None:
    account.change_password(NOW, password="other hash")


def test_is_created_active() -> None:
    scenario = made(account()).then(Account.Created).whole(kind="person", **WORDS)
    assert (scenario.aggregate.status, scenario.aggregate.signed_out_at) == ("active", "")


def test_another_password_ends_its_sessions() -> None:
    scenario = given(account()).once(change_password, Account.PasswordChanged, password="other hash")
    assert scenario.aggregate.signed_out_at == NOW.isoformat()


def test_a_service_has_no_password() -> None:
    given(account("service")).when(change_password).rejects("no_password", "account")


def test_signs_out_everywhere() -> None:
    scenario = given(account()).when(lambda account: account.sign_out(NOW)).then(Account.SignedOut)
    assert scenario.aggregate.signed_out_at == NOW.isoformat()


def test_is_disabled_and_enabled_again() -> None:
    scenario = given(account()).once(disable, Account.Disabled)
    assert (scenario.aggregate.status, scenario.aggregate.signed_out_at) == ("disabled", NOW.isoformat())
    assert scenario.once(lambda account: account.enable(NOW), Account.Enabled).aggregate.status == "active"


def test_a_sign_out_ends_the_sessions_that_began_before() -> None:
    """The last sign-out that was known at its beginning is compared, so that no clock of a viewer matters."""
    before, later = "", (NOW + timedelta(seconds=1)).isoformat()
    known = account()
    assert known.is_signed_in(before)
    assert known.is_signed_in(later)  # this fold lacks the last sign-out so far
    known.sign_out(NOW)
    assert not known.is_signed_in(before)
    assert known.is_signed_in(NOW.isoformat())
    known.disable(NOW)
    assert not known.is_signed_in(NOW.isoformat())
    known.enable(NOW)
    assert known.is_signed_in(NOW.isoformat())
    known.erase(NOW)
    assert not known.is_signed_in(NOW.isoformat())


def test_an_erased_account_has_no_password() -> None:
    scenario = given(account()).when(lambda account: account.erase(NOW)).then(Account.Erased)
    assert (scenario.aggregate.deleted, scenario.aggregate.password) == (True, "")


def test_its_words_are_personal() -> None:
    assert {"name", "email", "password"} == Account.Created.PERSONAL
    assert {"name"} == Account.Renamed.PERSONAL
    assert {"password"} == Account.PasswordChanged.PERSONAL
