"""The rules: what goes together, and what they are as plain JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.knowledge.segmentation import AUTOMATIC, Parent, Segmentation


def test_rules_are_automatic_by_default() -> None:
    assert Segmentation.of(None) == Segmentation.of({}) == AUTOMATIC
    assert (AUTOMATIC.mode, AUTOMATIC.max_tokens, AUTOMATIC.overlap, AUTOMATIC.parent) == ("automatic", 254, 0, None)


def test_small_segments_have_parents() -> None:
    assert Segmentation(mode="parent_child").parent == Parent("paragraph", None, 1000)


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"mode": "automatic", "overlap": 10}, "overlap"),
        ({"mode": "automatic", "separator": "###"}, "separator"),
        ({"mode": "question_answer", "max_tokens": 100}, "max_tokens"),
        ({"mode": "custom", "max_tokens": 15}, "max_tokens"),
        ({"mode": "custom", "max_tokens": 255}, "max_tokens"),
        ({"mode": "custom", "max_tokens": 100, "overlap": 51}, "overlap"),
        ({"mode": "custom", "overlap": -1}, "overlap"),
        ({"mode": "custom", "separator": ""}, "separator"),
        ({"mode": "custom", "separator": "-" * 65}, "separator"),
        ({"mode": "custom", "parent": {"kind": "paragraph"}}, "parent"),
        ({"mode": "parent_child", "parent": {"max_tokens": 8001}}, "parent.max_tokens"),
        ({"mode": "parent_child", "parent": {"separator": ""}}, "parent.separator"),
        ({"mode": "parent_child", "parent": {"kind": "full_document", "separator": "\n"}}, "parent.separator"),
    ],
)
def test_rules_that_do_not_go_together_are_refused(rules: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} "):
        Segmentation.of(rules)


@given(
    st.builds(
        Segmentation,
        st.just("parent_child"),
        st.one_of(st.none(), st.text(min_size=1, max_size=64)),
        st.integers(40, 254),
        st.integers(0, 20),
        st.lists(st.sampled_from(["remove_extra_spaces", "remove_urls_emails"]), unique=True).map(tuple),
        st.builds(Parent, st.just("paragraph"), st.one_of(st.none(), st.just("\n")), st.integers(16, 8000)),
    )
)
def test_plain_json_says_it_all(rules: Segmentation) -> None:
    assert Segmentation.of(rules.plain()) == rules
