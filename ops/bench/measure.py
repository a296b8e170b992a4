"""A figure with its raw limit and its aim."""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops.bench.machine import machine


@dataclass(frozen=True, slots=True)
class Aim:
    """Aim of a figure: an absolute bound, or a bound on its ratio to the limit (`ratio`, `ratio_at_most`)."""

    at_least: float | None = None
    at_most: float | None = None
    ratio: float | None = None
    ratio_at_most: float | None = None

    def __str__(self) -> str:
        parts = [
            f"{sign} {number:,g}{unit}"
            for sign, number, unit in (
                ("≥", self.ratio, " × limit"),
                ("≤", self.ratio_at_most, " × limit"),
                ("≥", self.at_least, ""),
                ("≤", self.at_most, ""),
            )
            if number is not None
        ]
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Measure:
    """`limit` is the result of the bare parts in the same run and unit; None when there is none."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    aim: Aim | None = None
    machine: str = field(default_factory=machine)

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of the limit."""
        return self.value / self.limit if self.limit else None

    @property
    def met(self) -> bool | None:
        """True when the aim is reached; None without an aim."""
        if self.aim is None:
            return None
        return (
            self.value >= (self.aim.at_least or -math.inf)
            and self.value <= (self.aim.at_most or math.inf)
            and (self.aim.ratio is None or (self.ratio or 0.0) >= self.aim.ratio)
            and (self.aim.ratio_at_most is None or (self.ratio or math.inf) <= self.aim.ratio_at_most)
        )

    def line(self) -> dict[str, Any]:
        """The measure as a JSON object."""
        return {
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "limit": rounded(self.limit),
            "ratio": rounded(self.ratio),
            "aim": str(self.aim) if self.aim else None,
            "met": self.met,
            "machine": self.machine,
        }


def rounded(number: float | None) -> float | None:
    """Round to four significant digits, more than these figures warrant."""
    return None if number is None else float(f"{number:.4g}")


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def in_turns(
    rounds: int, ours: Callable[[int], Awaitable[float]], limit: Callable[[int], Awaitable[float]]
) -> tuple[float, float]:
    """Medians of figure and limit, measured in turns in every round."""
    pairs = [(await ours(number), await limit(number)) for number in range(rounds)]
    mine, raw = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(raw)
