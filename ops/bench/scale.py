"""Rebuild from a long log, and command latency on it compared with a short log."""

from __future__ import annotations

from dataclasses import replace

from rich.progress import Progress

from ops.bench.commands import WARM, Outcomes, one_by_one, warm
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.rebuild import caught_up, rebuilds, write_past
from ops.bench.stack import Sizes, Stack

SHORT = 750
"""Commits of the short log, about a thousand events with the outcomes."""


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    outcomes = await Outcomes.ready(stack)
    await write_past(stack, min(SHORT, sizes.commits), bars)
    short, then = await _medians(stack, outcomes, sizes, bars)
    await write_past(stack, sizes.commits, bars)
    long, now = await _medians(stack, outcomes, sizes, bars)
    expected = short * now / then  # the machine may have changed speed meanwhile, for bare publishes too
    rebuilt = await rebuilds(stack, sizes, bars)
    return [
        replace(rebuilt, name="scale.rebuild"),
        Measure("scale.commands.p50", long, "ms", expected, Aim(ratio_at_most=1.2)),
    ]


async def _medians(stack: Stack, outcomes: Outcomes, sizes: Sizes, bars: Progress) -> tuple[float, float]:
    """Latency in milliseconds of a command and of a bare publish on an idle system."""
    await caught_up(stack)
    bar = bars.add_task("commands", total=sizes.singles)
    await warm(outcomes, min(WARM, sizes.commands))
    latencies, acks = await one_by_one(stack, outcomes, sizes.singles, lambda: bars.advance(bar))
    return percentile(latencies, 50), percentile(acks, 50)
