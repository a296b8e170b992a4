from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adapters.web.viewer.sources import FOLDED, HEAD, TAIL, Part, cut, shown


def source(number: int, start: int, end: int) -> dict[str, Any]:
    return {"number": number, "start": start, "end": end}


def test_a_text_in_its_parts() -> None:
    assert cut("Be brief. [1] Gates", [source(0, 0, 9), source(1, 10, 19)]) == [
        Part("Be brief.", 0),
        Part(" ", None),
        Part("[1] Gates", 1),
    ]


@given(
    st.text(max_size=60),
    st.lists(st.tuples(st.integers(-5, 70), st.integers(-5, 70)), max_size=6),
)
def test_no_character_is_lost_or_doubled(text: str, places: list[tuple[int, int]]) -> None:
    sources = [source(number, start, end) for number, (start, end) in enumerate(places) if start >= 0]
    assert "".join(part.text for part in cut(text, sources)) == text


def test_a_long_text_is_folded_and_a_huge_one_left_out() -> None:
    folded = shown("a" * 20_000, [source(0, 0, 20_000)])
    assert sum(len(part.text) for part in [*folded.head, *folded.folded, *folded.tail]) == 20_000
    assert folded.left_out == 0
    assert {part.source for part in folded.folded} == {0}
    huge = shown("a" * 1_000_000)
    assert huge.folded == []
    assert huge.left_out == 1_000_000 - HEAD - TAIL > FOLDED
