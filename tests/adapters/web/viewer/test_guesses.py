from __future__ import annotations

from adapters.web.viewer import guesses
from adapters.web.viewer.guesses import FREE, FREE_IN_ALL, LONGEST_IN_ALL_S, LONGEST_S, Guesses


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
