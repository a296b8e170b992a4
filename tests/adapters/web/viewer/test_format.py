from datetime import UTC, datetime, timedelta

import pytest

from adapters.web.viewer import format


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [
        (None, "–"),
        (0, "0 ms"),
        (0.034, "0.03 ms"),
        (7.25, "7.2 ms"),
        (87.6, "88 ms"),
        (999.4, "999 ms"),
        (999.6, "1.00 s"),
        (9_994, "9.99 s"),
        (59_900, "59.9 s"),
        (59_990, "1 m 00 s"),
        (3_599_999, "1 h 00 m"),
        (200_000_000, "2 d 7 h"),
    ],
)
def test_durations(milliseconds: float | None, written: str) -> None:
    assert format.duration(milliseconds) == written


@pytest.mark.parametrize(
    ("dollars", "written"),
    [
        (0, "$0"),
        (0.00000012, "$0.00000012"),
        (0.000123456, "$0.000123"),
        (0.0123456, "$0.0123"),
        (0.5, "$0.5"),
        (3.14159, "$3.14"),
        (12345.678, "$12,345.68"),
    ],
)
def test_small_amounts_never_round_to_nothing(dollars: float, written: str) -> None:
    assert format.dollars(dollars) == written


def test_what_has_no_price_is_never_nothing() -> None:
    assert "unpriced" in format.cost(None, 1)
    assert "$" not in format.cost(None, 1)
    assert format.cost(None) == "–"
    assert format.cost(0.0) == "$0"
    assert str(format.cost(0.5, 2)).startswith("$0.5 <")
    assert "+ 2 unpriced" in format.cost(0.5, 2)


@pytest.mark.parametrize(
    "hidden",
    ["\x00", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\U000e0041", "\ud800", "\r"],
)
def test_what_hides_or_acts_is_shown(hidden: str) -> None:
    shown = format.visible(f"a{hidden}b")
    assert hidden not in shown
    assert f"U+{ord(hidden):04X}" in shown
    assert format.plain(f"a{hidden}b") == f"a⟨U+{ord(hidden):04X}⟩b"


def test_what_scripts_are_written_with_stays() -> None:
    for text in ("می\u200cخواهم", "क्\u200dष", "👩\u200d🔧", "two\nlines\tand\r\nmore", "مرحبا", "日本語"):
        assert format.visible(text) == text


def test_markup_is_escaped() -> None:
    assert format.visible("<b>&\"'") == "&lt;b&gt;&amp;&#34;&#39;"
    assert format.isolated("<i>") == "<bdi>&lt;i&gt;</bdi>"


def test_previews_are_one_line() -> None:
    assert format.preview("one\n\n two\t three", 100) == "<bdi>one two three</bdi>"
    assert format.preview("x" * 500, 10) == f"<bdi>{'x' * 9}…</bdi>"


def test_times() -> None:
    at = datetime(2026, 3, 1, 5, 6, 7, 89_000, UTC)
    assert 'datetime="2026-03-01T05:06:07.089Z"' in format.moment(at)
    assert "2026-03-01 05:06:07.089 UTC" in format.moment(at, "full")
    assert ">3 m ago<" in format.ago(at, at + timedelta(seconds=200))


def test_counts() -> None:
    assert [format.short(value) for value in (None, 0, 950, 999.9, 1200, 99_960, 3_400_000)] == [
        "–",
        "0",
        "950",
        "1.0k",
        "1.2k",
        "100k",
        "3.4M",
    ]
    assert format.percent(1, 5000) == "< 0.1 %"
    assert format.plural(1, "call") == "1 call"
    assert format.plural(1200, "call") == "1,200 calls"
