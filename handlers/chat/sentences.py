"""Sentences: splitting a text into them, and scoring them as answers to a question."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from domain.language import ASKING_WORDS, CLOSING, STOPS, WIDE_CLOSING, WIDE_STOPS
from handlers.chat.questions import kinds, weights
from handlers.chat.terms import terms

ENOUGH = 0.4
"""Minimum share of a question's weight that a sentence must carry to count as an answer."""

CLOSE = 0.8
"""Minimum share of the best sentence's score for a further sentence of an answer."""

FEW = 10
"""Number of sentences that rarity is measured among at least."""

LONG = 20_000
"""Maximum number of characters of a passage whose sentences are kept in memory."""

MOST = 3
"""Maximum number of sentences in an answer."""

ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        """
        al approx apt ave ca cap cf ch co corp dept dr ed eds eq est ext fig figs gen gov hon inc jr ltd max min mr mrs
        ms mt nos para pp prof ref refs rev sec sen sgt sr st tel univ vol vs bzw e.g i.e p.o u.k u.s z.b
        jan feb mar apr jun jul aug sep sept oct nov dec
        """,
    )
)
NUMBERING = frozenset(("no", "art", "p", "nr"))
"""Abbreviations when a number follows."""

_BORDER = re.compile(
    rf"(?<![{STOPS}])(?P<stop>[{STOPS}]++)[{CLOSING}]*+\s++"
    rf"|[{WIDE_STOPS}]++[{WIDE_CLOSING})]*+\s*+"
    r"|(?<!\s)[^\S\n]*+\n[^\S\n]*+(?:\n\s*+|(?=[-*•‣▪#>|]|\d++[.)]\s))"
)
_MARKER = re.compile(r"(?:[-*•‣▪]\s+|#{1,6}\s+|>\s*|\|\s*)+")
_NEW_PARAGRAPH = re.compile(r"\n\s*\n")
_OPENING = re.compile(r"(?<![\"'“‘«(\[¿¡*_])[\"'“‘«(\[¿¡*_]*+(\w++)")
_LAST_WORD = re.compile(r"(?:[^\W\d_]\.){0,12}+\w{1,24}$")
_POINTING = re.compile(
    r"(?:it|its|they|their|this|these|that|those|he|she|his|her|both|there|er|sie|es|il|elle)\b"
    r"|[它他她其这這此該该]|それ|これ|この|その|そこ",
    re.IGNORECASE,
)
_QUESTION = ("?", "？", "؟")
_STATEMENT = (".", "!", "]", "。", "！", "।")
_ANNOUNCEMENT = (":", "：")


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, verbatim; a heading, list item or table row counts as one."""
    return [sentence for start, end in spans(text) if (sentence := _bare(text[start:end]))]


def spans(text: str) -> Iterator[tuple[int, int]]:
    """The places of the sentences of a text, with the white space after each; the last may be incomplete or empty."""
    start = 0
    for border in _BORDER.finditer(text):
        if border["stop"] is None or _ends(text, start, border):
            yield start, border.end()
            start = border.end()
    yield start, len(text)


def _bare(text: str) -> str:
    text = text.strip()
    marker = _MARKER.match(text)
    return text[marker.end() :].rstrip("| ") if marker else text


def _ends(text: str, start: int, border: re.Match[str]) -> bool:
    """True if a stop and what follows it end a sentence."""
    if _NEW_PARAGRAPH.search(border[0]) or ("\n" in border[0] and _MARKER.match(text, border.end())):
        return True
    opening = _OPENING.match(text, border.end())
    if opening and opening[1][0].islower():
        return False
    if border["stop"] != ".":
        return True
    before = text[max(start, border.start() - 24) : border.start()].strip()
    last = _LAST_WORD.search(before)
    if last is None:
        return True
    word = last[0].lower()
    alone = word == before.lower() and border.start() - start <= 24
    if alone and (word.isdigit() or len(word) == 1):
        return False
    initial = len(word) == 1 and last[0].isupper()
    numbering = word in NUMBERING and opening is not None and opening[1].isdigit()
    fresh = opening is not None and opening[1].lower() in ASKING_WORDS
    return fresh or not (initial or numbering or word in ABBREVIATIONS)


@dataclass(frozen=True, slots=True)
class Scored:
    """Sentence number `position` of passage number `passage` (from 0).

    `coverage` is the share of the question's weight that it carries with its surroundings, 0 to 1; `own` is the share
    of its own words.
    """

    text: str
    passage: int
    position: int
    score: float
    coverage: float
    own: float


def scored(question: str, passages: Sequence[str]) -> list[Scored]:
    """The sentences of the passages, the best for the question first; [] for a question without terms.

    A sentence scores the weights of the question's terms in it, rare ones more, and a part of those in its heading,
    neighbours and passage; more when it has the kind of thing asked for, little when it only repeats the question.
    """
    asked, wanted = weights(question), kinds(question)
    if not asked:
        return []
    stated = question.rstrip().endswith(_STATEMENT)
    read = [(_read if len(passage) <= LONG else _read.__wrapped__)(passage) for passage in passages]
    texts, words = [lines for lines, _ in read], [held for _, held in read]
    asked = _by_rarity(asked, words)
    whole = sum(asked.values())
    found = []
    for passage, (lines, held) in enumerate(zip(texts, words, strict=True)):
        given = [[stands for kind, stands in wanted if kind.search(line)] for line in lines]
        matches = [_matches(asked, *each) for each in zip(held, given, strict=True)]
        for position, share in enumerate(_shares(asked, lines, matches)):
            line = lines[position]
            score = share * 1.3 ** len(given[position])
            score *= (1 - 0.015 * min(passage, 20)) / (1 + len(held[position]) / 200)
            if not stated and (line.endswith(_QUESTION) or held[position] <= asked.keys()):
                score *= 0.2
            if line.endswith(_ANNOUNCEMENT) or (position == 0 and len(lines) > 1 and _is_heading(line)):
                score *= 0.5
            own = sum(asked[term] * part for term, part in matches[position].items())
            found.append(Scored(line, passage, position, score, share / whole, own / whole))
    return sorted(found, key=lambda each: (-each.score, each.passage, each.position))


@lru_cache(maxsize=256)
def _read(passage: str) -> tuple[list[str], list[frozenset[str]]]:
    """The sentences of a passage, and the terms of each: they are asked for with every sentence of an answer."""
    lines = sentences(passage)
    return lines, [frozenset(terms(line)) for line in lines]


def _by_rarity(asked: dict[str, float], words: list[list[frozenset[str]]]) -> dict[str, float]:
    """The weights times the inverse frequency of their terms among the sentences; among few, rarity says little."""
    count = max(sum(map(len, words)), FEW)
    frequency = Counter(term for held in words for own in held for term in own & asked.keys())
    return {
        term: weight * math.log(1 + (count - frequency[term] + 0.5) / (frequency[term] + 0.5))
        for term, weight in asked.items()
    }


def _matches(asked: dict[str, float], words: frozenset[str], given: list[frozenset[str]]) -> dict[str, float]:
    """The degree, up to 1, to which each asked term is in a sentence: in part by a long common prefix, or by the kind
    of thing that it stands for."""
    found = {}
    for term in asked:
        if term in words:
            found[term] = 1.0
        elif any(term in stands for stands in given):
            found[term] = 0.8
        elif len(term) > 4 and not term[0].isdigit():
            beginning = term[: max(5, len(term) - 3)]
            if any(word.startswith(beginning) for word in words):
                found[term] = 0.6
    return found


def _shares(asked: dict[str, float], lines: list[str], matches: list[dict[str, float]]) -> Iterator[float]:
    """The weight that each sentence of a passage carries, by itself and by its surroundings."""
    anywhere = {term: max((match.get(term, 0.0) for match in matches), default=0.0) * 0.3 for term in asked}
    if lines and _is_heading(lines[0]):
        anywhere.update({term: max(anywhere[term], part * 0.7) for term, part in matches[0].items()})
    for position, match in enumerate(matches):
        before = matches[position - 1] if position else {}
        after = matches[position + 1] if position + 1 < len(lines) else {}
        led = bool(before) and lines[position - 1].endswith(_QUESTION + _ANNOUNCEMENT)
        near = 1.0 if led else 0.85 if _POINTING.match(lines[position]) else 0.4
        yield sum(
            weight * max(match.get(term, 0.0), before.get(term, 0.0) * near, after.get(term, 0.0) * 0.2, anywhere[term])
            for term, weight in asked.items()
        )


def _is_heading(line: str) -> bool:
    return len(line) < 100 and not line.endswith((*_STATEMENT, *_QUESTION, "؟", ",", ";"))


def answering(question: str, passages: Sequence[str]) -> list[Scored]:
    """The sentences that answer a question, at most `MOST`, in the order of the passages; [] when none does."""
    ranked = [each for each in scored(question, passages) if each.coverage >= ENOUGH]
    chosen: dict[tuple[str, ...], Scored] = {}
    for each in ranked:
        if each.score < ranked[0].score * CLOSE or len(chosen) == MOST:
            break
        if not chosen or each.own >= each.coverage * 0.6:
            chosen.setdefault(tuple(terms(each.text)), each)
    return sorted(chosen.values(), key=lambda each: (each.passage, each.position))


def best_sentence(question_or_answer: str, passage: str) -> str:
    """The sentence of a passage, verbatim, that matches a question or an answer best; its first when none does."""
    ranked = scored(question_or_answer, [passage])
    if ranked and ranked[0].score > 0:
        return ranked[0].text
    return next(iter(sentences(passage)), "")
