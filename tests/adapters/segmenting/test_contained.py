"""Segmenting in contained processes: the same as without, and bounded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from adapters.sandbox.child import Sandbox
from adapters.segmenting import contained
from adapters.segmenting.contained import ContainedSegmenter
from adapters.segmenting.segmenter import TokenSegmenter
from domain.knowledge.segmentation import AUTOMATIC, Parent, Segmentation
from handlers.ports.documents import Block, Segmenter, Text, Unreadable

TEXT = Text(
    [
        Block("The weir", 1, "The weir"),
        Block("It was built of stone. " * 120, 1, "The weir"),
        Block("水は流れる。止まらない。 " * 60, 2, "The weir"),
        Block("Q: Who built it?\nA: Men with rafts.", 3),
    ],
    3,
)

RULES = {
    "automatic": AUTOMATIC,
    "custom": Segmentation(mode="custom", separator="\n\n", max_tokens=50, overlap=10),
    "questions": Segmentation(mode="question_answer"),
    "parents": Segmentation(mode="parent_child", separator="\n", max_tokens=40, parent=Parent()),
}


@pytest.fixture(scope="module")
async def segmenter(sandbox: Sandbox) -> AsyncIterator[Segmenter]:
    async with ContainedSegmenter(sandbox) as segmenter:
        yield segmenter


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
async def test_the_segments_are_those_of_the_tokenizer(segmenter: Segmenter, rules: Segmentation) -> None:
    here = TokenSegmenter()
    assert await segmenter.segment("acme", TEXT, rules) == here.segment(TEXT, rules)
    assert (segmenter.model, segmenter.tokenize("The weir")) == (here.model, here.tokenize("The weir"))


async def test_a_text_without_questions_says_so(segmenter: Segmenter) -> None:
    with pytest.raises(Unreadable) as caught:
        await segmenter.segment("acme", Text([Block("Water runs.")], None), RULES["questions"])
    assert caught.value.code == "no_questions"


async def test_a_text_that_takes_too_long_is_given_up_and_the_next_one_is_segmented(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Text([Block("Water runs. " * 100_000)], None)
    await segmenter.segment("acme", TEXT)
    with monkeypatch.context() as patch:
        patch.setattr(contained, "LEAST_S", 0.01)
        patch.setattr(contained, "BYTES_PER_S", 10**9)
        with pytest.raises(Unreadable) as caught:
            await segmenter.segment("acme", large)
    assert caught.value.code == "too_slow"
    assert await segmenter.segment("acme", TEXT)


async def test_a_text_that_takes_too_much_memory_is_given_up(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contained, "SMALL_LIMITS", contained.SMALL_LIMITS._replace(memory=400 * 2**20))
    monkeypatch.setattr(contained, "SMALL", 2**30)
    async with ContainedSegmenter(sandbox) as segmenter:
        with pytest.raises(Unreadable) as caught:
            await segmenter.segment("acme", Text([Block("Water runs down. " * 10)] * 200_000, None))
    assert caught.value.code == "too_large"


SEGMENT = {
    "position": 0,
    "content": "a",
    "start": 0,
    "end": 1,
    "page": None,
    "heading": None,
    "tokens": 1,
    "token_ids": "AQAAAA==",
}


def test_a_reply_is_segments_that_the_model_can_read() -> None:
    assert contained._decoded(json.dumps({"segments": [SEGMENT]}).encode(), 30_000)[0].token_ids == [1]
    for wrong in (
        {"segments": [{**SEGMENT, "token_ids": "/////w=="}]},
        {"segments": [{**SEGMENT, "token_ids": "AAAAfw=="}]},
        {"segments": [{**SEGMENT, "token_ids": "A"}]},
        {"segments": [{**SEGMENT, "content": 7}]},
        {"segments": [{**SEGMENT, "position": "0"}]},
        {"segments": {}},
        {},
        [],
    ):
        with pytest.raises(Unreadable) as caught:
            contained._decoded(json.dumps(wrong).encode(), 30_000)
        assert caught.value.code == "broken_file"
    for bytes in (b"", b"[" * 100_000, b'{"segments": ' + b"9" * 10_000 + b"}", b"\xff"):
        with pytest.raises(Unreadable):
            contained._decoded(bytes, 30_000)
