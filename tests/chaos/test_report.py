from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.chaos import report
from tests.chaos.account import Finding
from tests.chaos.probe import Recovery
from tests.chaos.report import BEGIN, END, Report

REPORT = Report(
    seed=5,
    rounds=500,
    blows=Counter({("node0", "kill"): 2, ("node1", "kill"): 1, ("ingest.1", "pause"): 3}),
    died=Counter(),
    published=1200,
    acknowledged=1100,
    accepted=1000,
    rejected=100,
    again=70,
    messages=9000,
    tokens=700,
    findings=[],
    recovery=Recovery(),
    seconds=1800.0,
)


def test_a_storm_is_good_when_nothing_was_found() -> None:
    assert REPORT.good
    bad = replace(REPORT, findings=[Finding("lost", "a command"), Finding("gap", "EVENTS"), Finding("stuck", "a row")])
    assert not bad.good
    rows = dict(bad.rows())
    assert (rows["lost"], rows["doubled"], rows["stuck"], rows["different"]) == ("2", "0", "1", "0")
    assert bad.line()["findings"] == ["lost: a command", "gap: EVENTS", "stuck: a row"]


def test_figures_are_reported_by_kind_and_target() -> None:
    rows = dict(REPORT.rows())
    assert rows["blows: kill"] == "3 (node 3)"
    assert rows["blows: pause"] == "3 (ingest 3)"
    assert rows["recovery: command"] == "never"


def test_recovery_has_a_median_and_a_longest_with_its_round() -> None:
    recovery = Recovery()
    for round, seconds in enumerate((0.5, 9.25, 0.25), 1):
        recovery.add("command", round, seconds)
    assert dict(replace(REPORT, recovery=recovery).rows())["recovery: command"] == "p50 0.50 s, max 9.2 s (round 2)"


def test_the_figures_stand_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Above\n\n{BEGIN}\nold\n{END}\n\nBelow.\n")
    for _ in range(2):
        report.write(REPORT, page)
    text = page.read_text()
    assert text.startswith(f"# Above\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nBelow.\n")
    assert "old" not in text
    assert text.count("| rounds | 500 |") == 1


def test_the_page_has_the_marks() -> None:
    text = report.PAGE.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
