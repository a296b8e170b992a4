"""The table of places with words of people: it names each place that there is, and each row a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapters.jetstream import streams
from domain.log import EVENTS, OUTCOMES
from projections.catalog import READ_MODELS

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "docs/privacy.md").read_text().partition("## Where words are")[2].partition("\n## ")[0]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in SECTION.splitlines() if line.startswith("| ")][1:]

STREAMS = {EVENTS, OUTCOMES, streams.COMMANDS, streams.DEAD}
BUCKETS = {
    value
    for name, value in vars(streams).items()
    if name.isupper() and isinstance(value, str) and value.isidentifier() and value.islower()
} - {streams.ACTORS_AFTER}
SCHEMAS = {"headrace_index", "headrace_opensearch", "headrace_cache"}


def named(row: list[str]) -> set[str]:
    return set(re.findall(r"`(\w+)`", row[0]))


def test_each_place_is_in_one_row() -> None:
    places = [place for row in ROWS for place in named(row)]
    assert len(places) == len(set(places))
    assert set(places) == STREAMS | BUCKETS | SCHEMAS | {model.name for model in READ_MODELS}
    assert {"blobs", "keys", "snapshots"} <= BUCKETS


def test_the_tables_that_are_emptied_are_those_with_persons() -> None:
    [row] = [named(row) for row in ROWS if "person_id" in row[1]]
    assert row == {model.name for model in READ_MODELS if "person_id" in model.blank}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_names_a_test(row: list[str]) -> None:
    assert len(row) == 4
    [path] = re.findall(r"`(tests/[\w/]+\.py)`", row[3])
    assert "def test_" in (ROOT / path).read_text()
