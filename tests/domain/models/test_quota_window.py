from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random

from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from domain.models.quota import Definition, window
from domain.models.quota_window import QuotaWindow
from tests.domain.scenario import NOW, given, made, refold

LIMIT = 1000
UNTIL = NOW + timedelta(minutes=1)
LATER = UNTIL + timedelta(minutes=1)

OF = window(
    "tenant/calls",
    Definition(scope="tenant", subject="", unit="calls", period="day", limit=LIMIT, hard=True),
    "",
    NOW,
)


def opened() -> QuotaWindow:
    return QuotaWindow.open(NOW, OF)


def take(lease: str, needed: int = 1, wanted: int = 1, limit: int = LIMIT) -> Callable[[QuotaWindow], None]:
    return lambda it: it.grant(NOW, lease, needed, wanted, limit, UNTIL)


def settle(lease: str, used: int) -> Callable[[QuotaWindow], None]:
    return lambda it: it.settle(NOW, lease, used)


def test_begins_with_nothing_used() -> None:
    made(opened()).then(QuotaWindow.Opened).whole(
        quota="tenant/calls",
        scope="tenant",
        subject="",
        unit="calls",
        period="day",
        begins="2026-05-04T00:00:00+00:00",
        ends="2026-05-05T00:00:00+00:00",
    )


def test_a_lease_is_granted_once_and_settled_once() -> None:
    scenario = given(opened()).once(
        take("a"), QuotaWindow.Granted, lease="a", amount=20, until=UNTIL.isoformat(), limit=LIMIT
    )
    assert scenario.aggregate.left(LIMIT) == LIMIT - 20
    scenario.once(settle("a", 3), QuotaWindow.Settled, lease="a", used=3)
    assert (scenario.aggregate.used, scenario.aggregate.left(LIMIT)) == (3, LIMIT - 3)


def test_a_lease_is_small_where_little_is_left_and_larger_where_much_is_wanted() -> None:
    window = opened()
    window.grant(NOW, "much", 1, 40, LIMIT, UNTIL)
    assert window.leases["much"]["amount"] == 40
    window.grant(NOW, "more", 1, 500, LIMIT, UNTIL)
    assert window.leases["more"]["amount"] == 48  # a 20th of what is left
    window.grant(NOW, "large", 900, 900, LIMIT, UNTIL)
    assert window.leases["large"]["amount"] == 900
    window.grant(NOW, "last", 1, 1, LIMIT, UNTIL)
    assert window.leases["last"]["amount"] == 1


def test_what_does_not_fit_is_not_granted() -> None:
    given(opened(), take("a", 999)).when(take("b", 2)).nothing().when(take("c", 1)).then(QuotaWindow.Granted, amount=1)
    given(opened()).when(take("a", 1, limit=0)).nothing()


def test_a_lower_limit_holds_for_what_is_granted_then() -> None:
    given(opened(), take("a", 500)).when(take("b", 1, limit=400)).nothing()


def test_a_lease_in_use_is_renewed() -> None:
    def renew(window: QuotaWindow) -> None:
        window.renew(NOW, "a", LATER)

    scenario = given(opened(), take("a")).when(renew).then(QuotaWindow.Renewed, lease="a", until=LATER.isoformat())
    assert scenario.aggregate.leases["a"]["until"] == LATER.isoformat()
    scenario.when(settle("a", 1)).then(QuotaWindow.Settled)
    scenario.when(renew).nothing()


def test_is_exhausted_while_reservations_do_not_fit() -> None:
    def exhaust(window: QuotaWindow) -> None:
        window.exhaust(NOW, 1, LIMIT)

    scenario = given(opened(), take("a", LIMIT)).once(exhaust, QuotaWindow.Exhausted, needed=1, left=0, limit=LIMIT)
    assert scenario.aggregate.is_exhausted(LIMIT)
    assert not scenario.aggregate.is_exhausted(2 * LIMIT)
    scenario.when(settle("a", LIMIT - 5)).then(QuotaWindow.Settled)
    assert not scenario.aggregate.is_exhausted(LIMIT)
    scenario.when(lambda it: it.exhaust(NOW, 6, LIMIT)).then(QuotaWindow.Exhausted, left=5)


def test_one_large_call_exhausts_nothing() -> None:
    given(opened()).when(lambda it: it.exhaust(NOW, 2 * LIMIT, LIMIT)).nothing()


def test_is_exhausted_once_all_is_used() -> None:
    scenario = given(opened(), take("a", LIMIT), settle("a", LIMIT))
    assert scenario.aggregate.is_exhausted(LIMIT)


def test_each_step_is_alerted_once() -> None:
    scenario = given(opened()).when(lambda it: it.alert(NOW, 499, LIMIT)).nothing()
    scenario.once(lambda it: it.alert(NOW, 500, LIMIT), QuotaWindow.Alerted, percent=50, used=500, limit=LIMIT)
    scenario.once(
        lambda it: it.alert(NOW, 1200, LIMIT), QuotaWindow.Alerted, QuotaWindow.Alerted, percent=100, used=1200
    )
    assert scenario.aggregate.alerts == [50, 80, 100]


@settings(max_examples=200, deadline=None)
@generated(st.integers(1, 5000), st.integers(1, 400), st.integers(1, 400), st.randoms(use_true_random=False))
def test_whatever_workers_do_the_limit_holds_and_what_is_used_is_the_sum_of_the_calls(
    limit: int, largest: int, steps: int, random: Random
) -> None:
    """Workers take leases, begin calls in them, end calls, return leases, and die with calls in progress."""
    window, leases, spent = opened(), dict[str, list[int]](), 0
    for step in range(steps):
        match random.choice(("take", "begin", "begin", "end", "return", "die")):
            case "take":
                needed = random.randint(1, largest)
                window.grant(NOW, f"l{step}", needed, needed * random.randint(1, 9), limit, UNTIL)
                if f"l{step}" in window.leases:
                    leases[f"l{step}"] = []
            case "begin" if leases:
                lease = random.choice(list(leases))
                if (free := window.leases[lease]["amount"] - sum(leases[lease])) > 0:
                    leases[lease].append(random.randint(1, free))  # the most that the call may use
            case "end" if leases:
                calls = leases[random.choice(list(leases))]
                calls[:] = [random.randint(0, most) for most in calls]
            case "return" | "die" if leases:
                used = sum(leases.pop(lease := random.choice(list(leases))))
                window.settle(NOW, lease, used)
                spent += used
        assert window.used + sum(lease["amount"] for lease in window.leases.values()) <= limit
    for lease, calls in leases.items():
        window.settle(NOW, lease, sum(calls))
        spent += sum(calls)
    assert window.used == spent <= limit
    folded = refold(QuotaWindow, window.pending())
    assert (folded.used, folded.leases) == (spent, {})
