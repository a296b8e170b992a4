from __future__ import annotations

from adapters.jetstream.workers.overflow import KEPT, LONGEST_S, SHORTEST_S, Overflow


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_messages_are_spread_over_the_time_that_their_turns_take() -> None:
    """At 10 turns a second, 400 messages come within 20 seconds, about evenly."""
    clock = Clock()
    overflow = Overflow(clock)
    overflow.delay("busy")
    for _ in range(200):
        clock.now += 0.1
        overflow.begun("busy")
    delays = [overflow.delay("busy") for _ in range(400)]
    assert 10 <= max(delays) <= 21
    assert 2 <= sum(delays[180:220]) / 40 <= 11


def test_the_delay_is_bounded() -> None:
    """While no turn begins, most messages come again after about a minute."""
    clock = Clock()
    overflow = Overflow(clock)
    overflow.delay("busy")
    clock.now += 30
    delays = [overflow.delay("busy") for _ in range(1000)]
    assert min(delays) >= SHORTEST_S / 2
    assert max(delays) <= LONGEST_S
    assert sum(delay > LONGEST_S / 2 for delay in delays) > 900


def test_a_tenant_has_delays_of_its_own() -> None:
    clock = Clock()
    overflow = Overflow(clock)
    overflow.delay("busy")
    clock.now += 30
    for _ in range(1000):
        overflow.delay("busy")
    assert overflow.delay("other") <= SHORTEST_S


def test_tenants_of_long_ago_are_forgotten() -> None:
    clock = Clock()
    overflow = Overflow(clock)
    for number in range(KEPT):
        overflow.delay(f"t{number}")
    clock.now += 2 * LONGEST_S
    overflow.delay("one more")
    assert len(overflow._schedules) == 1
