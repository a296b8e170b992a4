"""The figures of a storm: for people, for programs, and for the page `docs/reliability.md`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from ops.bench.machine import machine
from tests.chaos.account import Finding
from tests.chaos.probe import BACK, Recovery

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"

BEGIN, END = "<!-- figures of the last long storm -->", "<!-- end of the figures -->"


@dataclass(frozen=True, slots=True)
class Report:
    """Results of a storm."""

    seed: int
    rounds: int
    blows: Counter[tuple[str, str]]
    died: Counter[str]
    published: int
    acknowledged: int
    accepted: int
    rejected: int
    again: int
    messages: int
    tokens: int
    findings: list[Finding]
    recovery: Recovery
    seconds: float

    @property
    def good(self) -> bool:
        return not self.findings

    def count(self, *kinds: str) -> int:
        return sum(finding.kind in kinds for finding in self.findings)

    def line(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        return {
            "seed": self.seed,
            "rounds": self.rounds,
            "blows": {f"{target} {kind}": count for (target, kind), count in sorted(self.blows.items())},
            "died": dict(self.died),
            "published": self.published,
            "acknowledged": self.acknowledged,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "again": self.again,
            "messages": self.messages,
            "tokens": self.tokens,
            **{kind: self.count(kind) for kind in ("lost", "doubled", "stuck", "gap", "different")},
            "recovery": {what: self._figures(what) for what in BACK},
            "never": dict(self.recovery.never),
            "seconds": round(self.seconds, 1),
            "machine": machine(),
            "findings": [f"{finding.kind}: {finding.what}" for finding in self.findings],
        }

    def rows(self) -> list[tuple[str, str]]:
        return [
            ("seed", str(self.seed)),
            ("rounds", f"{self.rounds:,}"),
            *((f"blows: {kind}", self._blows(kind)) for kind in ("kill", "pause", "cut")),
            ("workers that ended by themselves", f"{self.died.total():,}"),
            ("commands published", f"{self.published:,}, and {self.again:,} sent again"),
            ("acknowledged", f"{self.acknowledged:,}"),
            ("accepted, rejected", f"{self.accepted:,}, {self.rejected:,}"),
            ("messages in the log", f"{self.messages:,}"),
            ("tokens of answers", f"{self.tokens:,}"),
            ("lost", str(self.count("lost", "gap"))),
            ("doubled", str(self.count("doubled"))),
            ("stuck", str(self.count("stuck"))),
            ("different", str(self.count("different"))),
            *((f"recovery: {what}", self._recovery(what)) for what in BACK),
            ("duration", f"{self.seconds:,.0f} s"),
        ]

    def _blows(self, kind: str) -> str:
        counts = Counter[str]()
        for (target, how), count in self.blows.items():
            if how == kind:
                counts[re.sub(r"\.?\d$", "", target)] += count
        return f"{counts.total():,} ({', '.join(f'{name} {count:,}' for name, count in sorted(counts.items()))})"

    def _recovery(self, what: str) -> str:
        median, longest = self.recovery.median(what), self.recovery.longest(what)
        if median is None or longest is None:
            return "never"
        never = self.recovery.never[what]
        figures = f"p50 {median:.2f} s, max {longest.seconds:.1f} s (round {longest.round})"
        return figures + (f", {never} never" if never else "")

    def _figures(self, what: str) -> dict[str, float | None]:
        longest = self.recovery.longest(what)
        worst = {"max": longest.seconds, "round": longest.round} if longest else {}
        return {"p50": self.recovery.median(what), **worst}


def table(report: Report) -> Table:
    grid = Table(title=machine(), title_style="dim", title_justify="left", box=SIMPLE, show_header=False)
    for name, figure in report.rows():
        grid.add_row(name, figure, style="red" if name in _FAULTS and figure != "0" else "")
    return grid


_FAULTS = {"lost", "doubled", "stuck", "different"}


def write(report: Report, page: Path = PAGE) -> None:
    """Put the figures between the marks of the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{section(report.rows())}\n{END}{after}")


def section(rows: Iterable[tuple[str, str]]) -> str:
    lines = "\n".join(f"| {name} | {figure} |" for name, figure in rows)
    return f"\nOn {datetime.now(UTC):%-d %B %Y}, on {machine()}:\n\n| | |\n| --- | --- |\n{lines}\n"
