from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from domain.aggregate import Snapshot
from domain.models.quota import Definition, Window, window
from domain.models.quota_window import PARTS, QuotaWindow, free_again
from tests.domain.scenario import NOW, given, made, refold

LIMIT = 1000
UNTIL = NOW + timedelta(minutes=1)
LATER = UNTIL + timedelta(minutes=1)


def of(period: str = "day", rolling: int = 0) -> Window:
    known = Definition(
        scope="tenant",
        subject="",
        unit="calls",
        period=period,
        limit=LIMIT,
        hard=True,
        time_zone="UTC",
        rolling=rolling,
    )
    return window("tenant/calls", known, "", NOW)


def opened(of: Window = of()) -> QuotaWindow:  # noqa: B008
    return QuotaWindow.open(NOW, of)


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
        time_zone="UTC",
        rolling=0,
    )


def test_a_lease_is_granted_once_and_settled_once() -> None:
    scenario = given(opened()).once(
        take("a"), QuotaWindow.Granted, lease="a", amount=20, until=UNTIL.isoformat(), limit=LIMIT
    )
    assert scenario.aggregate.left(LIMIT, NOW) == LIMIT - 20
    scenario.once(settle("a", 3), QuotaWindow.Settled, lease="a", used=3, free_at="")
    assert (scenario.aggregate.used, scenario.aggregate.left(LIMIT, NOW)) == (3, LIMIT - 3)


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
    assert scenario.aggregate.is_exhausted(LIMIT, NOW)
    assert not scenario.aggregate.is_exhausted(2 * LIMIT, NOW)
    scenario.when(settle("a", LIMIT - 5)).then(QuotaWindow.Settled)
    assert not scenario.aggregate.is_exhausted(LIMIT, NOW)
    scenario.when(lambda it: it.exhaust(NOW, 6, LIMIT)).then(QuotaWindow.Exhausted, left=5)


def test_one_large_call_exhausts_nothing() -> None:
    given(opened()).when(lambda it: it.exhaust(NOW, 2 * LIMIT, LIMIT)).nothing()


def test_is_exhausted_once_all_is_used() -> None:
    scenario = given(opened(), take("a", LIMIT), settle("a", LIMIT))
    assert scenario.aggregate.is_exhausted(LIMIT, NOW)


def test_each_step_is_alerted_once() -> None:
    scenario = given(opened()).when(lambda it: it.alert(NOW, 499, LIMIT)).nothing()
    scenario.once(lambda it: it.alert(NOW, 500, LIMIT), QuotaWindow.Alerted, percent=50, used=500, limit=LIMIT)
    scenario.once(
        lambda it: it.alert(NOW, 1200, LIMIT), QuotaWindow.Alerted, QuotaWindow.Alerted, percent=100, used=1200
    )
    assert list(scenario.aggregate.alerts) == ["50", "80", "100"]


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


HOUR = timedelta(hours=1)


def test_what_a_rolling_window_has_used_is_free_again_after_its_length() -> None:
    window = opened(of("hour", 1))
    assert (window.begins, window.ends) == (NOW.isoformat(), "")
    window.grant(NOW, "a", 300, 300, LIMIT, UNTIL)
    window.grant(NOW, "b", 300, 300, LIMIT, UNTIL)
    window.settle(NOW + timedelta(seconds=30), "a", 200)
    window.settle(NOW + timedelta(minutes=10), "b", 300)
    first, second = NOW + HOUR + timedelta(minutes=1), NOW + HOUR + timedelta(minutes=10)
    assert window.parts == {first.isoformat(): 200, second.isoformat(): 300}
    moments = (first - timedelta(seconds=1), first, second - timedelta(seconds=1), second)
    assert [window.left(LIMIT, at) for at in moments] == [500, 700, 700, 1000]
    assert [free_again(of("hour", 1), window.parts, at) for at in moments[:3]] == [first, second, second]
    assert free_again(of("hour", 1), window.parts, second) == second + HOUR
    assert free_again(of(), window.parts, first) == of().ends
    window.grant(second, "c", 1, 1, LIMIT, second)
    window.settle(second + timedelta(minutes=5), "c", 1)
    assert (window.used, list(window.parts.values())) == (501, [1])


def test_a_part_counts_for_a_worker_whose_clock_is_late() -> None:
    window = opened(of("minute", 1))
    for lease, at in (("a", NOW), ("b", NOW + timedelta(minutes=1))):
        window.grant(at, lease, 700, 700, LIMIT, UNTIL)
        window.settle(at, lease, 700)
    assert window.left(LIMIT, NOW + timedelta(minutes=1)) == 300
    assert window.left(LIMIT, NOW + timedelta(seconds=31)) == 0


def test_a_rolling_window_is_exhausted_until_something_is_free_again() -> None:
    window = opened(of("hour", 1))
    window.grant(NOW, "a", LIMIT - 1, 1, LIMIT, UNTIL)
    window.settle(NOW, "a", LIMIT - 1)
    given(window).once(lambda it: it.exhaust(NOW, 2, LIMIT), QuotaWindow.Exhausted, needed=2, left=1)
    before = NOW + HOUR - timedelta(seconds=1)
    assert (window.is_exhausted(LIMIT, before), window.is_exhausted(LIMIT, NOW + HOUR)) == (True, False)
    given(window).when(lambda it: it.exhaust(NOW + HOUR, 2 * LIMIT, LIMIT)).nothing()
    window.grant(NOW + HOUR, "b", LIMIT, 1, LIMIT, UNTIL)
    window.exhaust(NOW + HOUR, 2, LIMIT)
    assert (window.exhausted, window.exhausted_left, window.is_exhausted(LIMIT, NOW + HOUR)) == (LIMIT, 0, True)


def test_a_rolling_window_alerts_again_after_its_length() -> None:
    window = opened(of("hour", 1))
    window.alert(NOW, 500, LIMIT)
    window.pending()
    window.alert(NOW + HOUR - timedelta(seconds=1), 500, LIMIT)
    assert window.pending() == []
    window.alert(NOW + HOUR, 800, LIMIT)
    window.alert(NOW + HOUR, 800, LIMIT)
    assert [event.percent for event in window.pending() if isinstance(event, QuotaWindow.Alerted)] == [50, 80]


def test_a_window_of_an_earlier_version_goes_on() -> None:
    window = opened()
    for decide in (take("a", 20), settle("a", 7), take("b", 20)):
        decide(window)
    window.alert(NOW, 500, LIMIT)
    new = ("time_zone", "rolling", "parts")
    state: dict[str, Any] = {name: value for name, value in vars(window).items() if name not in new}
    state["alerts"] = [50]
    QuotaWindow.upcast_v1_v2(state)
    assert state.pop("alerts") == {"50": "2026-05-04T00:00:00+00:00"}
    expected = {name: value for name, value in vars(window).items() if name != "alerts"}
    assert state == {**expected, "exhausted_left": 0}


def test_a_snapshot_of_a_rolling_window_is_the_window() -> None:
    window = opened(of("hour", 1))
    take("a", 20)(window)
    settle("a", 7)(window)
    window.exhaust(NOW, 2 * LIMIT, 7)
    window.pending()
    restored = Snapshot.of(window).mutate(None)
    assert vars(restored) == vars(window)


class Held:
    """A lease of one of several workers, whose clocks differ."""

    def __init__(self, worker: int, until: datetime, amount: int) -> None:
        self.worker, self.until, self.amount, self.used = worker, until, amount, 0


@settings(max_examples=300, deadline=None)
@generated(
    st.sampled_from([("minute", 1), ("minute", 7), ("hour", 1), ("hour", 24), ("day", 30)]),
    st.integers(1, 500),
    st.integers(1, 60),
    st.integers(1, 400),
    st.randoms(use_true_random=False),
)
def test_in_any_length_of_time_recorded_calls_are_within_a_rolling_limit(
    rolling: tuple[str, int], limit: int, largest: int, steps: int, random: Random
) -> None:
    """Workers whose clocks differ take leases, begin calls in them, return leases, and die; the log settles these.

    They do so above all when something is free again.
    """
    known = of(*rolling)
    length = known.ends - known.begins
    window, leases, calls, now = QuotaWindow.open(NOW, known), dict[str, Held](), list[tuple[datetime, int]](), NOW
    late = [timedelta(seconds=random.uniform(-14, 14)) for _ in range(4)]
    for step in range(steps):
        now += length * random.choice((0, 0, 0, 0.001, 0.02, 0.3)) * random.random()
        worker = random.randrange(len(late))
        if window.parts and random.random() < 0.3:
            now = max(now, free_again(known, window.parts, now + late[worker]) - late[worker])
        at = now + late[worker]
        own = {id: lease for id, lease in leases.items() if lease.worker == worker and lease.until > at}
        match random.choice(("take", "begin", "begin", "begin", "return", "die", "all", "all")):
            case "all":
                amount = window.left(limit, at) // random.choice((1, 1, 3))
                window.grant(at, f"l{step}", amount, amount, limit, at)
                window.settle(at, f"l{step}", amount)
                calls.append((at, amount))
            case "take":
                needed = random.randint(1, largest)
                until = at + timedelta(seconds=60)
                window.grant(at, id := f"l{step}", needed, needed * random.randint(1, 9), limit, until)
                if id in window.leases:
                    leases[id] = Held(worker, until, window.leases[id]["amount"])
            case "begin" if own:
                lease = own[random.choice(list(own))]
                amount = random.randint(0, lease.amount - lease.used)
                lease.used += amount
                calls.append((at, amount))
            case "return" if own:
                window.settle(at, id := random.choice(list(own)), leases.pop(id).used)
            case "die" if own:
                lease = leases.pop(id := random.choice(list(own)))
                now = max(now, lease.until + timedelta(seconds=30) - late[0])
                window.settle(now + late[0], id, lease.used)
    calls.sort()
    for first, (begins, _) in enumerate(calls):
        assert sum(amount for at, amount in calls[first:] if at < begins + length) <= limit
    assert window.used + sum(lease.used for lease in leases.values()) == sum(amount for _, amount in calls)
    assert len(window.parts) <= 2 * PARTS + 4
    folded = refold(QuotaWindow, window.pending())
    assert (folded.used, folded.parts, folded.leases) == (window.used, window.parts, window.leases)
    end = max(now, *(at for at, _ in calls), NOW) + length + length / PARTS + timedelta(seconds=30)
    assert window.left(limit, end) == max(0, limit - sum(lease.amount for lease in leases.values()))
