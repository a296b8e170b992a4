"""The plan of a storm: what is hit in each round, how, and for how long. The same seed makes the same plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal["kill", "pause", "cut"]

NODES = ("node0", "node1", "node2")
ROLES = {"embed": 1, "project": 2, "commands": 2, "ingest": 2, "answer": 2}
WORKERS = tuple(f"{role}.{number}" for role, workers in ROLES.items() for number in range(1, workers + 1))

_KINDS: tuple[Kind, ...] = ("kill", "kill", "pause", "cut")

_VICTIMS = {
    "node": 6,
    "all nodes": 1,
    "postgres": 4,
    "commands": 4,
    "project": 3,
    "ingest": 3,
    "answer": 3,
    "embed": 2,
}
"""Relative frequency of each."""


@dataclass(frozen=True, slots=True)
class Blow:
    """`target` is hit `after` seconds in its round, and mended `lasts` seconds later."""

    target: str
    kind: Kind
    after: float
    lasts: float


@dataclass(frozen=True, slots=True)
class Round:
    """From one to three victims at about the same time. Not more than one node is among them, or all are killed."""

    number: int
    blows: tuple[Blow, ...]


def plan(seed: int, rounds: int) -> Iterator[Round]:
    random = Random(f"plan {seed}")
    for number in range(1, rounds + 1):
        yield Round(number, tuple(blow for victim in _victims(random) for blow in _blows(random, victim)))


def _victims(random: Random) -> list[str]:
    chosen: list[str] = []
    for _ in range(random.choice((1, 1, 1, 2, 2, 3))):
        victim = random.choices(list(_VICTIMS), list(_VICTIMS.values()))[0]
        if not {victim, victim.removeprefix("all ").removesuffix("s"), f"all {victim}s"} & set(chosen):
            chosen.append(victim)
    return chosen


def _blows(random: Random, victim: str) -> list[Blow]:
    kind: Kind = "kill" if victim == "all nodes" else random.choice(_KINDS)
    after = round(random.uniform(0, 0.5), 3)
    return [
        Blow(target, kind, after, round(random.uniform(0, 2) if kind == "kill" else random.uniform(1, 3), 3))
        for target in _targets(random, victim)
    ]


def _targets(random: Random, victim: str) -> list[str]:
    if victim == "all nodes":
        return list(NODES)
    if victim == "node":
        return [random.choice(NODES)]
    if victim not in ROLES:
        return [victim]
    workers = [worker for worker in WORKERS if worker.partition(".")[0] == victim]
    return random.choice([workers, *([worker] for worker in workers)])
