"""Time that a call of code takes, in each language, and the first one of a tenant."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.progress import Progress

from adapters.code.contained import ContainedCode
from adapters.sandbox.choice import choose
from handlers.ports.code import Language
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack
from ops.code_choice import open_code

CALLS, WARM = 1000, 20
"""Calls of a figure, at the usual number of questions, and before them."""

INPUTS = {"text": '[{"city": "Riga", "price": "12,50"}, {"city": "Cork", "price": "7"}]'}

PROGRAMS: Mapping[Language, str] = {
    "python3": """
import json
import re
from datetime import datetime, timedelta


def main(text: str) -> dict:
    totals = {}
    for row in json.loads(text):
        price = float(re.sub(",", ".", row["price"]))
        totals[row["city"]] = totals.get(row["city"], 0) + price
    best = max(totals, key=totals.get)
    due = datetime(2026, 1, 30) + timedelta(days=30)
    lines = [f"{city}: {total:.2f}" for city, total in totals.items()]
    return {"best": best, "totals": totals, "due": due.isoformat(), "lines": lines}
""",
    "javascript": """
function main({text}) {
    const totals = {}
    for (const {city, price} of JSON.parse(text)) {
        totals[city] = (totals[city] || 0) + parseFloat(price.replace(",", "."))
    }
    const best = Object.keys(totals).sort((a, b) => totals[b] - totals[a])[0]
    return {best, totals, lines: Object.entries(totals).map(([a, b]) => `${a}: ${b.toFixed(2)}`)}
}
""",
    "jinja2": """
{% for row in text.split("},") %}
{{ loop.index }}. {{ row | replace("city", "place") | upper }}
{% endfor %}
""",
}
"""Code of the usual size: that of half of all code is no longer."""


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    calls = max(20, CALLS * sizes.questions // Sizes().questions)
    bar = bars.add_task("code: calls", total=calls * len(PROGRAMS))
    found = []
    async with open_code(stack.settings, await choose(stack.settings.sandbox)) as code:
        first = [await _timed(code, "python3", f"tenant {number}") for number in range(WARM)]
        for language in PROGRAMS:
            for _ in range(WARM):
                await _timed(code, language)
            took = []
            for _ in range(calls):
                took.append(await _timed(code, language))
                bars.advance(bar)
            aim = Aim(at_most=5) if language == "python3" else None
            found.append(Measure(f"code.{language}.p50", percentile(took, 50), "ms", aim=aim))
            found.append(Measure(f"code.{language}.p95", percentile(took, 95), "ms"))
    return [*found, Measure("code.first.p50", percentile(first[1:], 50), "ms")]


async def _timed(code: ContainedCode, language: Language, tenant: str = "bench") -> float:
    """Milliseconds of a call."""
    inputs: dict[str, Any] = INPUTS
    began = time.perf_counter()
    await code.run(tenant, language, PROGRAMS[language], inputs)
    return (time.perf_counter() - began) * 1000
