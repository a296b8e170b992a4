from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.plan import NODES, WORKERS, Round, plan

LONG = list(plan(7, 500))


def test_the_same_seed_makes_the_same_plan() -> None:
    assert list(plan(7, 500)) == LONG
    assert list(plan(7, 10)) == LONG[:10]
    assert list(plan(8, 10)) != LONG[:10]


@pytest.mark.parametrize("target", [*NODES, "postgres", *WORKERS])
def test_everything_is_killed_and_paused_and_cut_off(target: str) -> None:
    kinds = Counter(blow.kind for round in LONG for blow in round.blows if blow.target == target)
    assert set(kinds) == {"kill", "pause", "cut"}
    assert kinds["kill"] == max(kinds.values())


def nodes_of(round: Round) -> list[str]:
    return [blow.target for blow in round.blows if blow.target in NODES]


def test_nodes_are_hit_one_at_a_time_or_all_are_killed() -> None:
    assert {len(nodes_of(round)) for round in LONG} == {0, 1, 3}
    for round in LONG:
        if len(nodes_of(round)) == 3:
            assert {blow.kind for blow in round.blows if blow.target in NODES} == {"kill"}


def test_nothing_is_hit_twice_in_a_round_or_for_long() -> None:
    for round in LONG:
        targets = [blow.target for blow in round.blows]
        assert len(set(targets)) == len(targets) > 0
        for blow in round.blows:
            assert 0 <= blow.after <= 0.5
            assert 0 <= blow.lasts <= 2 if blow.kind == "kill" else 1 <= blow.lasts <= 3
