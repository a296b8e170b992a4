from __future__ import annotations

from collections import Counter

from adapters.jetstream.workers.overflow import FAR_S, KEPT, SHORTEST_S, SPACING_S, TICK_S, Overflow


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


def test_a_worker_that_takes_many_messages_at_once_does_not_send_them_far_away() -> None:
    """At 1,000 turns a second, of which none begins while a batch is taken, 400 messages come within two seconds."""
    clock = Clock()
    overflow = Overflow(clock)
    overflow.delay("busy")
    for _ in range(200):
        clock.now += 0.001
        overflow.begun("busy")
    clock.now += 0.1
    assert max(overflow.delay("busy") for _ in range(400)) <= 2


def test_of_a_tenant_whose_turns_do_not_begin_few_messages_come_at_a_time() -> None:
    """20,000 messages: at most 400 in a second, and none is away for much longer than they need at that rate."""
    clock = Clock()
    overflow = Overflow(clock)
    overflow.delay("busy")
    clock.now += 30
    delays = [overflow.delay("busy") for _ in range(20_000)]
    assert min(delays) >= SHORTEST_S / 2
    assert max(delays) <= FAR_S + 20_000 * SPACING_S + TICK_S
    assert len(set(delays)) < 1000, "they come together at ticks"
    assert max(Counter(int(delay) for delay in delays).values()) <= 400


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
    clock.now += 2 * FAR_S
    overflow.delay("one more")
    assert len(overflow._schedules) == 1
