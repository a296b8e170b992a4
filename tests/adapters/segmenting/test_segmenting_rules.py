"""Cutting by rules: what they say is done, nothing else is lost, and everything fits."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any

import docx
import pptx
import pytest
import xlsxwriter  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from pptx.util import Inches

from adapters.documents.formats import markdown
from adapters.documents.formats.child import answer
from adapters.documents.formats.csv import read as read_csv
from adapters.documents.formats.kinds import kind_of
from adapters.segmenting.cleaning import cleaned
from domain.knowledge.segmentation import Cleanup, Parent, Segmentation
from domain.knowledge.segments import Segment
from handlers.ports.documents import Block, Text, Unreadable
from tests.adapters.segmenting.test_segmenter import BLOCKS, SEGMENTER, TOKENIZER, WORDS, sentences, text_of, whole

SPLITTABLE = st.builds(
    lambda block, parts: Block("###".join([block.text, *parts]), block.page, block.heading),
    BLOCKS,
    st.lists(st.lists(WORDS, max_size=20).map(" ".join), max_size=3),
)
TEXTS = st.lists(SPLITTABLE, max_size=6).map(lambda blocks: text_of(*blocks))
LIMITS = st.integers(16, 254).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most // 2)))
SEPARATORS = st.sampled_from([None, "\n\n", "\n", "###", " "])


def cut(text: Text, **rules: Any) -> list[Segment]:
    return SEGMENTER.segment(text, Segmentation(**rules))


def solid(text: str) -> str:
    """The text without white space and the separators of these tests."""
    return "".join(text.replace("###", "").split())


def own(segments: Sequence[Segment], text: Text) -> str:
    """Return the text of the segments, each part once."""
    end, found = 0, ""
    for segment in segments:
        found += whole(text)[max(end, segment.start) : segment.end]
        end = segment.end
    return solid(found)


def holds(segments: Sequence[Segment], text: Text, most: int) -> None:
    """They are what lies at their places, in order, and what is embedded fits."""
    assert [segment.position for segment in segments] == list(range(len(segments)))
    for segment in segments:
        assert segment.content == whole(text)[segment.start : segment.end]
        assert segment.content.strip()
        assert len(segment.token_ids) <= most + 2
    places = {(block.page, block.heading) for block in text.blocks}
    assert {(segment.page, segment.heading) for segment in segments} <= places


@given(TEXTS, SEPARATORS, LIMITS)
@settings(deadline=None, max_examples=150)
def test_custom_rules(text: Text, separator: str | None, limits: tuple[int, int]) -> None:
    most, overlap = limits
    segments = cut(text, mode="custom", separator=separator, max_tokens=most, overlap=overlap)
    holds(segments, text, most)
    assert own(segments, text) == solid(whole(text))
    for before, after in pairwise(segments):
        assert before.start < after.start
        assert before.end < after.end
        shared = whole(text)[after.start : before.end] if after.start < before.end else ""
        assert len(TOKENIZER.encode(shared, add_special_tokens=False).ids) <= overlap
    if separator:
        assert all(separator not in segment.content.strip() for segment in segments if not segment.heading)


@given(TEXTS, SEPARATORS, LIMITS, st.sampled_from(["paragraph", "full_document"]), st.integers(16, 600))
@settings(deadline=None, max_examples=100)
def test_parents_and_children(
    text: Text, separator: str | None, limits: tuple[int, int], kind: Any, parent_tokens: int
) -> None:
    most, overlap = limits
    parent = Parent(kind, None, max(parent_tokens, most))
    segments = cut(text, mode="parent_child", separator=separator, max_tokens=most, overlap=overlap, parent=parent)
    holds(segments, text, most)
    parents = {segment.position: segment for segment in segments if segment.is_parent}
    children = [segment for segment in segments if not segment.is_parent]
    assert own(list(parents.values()), text) == own(children, text) == solid(whole(text))
    for segment in parents.values():
        assert (segment.parent, segment.token_ids) == (None, [])
        assert segment.tokens <= parent.max_tokens
    for child in children:
        assert child.parent is not None
        above = parents[child.parent]
        assert above.position < child.position
        assert above.start <= child.start < child.end <= above.end


def test_a_separator_ends_a_segment_however_short() -> None:
    text = text_of("One.###Two. Three.###\n###", "Four.")
    assert [segment.content for segment in cut(text, mode="custom", separator="###")] == [
        "One.",
        "Two. Three.",
        "Four.",
    ]
    assert [segment.content for segment in cut(text, mode="custom")] == ["One.###Two. Three.###\n###", "Four."]


def test_without_a_separator_segments_are_filled() -> None:
    text = text_of(*sentences(60))
    segments = cut(text, mode="custom", separator=None, max_tokens=100)
    assert all(70 <= segment.tokens <= 100 for segment in segments)


def test_a_title_goes_with_what_it_leads_to() -> None:
    text = text_of(
        Block("Manual", 1, "Manual"),
        Block("Starting", 2, "Manual › Starting"),
        Block("Press the button.", 2, "Manual › Starting"),
        Block("Wait.", 3, "Manual › Starting"),
    )
    assert [(segment.page, segment.heading, segment.content) for segment in cut(text, mode="custom")] == [
        (2, "Manual › Starting", "Manual\n\nStarting\n\nPress the button."),
        (3, "Manual › Starting", "Wait."),
    ]


def test_overlapping_segments_keep_the_place_of_what_is_new_in_them() -> None:
    first, second = " ".join(sentences(10)), " ".join(sentences(30)[10:])
    text = text_of(Block(first, 1, "A"), Block(second, 2, "B"))
    segments = cut(text, mode="custom", separator="###", max_tokens=120, overlap=30)
    assert (segments[0].page, segments[0].heading) == (1, "A")
    assert (segments[-1].page, segments[-1].heading) == (2, "B")
    assert segments[0].end > segments[1].start
    assert segments[1].content.startswith("Sentence ")
    assert all(after.start < before.end for before, after in pairwise(segments))
    assert next(it.heading for it in segments if it.end > len(first) + 2 and it.start > len(first) - 100) == "B"
    assert segments[-1].content.endswith(second[-100:])


def test_a_sentence_that_is_too_long_overlaps_by_words() -> None:
    words = [f"word{number}" for number in range(300)]
    segments = cut(text_of(" ".join(words)), mode="custom", max_tokens=100, overlap=20)
    assert len(segments) > 5
    for before, after in pairwise(segments):
        common = [word for word in before.content.split() if word in after.content.split()]
        assert 3 <= len(common) <= 20
        assert before.content.split()[-len(common) :] == after.content.split()[: len(common)] == common


def test_what_has_no_spaces_overlaps_too() -> None:
    segments = cut(text_of("水は流れて海に着く。" * 60), mode="custom", max_tokens=60, overlap=15)
    assert all(after.start < before.end for before, after in pairwise(segments))
    assert all(len(segment.token_ids) <= 62 for segment in segments)


def test_parents_are_paragraphs_under_one_heading_or_what_a_separator_ends() -> None:
    text = text_of(Block("One. Two.", 1, "A"), Block("Three.", 1, "A"), Block("Four.", 1, "B"))
    filled = cut(text, mode="parent_child")
    assert [(it.position, it.parent, it.content) for it in filled] == [
        (0, None, "One. Two.\n\nThree."),
        (1, 0, "One. Two."),
        (2, 0, "Three."),
        (3, None, "Four."),
        (4, 3, "Four."),
    ]
    divided = cut(text, mode="parent_child", separator=" ", parent=Parent(separator="\n\n"))
    assert [(it.parent, it.content) for it in divided] == [
        (None, "One. Two."),
        (0, "One."),
        (0, "Two."),
        (None, "Three."),
        (3, "Three."),
        (None, "Four."),
        (5, "Four."),
    ]
    (whole_text,) = [it for it in cut(text, mode="parent_child", parent=Parent("full_document")) if it.is_parent]
    assert whole_text.content == whole(text)


def test_a_table_stays_rows_with_their_headings() -> None:
    rows = "\n".join(f"lock {number},{number} m,open" for number in range(200))
    parsed = read_csv(f"name,height,state\n{rows}\n".encode())
    text = Text([Block(*piece) for piece in parsed.pieces], None)
    for rules in (Segmentation(), Segmentation(mode="custom"), Segmentation(mode="parent_child", separator="\n")):
        segments = [segment for segment in SEGMENTER.segment(text, rules) if not segment.is_parent]
        lines = [line for segment in segments for line in segment.content.split("\n") if line]
        assert lines == [f"name: lock {number}; height: {number} m; state: open" for number in range(200)]


CLEAN: list[tuple[tuple[Cleanup, ...], str, str]] = [
    (("remove_extra_spaces",), "One  two\t\tthree.\n\n\n\nFour.", "One two three.\n\nFour."),
    (("remove_extra_spaces",), "One\u3000\u00a0two.", "One two."),
    (
        ("remove_urls_emails",),
        "See https://lock.example/a?b=c. Or [the plan](https://x.example/p).",
        "See . Or the plan.",
    ),
    (("remove_urls_emails",), "请看https://a.example/b。谢谢", "请看。谢谢"),
    (("remove_urls_emails",), "Ask ada.l@lock.example, or @ada.", "Ask , or @ada."),
    (("remove_urls_emails", "remove_extra_spaces"), "Ask a@b.example now.", "Ask now."),
    ((), "One  two https://a.example", "One  two https://a.example"),
]


@pytest.mark.parametrize(("cleanup", "before", "after"), CLEAN)
def test_texts_are_cleaned_up_before_they_are_cut(cleanup: tuple[Cleanup, ...], before: str, after: str) -> None:
    segments = cut(text_of(before), mode="custom", separator="###", cleanup=cleanup)
    assert [segment.content for segment in segments] == [after]
    assert (segments[0].start, segments[0].end) == (0, len(after))


def test_what_is_cleaned_away_altogether_leaves_nothing() -> None:
    assert cut(text_of("https://a.example/b", "x@y.example"), mode="custom", cleanup=("remove_urls_emails",)) == []


@pytest.mark.parametrize("sign", ["a.b-", "http://", "[", "x", "a@", "\n ", "[a](http://a.example/("])
def test_cleaning_takes_time_in_proportion(sign: str) -> None:
    def seconds(size: int) -> float:
        block, began = Block(sign * (size // len(sign))), perf_counter()
        cleaned([block], ("remove_urls_emails", "remove_extra_spaces"))
        return perf_counter() - began

    assert seconds(400_000) < 0.2 + 20 * seconds(40_000)


def pairs(*blocks: Block | str) -> list[tuple[str, str | None]]:
    segments = cut(text_of(*blocks), mode="question_answer")
    assert all(0 < len(segment.token_ids) <= 256 for segment in segments)
    return [(segment.content, segment.answer) for segment in segments]


@pytest.mark.parametrize(
    "blocks",
    [
        ["Q: When does it open?\nA: At six.", "Q: Who keeps it?\nA: Ada."],
        ["Q: When does it open?", "A: At six.", "Q: Who keeps it?", "A: Ada."],
        ["Q: When does it open? A: At six.", "Q: Who keeps it? A: Ada."],
        ["**Question 1:** When does it open?\n**Answer:** At six.\n**Question 2:** Who keeps it?\n**Answer:** Ada."],
        ["1. Q: When does it open?\n   A: At six.\n2. Q: Who keeps it?\n   A: Ada."],
        ["question: When does it open?; answer: At six.\nquestion: Who keeps it?; answer: Ada."],
        ["answer: At six.; question: When does it open?\nanswer: Ada.; question: Who keeps it?"],
        [
            "id: 1; question: When does it open?; answer: At six.; by: Bo\n"
            "id: 2; question: Who keeps it?; answer: Ada.; by: Cy"
        ],
    ],
)
def test_questions_and_answers_are_found(blocks: list[str]) -> None:
    assert pairs("Before the first.", *blocks) == [("When does it open?", "At six."), ("Who keeps it?", "Ada.")]


def test_questions_in_other_languages() -> None:
    chinese, japanese = "问：水门几点开？\n答：六点。", "質問：誰？ 回答：アダ。"
    assert pairs(chinese, japanese) == [("水门几点开？", "六点。"), ("誰？", "アダ。")]
    assert pairs("Frage: Wer?\nAntwort: Ada.") == [("Wer?", "Ada.")]


def test_an_answer_may_be_long_and_ends_where_a_title_begins() -> None:
    assert pairs(
        Block("Q: Who?", 1, "A"),
        Block("A: Ada.", 1, "A"),
        Block("And in May Bo.", 2, "A"),
        Block("Prices", 2, "Prices"),
        Block("Ten euros.", 2, "Prices"),
    ) == [("Who?", "Ada.\n\nAnd in May Bo.")]


def test_rows_of_a_table_with_long_answers() -> None:
    long = "It opens at six. " * 120
    parsed = read_csv(f'id,question,answer\n1,When?,"{long}"\n2,Who?,Ada.\n3,Why?,"Because: of water"\n'.encode())
    found = pairs(*[Block(*piece) for piece in parsed.pieces])
    assert found == [("When?", long.strip()), ("Who?", "Ada."), ("Why?", "Because: of water")]


def test_a_question_keeps_its_place() -> None:
    (segment,) = cut(text_of(Block("Intro.", 1, "A"), Block("Q: Who?\nA: Ada.", 3, "B")), mode="question_answer")
    assert (segment.page, segment.heading, segment.start, segment.end) == (3, "B", 8, 23)


def test_a_long_question_is_embedded_as_far_as_it_fits() -> None:
    (segment,) = cut(text_of(f"Q: {'why ' * 400}?\nA: So."), mode="question_answer")
    assert len(segment.token_ids) == 256
    assert segment.content.startswith("why why")


@pytest.mark.parametrize("text", ["A text about water.", "Q: Who?", "A: Ada.", ""])
def test_a_text_without_questions_and_answers_is_refused(text: str) -> None:
    with pytest.raises(Unreadable) as refused:
        cut(text_of(text), mode="question_answer")
    assert refused.value.code == "no_questions"


def read_markdown(source: str) -> Text:
    return Text([Block(*piece) for piece in markdown.read(source.encode()).pieces], None)


@pytest.mark.parametrize("rule", ["---", "***", "_____"])
def test_a_separator_may_be_a_rule_of_markdown_which_is_no_text_otherwise(rule: str) -> None:
    text = read_markdown(f"One.\n\n{rule}\n\nTwo.\n")
    for separator in (rule, f"\n{rule}\n", f"\n\n{rule}\n\n"):
        assert [segment.content for segment in cut(text, mode="custom", separator=separator)] == ["One.", "Two."]
    assert [segment.content for segment in cut(text)] == ["One.\n\nTwo."]
    assert [segment.content for segment in cut(text, mode="custom", separator="###")] == ["One.\n\nTwo."]


@pytest.mark.parametrize(
    ("separator", "contents"),
    [
        ("# ", ["Before.", "A\n\na\n\nB\n\nb\n\nC\n\nc", "D\n\nd"]),
        ("\n## ", ["Before.", "A\n\na", "B\n\nb\n\nC\n\nc", "D\n\nd"]),
        ("###", ["Before.", "A\n\na", "B\n\nb", "C\n\nc", "D\n\nd"]),
    ],
)
def test_a_separator_of_hash_signs_names_the_headings(separator: str, contents: list[str]) -> None:
    text = read_markdown("Before.\n\n# A\n\na\n\n## B\n\nb\n\n### C\n\nc\n\n# D\n\nd\n")
    assert [segment.content for segment in cut(text, mode="custom", separator=separator)] == contents


def test_hash_signs_in_a_text_are_the_separator_themselves() -> None:
    text = text_of("One.\n## Two.", "Three.")
    assert [segment.content.strip() for segment in cut(text, mode="custom", separator="##")] == [
        "One.",
        "Two.\n\nThree.",
    ]


def test_addresses_after_words_are_removed_with_their_brackets() -> None:
    text = read_markdown("The [form](https://a.example/f.pdf) of [Ann](mailto:ann@a.example) is (here).")
    (segment,) = cut(text, cleanup=("remove_urls_emails",))
    assert segment.content == "The form of Ann is (here)."


@pytest.mark.parametrize("name", ["a.md", "a.html", "a.docx", "a.pptx", "a.xlsx", "a.csv"])
def test_every_segment_of_a_table_has_the_names_of_its_columns(name: str) -> None:
    rows = [("Tank", "Volume", "Keeper")]
    rows += [(f"Tank {number}", str(number * 37), f"Keeper {number} of the lower works") for number in range(1, 61)]
    found = answer(table_file(name, rows), kind=kind_of("", name), plugin=None, media_type="", name=name)
    segments = cut(Text([Block(*piece) for piece in found["pieces"]], None))
    with_rows = [segment for segment in segments if "Tank" in segment.content]
    assert len(with_rows) > 4
    assert all("Volume: " in segment.content and "Keeper: " in segment.content for segment in with_rows)
    assert sum(segment.content.count("Volume: ") for segment in with_rows) == 60


def table_file(name: str, rows: list[tuple[str, ...]]) -> bytes:
    file = io.BytesIO()
    match name.partition(".")[2]:
        case "md":
            lines = [" | ".join(row) for row in rows]
            return "\n".join([lines[0], "---|---|---", *lines[1:]]).encode()
        case "html":
            cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
            return "".join(["<table>", *(f"<tr>{row}</tr>" for row in cells), "</table>"]).encode()
        case "docx":
            document = docx.Document()
            table = document.add_table(0, 3)
            for row in rows:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text
            document.save(file)
        case "pptx":
            show = pptx.Presentation()
            shapes = show.slides.add_slide(show.slide_layouts[6]).shapes
            grid = shapes.add_table(len(rows), 3, Inches(1), Inches(1), Inches(4), Inches(1)).table
            for number, row in enumerate(rows):
                for column, text in enumerate(row):
                    grid.cell(number, column).text = text
            show.save(file)
        case "xlsx":
            with xlsxwriter.Workbook(file) as book:
                sheet = book.add_worksheet()
                for number, row in enumerate(rows):
                    sheet.write_row(number, 0, row)
        case "csv":
            return "\n".join(",".join(row) for row in rows).encode()
    return file.getvalue()
