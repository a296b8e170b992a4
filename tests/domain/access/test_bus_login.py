from __future__ import annotations

from domain.access.bus_login import BusLogin
from tests.domain.scenario import NOW, given, made


def login() -> BusLogin:
    return BusLogin.begin(BusLogin.Opened, "services", NOW, issue="first")


def issue(login: BusLogin) -> None:
    login.issue_again(NOW, issue="second")


def close(login: BusLogin) -> None:
    login.close(NOW)


def test_is_opened() -> None:
    made(login()).then(BusLogin.Opened).whole(issue="first")


def test_another_password_is_issued() -> None:
    given(login()).once(issue, BusLogin.Issued, issue="second")


def test_is_closed_and_may_be_opened_again() -> None:
    scenario = given(login(), issue).once(close, BusLogin.Closed)
    assert scenario.aggregate.deleted
    assert not scenario.when(issue).then(BusLogin.Issued, issue="second").aggregate.deleted
