from __future__ import annotations

from contextlib import ExitStack

from structlog.testing import capture_logs

from adapters.web.viewer import guesses
from adapters.web.viewer.guesses import (
    FREE,
    FREE_IN_ALL,
    FREE_OF_ACCOUNT,
    LONGEST_IN_ALL_S,
    LONGEST_OF_ACCOUNT_S,
    LONGEST_S,
    OPEN_IN_ALL,
    Guesses,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_pause_doubles_up_to_the_longest() -> None:
    clock = Clock()
    found, waits = Guesses(clock), []
    for _ in range(FREE + 9):
        clock.now += found.wait("192.0.2.1")
        found.failed("192.0.2.1")
        waits.append(found.wait("192.0.2.1"))
    assert waits == [*[0.0] * FREE, 2, 4, 8, 16, 32, LONGEST_S, LONGEST_S, LONGEST_S, LONGEST_S]


def test_a_login_ends_the_pause_and_so_does_time() -> None:
    clock = Clock()
    found = Guesses(clock)
    for _ in range(FREE + 3):
        found.failed("192.0.2.1")
    assert found.wait("192.0.2.1")
    found.succeeded("192.0.2.1")
    assert not found.wait("192.0.2.1")
    for _ in range(FREE + 3):
        found.failed("192.0.2.1")
    clock.now += guesses.KEPT_S
    found.failed("192.0.2.1")
    assert not found.wait("192.0.2.1")


def test_many_addresses_are_slowed_together_but_not_those_that_have_logged_in() -> None:
    clock = Clock()
    found = Guesses(clock)
    found.succeeded("192.0.2.1")
    for number in range(FREE_IN_ALL + 20):
        found.failed(f"198.51.100.{number}")
    assert found.wait("203.0.113.1") == LONGEST_IN_ALL_S
    assert not found.wait("192.0.2.1")


def test_addresses_of_one_network_are_one() -> None:
    found = Guesses(Clock())
    for number in range(FREE + 1):
        found.failed(f"2001:db8::{number:x}")
        found.failed(f"::ffff:192.0.2.{number}")
    assert found.wait("2001:db8::ffff")
    assert not found.wait("2001:db8:0:1::1")
    assert not found.wait("192.0.2.200")


def test_memory_is_bounded() -> None:
    found = Guesses(Clock())
    for number in range(guesses.ADDRESSES + 100):
        found.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        found.succeeded(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(found._by_address) == len(found._known) == guesses.ADDRESSES


def test_an_account_is_slowed_for_strangers_and_not_where_it_has_logged_in() -> None:
    clock = Clock()
    found = Guesses(clock)
    found.succeeded("192.0.2.1", "ada@example.com")
    for number in range(FREE_OF_ACCOUNT + 20):
        found.failed(f"198.51.100.{number}", "ada@example.com")
    assert found.wait("203.0.113.1", "ada@example.com") == LONGEST_OF_ACCOUNT_S
    assert not found.wait("203.0.113.1", "bo@example.com")
    assert not found.wait("203.0.113.1")
    assert not found.wait("192.0.2.1", "ada@example.com")


def test_one_password_of_an_address_is_checked_at_a_time() -> None:
    found = Guesses(Clock())
    with found.trying("192.0.2.1", "ada@example.com"):
        assert found.wait("192.0.2.1") == 1
        assert not found.wait("192.0.2.2", "ada@example.com")
    assert not found.wait("192.0.2.1", "ada@example.com")


def test_guesses_of_strangers_at_once_leave_places_to_others() -> None:
    found = Guesses(Clock())
    found.succeeded("10.9.9.9", "ada@example.com")
    with ExitStack() as stack:
        for number in range(OPEN_IN_ALL):
            assert found.wait(f"10.0.0.{number}", f"user{number}") == 0
            stack.enter_context(found.trying(f"10.0.0.{number}", f"user{number}"))
        assert found.wait("10.1.1.1", "bo@example.com") == 1
        assert found.wait("10.9.9.9", "ada@example.com") == 0
    assert found.wait("10.1.1.1", "bo@example.com") == 0


def test_many_guesses_at_once_with_an_account_gain_nothing() -> None:
    found = Guesses(Clock())
    with ExitStack() as going:
        for number in range(FREE_OF_ACCOUNT + 1):
            assert not found.wait(f"192.0.2.{number}", "ada@example.com")
            going.enter_context(found.trying(f"192.0.2.{number}", "ada@example.com"))
        assert found.wait("203.0.113.1", "ada@example.com")
        assert not found.wait("203.0.113.1", "bo@example.com")
    assert not found.wait("203.0.113.1", "ada@example.com")


def test_failures_are_logged_once_a_minute() -> None:
    clock = Clock()
    found = Guesses(clock)
    with capture_logs() as logged:
        for number in range(3000):
            found.failed(f"192.0.2.{number % 3}", "ada@example.com")
        assert [(each["address"], each["failures"]) for each in logged] == [("192.0.2.0", 1)]
        clock.now += guesses.LOGGED_S
        found.report()
        found.report()
    assert [(each["failures"], each["addresses"]) for each in logged] == [(1, 1), (2999, 3)]
    assert "ada" not in str(logged)
