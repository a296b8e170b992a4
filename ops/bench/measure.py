"""A figure, the raw limit beside it, and what it should reach."""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops.bench.machine import machine


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should reach, in itself and as a multiple of its limit: `ratio` and more, or `ratio_at_most`."""

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
    """`limit` is what the bare parts did in the same run, in the same unit; None where there is no such thing."""

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
        """Whether the aim is reached; None without one."""
        if self.aim is None:
            return None
        return (
            self.value >= (self.aim.at_least or -math.inf)
            and self.value <= (self.aim.at_most or math.inf)
            and (self.aim.ratio is None or (self.ratio or 0.0) >= self.aim.ratio)
            and (self.aim.ratio_at_most is None or (self.ratio or math.inf) <= self.aim.ratio_at_most)
        )

    def line(self) -> dict[str, Any]:
        """The measure for programs."""
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
    """Four significant digits, more than any of these figures is good for."""
    return None if number is None else float(f"{number:.4g}")


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def in_turns(
    rounds: int, ours: Callable[[int], Awaitable[float]], limit: Callable[[int], Awaitable[float]]
) -> tuple[float, float]:
    """The medians of what ours and the limit give, measured one after the other in every round."""
    pairs = [(await ours(number), await limit(number)) for number in range(rounds)]
    mine, raw = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(raw)
