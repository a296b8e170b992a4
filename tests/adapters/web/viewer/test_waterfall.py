from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.web.viewer.waterfall import CHUNK, WIDTH, Fold, Line, waterfall

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def span(
    id: str, parent: str | None, begin: float, end: float | None, status: str = "ok", **more: Any
) -> dict[str, Any]:
    return {
        "id": id,
        "parent_id": parent,
        "kind": "chat",
        "name": id,
        "status": status,
        "started_at": NOON + timedelta(milliseconds=begin),
        "ended_at": None if end is None else NOON + timedelta(milliseconds=end),
        "first_token_ms": None,
        "sequence": 1,
        **more,
    }


TRACE = span("trace", None, 0, 1000)


def lines(line: Line) -> dict[str, Line]:
    found = {line.span["id"]: line}
    for child in line.children:
        if isinstance(child, Line):
            found |= lines(child)
    return found


def test_bars_lie_where_their_times_do() -> None:
    fall = waterfall(
        TRACE, [span("answer", None, 100, 900), span("call", "answer", 500, 900, first_token_ms=100)], NOON
    )
    found = lines(fall.root)
    assert (found["answer"].x, found["answer"].width) == (0.1 * WIDTH, 0.8 * WIDTH)
    assert (found["call"].x, found["call"].first, found["call"].depth) == (0.5 * WIDTH, 0.6 * WIDTH, 2)
    assert fall.milliseconds == 1000


def test_what_the_end_waited_for() -> None:
    spans = [span("answer", None, 0, 1000), span("search", "answer", 0, 300), span("parallel", "answer", 0, 200)]
    spans.append(span("call", "answer", 400, 1000))
    found = lines(waterfall(TRACE, spans, NOON).root)
    assert found["call"].critical == [(400.0, 600.0)]
    assert found["search"].critical == [(0.0, 300.0)]
    assert found["parallel"].critical == []
    assert found["answer"].critical == [(300.0, 100.0)]


def test_what_runs_reaches_to_now() -> None:
    trace = {**TRACE, "status": "running", "ended_at": None}
    fall = waterfall(trace, [span("call", None, 500, None, "running")], NOON + timedelta(seconds=2))
    assert fall.milliseconds == 2000
    assert lines(fall.root)["call"].width == 0.75 * WIDTH


def test_spans_without_a_parent_or_in_a_circle_are_shown_all_the_same() -> None:
    spans = [span("orphan", "gone", 0, 10), span("a", "b", 0, 10), span("b", "a", 0, 10), span("self", "self", 0, 10)]
    assert {"orphan", "a", "b", "self"} <= lines(waterfall(TRACE, spans, NOON).root).keys()


def test_of_many_children_some_are_shown_and_the_others_counted() -> None:
    spans = [span(f"s{number:05}", None, number / 10, number / 10 + 1) for number in range(10_000)]
    spans[777]["status"] = "error"
    fall = waterfall(TRACE, spans, NOON)
    folds = [child for child in fall.root.children if isinstance(child, Fold)]
    assert fall.shown == CHUNK + 1
    assert sum(fold.count for fold in folds) == 10_000 - CHUNK
    assert [fold.start for fold in folds if fold.errors] == [700]
    assert "s05050" in lines(waterfall(TRACE, spans, NOON, selected="s05050").root)
    assert "s09999" in lines(waterfall(TRACE, spans, NOON, unfold={"": 9_950}).root)
