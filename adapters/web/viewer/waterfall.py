"""A trace as a tree with bars: the shown spans, the places of their bars, and the critical path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from adapters.web.viewer.backend import Row

WIDTH = 1000.0
"""Width of the whole time, in units."""

LEAST = 3.0
"""Minimum width of a bar, in units, so that it is visible."""

CHUNK = 100
"""Maximum number of children of a span that are shown; the others are folded into lines of that many."""

DEEPEST = 8
"""Maximum depth of indentation."""


@dataclass(slots=True)
class Line:
    """A span with its bar, at `x`, `width` units long; with its children, or lines in their place."""

    span: Row
    depth: int
    x: float
    width: float
    first: float | None = None
    critical: list[tuple[float, float]] = field(default_factory=list)
    children: list[Line | Fold] = field(default_factory=list)
    open: bool = True
    below: int = 0
    errors: int = 0


@dataclass(slots=True)
class Fold:
    """Folded children of a span: `count` of them from number `start` on."""

    parent: str
    start: int
    count: int
    errors: int
    running: int
    depth: int
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Waterfall:
    root: Line
    begin: datetime
    end: datetime
    shown: int

    @property
    def milliseconds(self) -> float:
        return (self.end - self.begin) / timedelta(milliseconds=1)


def waterfall(
    trace: Row, spans: Sequence[Row], now: datetime, *, selected: str = "", unfold: dict[str, int] | None = None
) -> Waterfall:
    """The tree of a trace; `unfold` has the first shown child of spans with many children.

    Spans without a parent in the trace belong to the trace itself.
    """
    known = {span["id"]: span for span in spans}
    children: dict[str, list[Row]] = defaultdict(list)
    for span in sorted(spans, key=_order):
        parent = span["parent_id"]
        children[parent if parent in known and not _above(known, parent, span["id"]) else ""].append(span)
    begin = min((span["started_at"] for span in spans), default=trace["started_at"])
    begin = min(begin, trace["started_at"])
    ends = [_end(span, now) for span in spans] + [_end(trace, now)]
    end = max(*ends, begin + timedelta(milliseconds=1))
    builder = _Builder(children, begin, end, now, _path(known, selected), unfold or {})
    whole = {**trace, "kind": "trace", "id": "", "attempt": 0}
    root = builder.line(whole, 0)
    _mark(root, builder, children, now)
    return Waterfall(root, begin, end, builder.shown)


def _order(span: Row) -> tuple[datetime, int, int, str]:
    """Of what began in one commit at one time, the items of an iteration follow their numbers."""
    number = span["name"].rpartition(" ")[2]
    is_item = span["kind"] == "item" and number.isdecimal()
    return span["started_at"], span["sequence"] or 0, int(number) if is_item else 0, span["id"]


def _above(known: dict[str, Row], id: str | None, sought: str) -> bool:
    """True if a span is an ancestor of the other: a cycle, which no tree may have."""
    seen = set[str]()
    while id and id in known and id not in seen:
        if id == sought:
            return True
        seen.add(id)
        id = known[id]["parent_id"]
    return False


def _path(known: dict[str, Row], id: str) -> set[str]:
    """A span and its ancestors."""
    found = set[str]()
    while id and id in known and id not in found:
        found.add(id)
        id = known[id]["parent_id"] or ""
    return found


def _end(span: Row, now: datetime) -> datetime:
    """End of a span: now for one that runs or is held, the start for a lost one."""
    ended: datetime = span["ended_at"] or (now if span["status"] in ("running", "held") else span["started_at"])
    began: datetime = span["started_at"]
    return max(ended, began)


@dataclass
class _Builder:
    children: dict[str, list[Row]]
    begin: datetime
    end: datetime
    now: datetime
    path: set[str]
    unfold: dict[str, int]
    shown: int = 0
    lines: dict[str, Line] = field(default_factory=dict)

    def place(self, at: datetime) -> float:
        return round(WIDTH * ((at - self.begin) / (self.end - self.begin)), 1)

    def bar(self, start: datetime, end: datetime) -> tuple[float, float]:
        x = min(self.place(start), WIDTH - LEAST)
        return x, round(max(LEAST, self.place(end) - x), 1)

    def line(self, span: Row, depth: int) -> Line:
        self.shown += 1
        x, width = self.bar(span["started_at"], _end(span, self.now))
        line = self.lines[span["id"]] = Line(span, min(depth, DEEPEST), x, width)
        if (first := span["first_token_ms"]) is not None:
            line.first = min(WIDTH, self.place(span["started_at"] + timedelta(milliseconds=first)))
        below = self.children.get(span["id"], [])
        line.below, line.errors = len(below), sum(child["status"] in ("error", "unknown") for child in below)
        if len(below) <= CHUNK + CHUNK // 2:
            line.children = [self.line(child, depth + 1) for child in below]
            return line
        shown = self.unfold.get(span["id"])
        if shown is None:
            shown = next((at for at, child in enumerate(below) if child["id"] in self.path), 0)
        for start in range(0, len(below), CHUNK):
            part = below[start : start + CHUNK]
            if start <= shown < start + CHUNK:
                line.children += [self.line(child, depth + 1) for child in part]
            else:
                x, width = self.bar(part[0]["started_at"], max(_end(child, self.now) for child in part))
                states = [child["status"] for child in part]
                bad = sum(state in ("error", "unknown") for state in states)
                running = states.count("running")
                fold = Fold(span["id"], start, len(part), bad, running, min(depth + 1, DEEPEST), x, width)
                line.children.append(fold)
        return line


def _mark(root: Line, builder: _Builder, children: dict[str, list[Row]], now: datetime) -> None:
    """Mark the critical path: backwards from the end, the child that ended last, and so on within it.

    Time without a child is the span's own. Clocks and commits cause small overlaps: the later span counts.
    """
    work = [(root.span, _end(root.span, now))]
    while work:
        span, until = work.pop()
        own: list[tuple[datetime, datetime]] = []
        at, start = until, span["started_at"]
        for child in sorted(children.get(span["id"], []), key=lambda child: _end(child, now), reverse=True):
            ended, began = min(_end(child, now), at), max(child["started_at"], start)
            if began >= at or ended <= start:
                continue
            if ended < at:
                own.append((ended, at))
            work.append((child, ended))
            at = began
        if at > start:
            own.append((start, at))
        if line := builder.lines.get(span["id"]):
            line.critical = _joined(builder, own)


def _joined(builder: _Builder, own: Sequence[tuple[datetime, datetime]]) -> list[tuple[float, float]]:
    """The bars of these times, from last to first, merged where they cannot be distinguished."""
    found: list[tuple[float, float]] = []
    for first, last in own:
        x, width = builder.bar(first, last)
        if found and found[-1][0] - (x + width) < LEAST:
            later, wide = found.pop()
            width = round(later + wide - x, 1)
        found.append((x, width))
    return found
