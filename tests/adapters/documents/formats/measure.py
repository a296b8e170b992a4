"""The share of known text that is found in documents, and the speed; for people, and for `docs/formats.md`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil

from adapters.documents.extract import FileExtractor
from adapters.sandbox.choice import choose
from handlers.ports.documents import Text
from ops.bench.machine import machine
from tests.adapters.documents.formats.corpus import Fact, Sample

PAGE = Path(__file__).resolve().parents[4] / "docs" / "formats.md"

BEGIN, END = "<!-- measured: formats -->", "<!-- end -->"


class Figures(NamedTuple):
    """Of a format: texts in its documents, those found, those found at their place; characters per CPU second."""

    parts: list[str]
    texts: int
    found: int
    placed: int
    unwanted: int
    speed: float


def one_line(text: str) -> str:
    return " ".join(text.split())


class Reading:
    """Text read from a document, by page and heading."""

    def __init__(self, text: Text) -> None:
        self.whole = "\n".join(one_line(block.text) for block in text.blocks)
        self._places: dict[tuple[int | None, str | None], str] = {}
        for block in text.blocks:
            place = block.page, block.heading
            self._places[place] = f"{self._places.get(place, '')}\n{one_line(block.text)}"

    def found(self, text: str) -> bool:
        return one_line(text) in self.whole

    def placed(self, fact: Fact) -> bool:
        return one_line(fact.text) in self._places.get((fact.page, fact.heading), "")


async def measure(small: Iterable[Sample], large: Iterable[Sample]) -> dict[str, Figures]:
    """Figures by format: what is found in the small samples, and how fast the large ones are read."""
    seconds: dict[str, float] = {}
    characters: dict[str, int] = {}
    figures: dict[str, Figures] = {}
    async with FileExtractor((await choose()).sandbox, children=1, seconds=600) as files:
        for sample, big in zip(small, large, strict=True):
            reading = Reading(await files.extract("acme", sample.data, "", sample.name))
            (child,) = files.pids
            began = _processor_time(child)
            text = await files.extract("acme", big.data, "", big.name)
            seconds[sample.format] = seconds.get(sample.format, 0) + _processor_time(child) - began
            characters[sample.format] = characters.get(sample.format, 0) + text.characters
            before = figures.get(sample.format) or Figures([], 0, 0, 0, 0, 0.0)
            figures[sample.format] = Figures(
                list(dict.fromkeys([*before.parts, *(fact.part for fact in sample.facts)])),
                before.texts + len(sample.facts),
                before.found + sum(reading.found(fact.text) for fact in sample.facts),
                before.placed + sum(reading.placed(fact) for fact in sample.facts),
                before.unwanted + sum(reading.found(text) for text in sample.absent),
                characters[sample.format] / max(seconds[sample.format], 0.01),
            )
    return figures


def table(figures: dict[str, Figures]) -> str:
    lines = [
        "| Format | Texts | Found | At their place | Of those to be left out, found | Characters per CPU second |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, each in figures.items():
        found, placed = (f"{count / each.texts:.1%}" for count in (each.found, each.placed))
        lines.append(f"| {name} | {each.texts:,} | {found} | {placed} | {each.unwanted} | {_rounded(each.speed):,} |")
    return "\n".join(lines)


def _processor_time(pid: int) -> float:
    """The processor time of a process and of those that it started, such as the one in the sandbox."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _rounded(speed: float) -> int:
    return int(float(f"{speed:.2g}"))


def page(text: str, figures: dict[str, Figures]) -> str:
    """The page with updated figures."""
    parts = "\n".join(f"- {name}: {', '.join(each.parts)}" for name, each in figures.items())
    made = (
        f"{table(figures)}\n\nMeasured on {datetime.now(UTC):%Y-%m-%d}: {machine()}. What was looked for:\n\n{parts}\n"
    )
    return re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n{made}{END}", text, flags=re.DOTALL)
