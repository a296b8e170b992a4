"""Pairs of questions and answers in a text: rows of a table with a column for each, or `Q: …` and `A: …`."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

_QUESTION = "questions?|q|frage|pregunta|domanda|pergunta|вопрос|سؤال|السؤال|问题|問題|问|問|質問|質疑|질문"
_ANSWER = "answers?|a|antwort|respuesta|réponse|risposta|resposta|ответ|جواب|الجواب|إجابة|答案|回答|答|답변|답"

_MARK = re.compile(
    r"(?:^[ \t*_#>•-]*(?:\d{1,4}[.)]\s?)?|(?P<cell>; )|(?<=[.?!…。？！؟])[ \t]*[*_]*)"
    rf"(?:(?P<question>{_QUESTION})|(?P<answer>{_ANSWER}))\s?\d{{0,4}}[*_]*\s?[:：][*_]*\s*",
    re.MULTILINE | re.IGNORECASE,
)
_LINE_END = re.compile("\n")
_OF_A_PAIR = re.compile(f"{_QUESTION}|{_ANSWER}", re.IGNORECASE)
_LABEL = re.compile(r"(?:^|; )([^:;\n]{1,60}): ", re.MULTILINE)


class Pair(NamedTuple):
    """A question and its answer, with their offsets in the text."""

    question: str
    answer: str
    start: int
    end: int


def pairs(whole: str, titles: Sequence[int]) -> Iterator[Pair]:
    """The pairs of a text, in order; an answer ends with the next question, at the latest where a title begins.

    `titles` are the offsets of titles, in order. Questions without answers are left out, and answers without questions.
    """
    marks = list(_MARK.finditer(whole))
    columns = _other_columns(whole, marks)
    at = 0
    while at + 1 < len(marks):
        first, second = marks[at], marks[at + 1]
        if _asks(first) and not _asks(second):
            at += 2
            while at < len(marks) and not _asks(marks[at]) and not marks[at]["cell"]:
                at += 1  # an answer may speak of answers
        elif not _asks(first) and _asks(second) and _in_one_row(whole, first, second):
            at += 2
        else:
            at += 1
            continue
        after = marks[at].start() if at < len(marks) else len(whole)
        left, _ = _until(whole, first, second.start(), (), columns)
        right, end = _until(whole, second, after, titles, columns)
        question, answer = (left, right) if _asks(first) else (right, left)
        if question.strip() and answer.strip():
            yield Pair(" ".join(question.split()), answer.strip(), first.start(), end)


def _asks(mark: re.Match[str]) -> bool:
    return mark["question"] is not None


def _in_one_row(whole: str, first: re.Match[str], second: re.Match[str]) -> bool:
    return bool(second["cell"]) and "\n" not in whole[first.end() : second.start()]


def _until(
    whole: str, mark: re.Match[str], after: int, titles: Sequence[int], columns: frozenset[str]
) -> tuple[str, int]:
    """The text after a mark, and its end: the next mark, a title or another column of its row."""
    place = bisect_right(titles, mark.end())
    end = min(titles[place], after) if place < len(titles) else after
    if columns:
        end = next((at.start() for at in _LABEL.finditer(whole, mark.end(), end) if at[1] in columns), end)
    text = whole[mark.end() : end]
    return text, mark.end() + len(text.rstrip())


def _other_columns(whole: str, marks: Sequence[re.Match[str]]) -> frozenset[str]:
    """Labels of the other columns, in tables: those that at least half of the rows have."""
    ends = [-1, *(found.start() for found in _LINE_END.finditer(whole)), len(whole)]
    rows = {
        (ends[bisect_right(ends, first.start()) - 1] + 1, ends[bisect_left(ends, second.end())])
        for first, second in pairwise(marks)
        if _in_one_row(whole, first, second)
    }
    counted = Counter(label for row in rows for label in {found[1] for found in _LABEL.finditer(whole, *row)})
    return frozenset(
        label for label, count in counted.items() if count >= max(2, len(rows) / 2) and not _OF_A_PAIR.fullmatch(label)
    )
