"""Evidence: the sentences of passages that support an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from handlers.chat.sentences import best_sentence, scored, sentences

RESTS_ON = 0.5
"""Minimum share of a statement's words that a sentence must carry to support it."""

_NUMBER = re.compile(r"\[(\d{1,3})\]")


def evidence(answer: str, passages: Sequence[str]) -> list[tuple[int, str]]:
    """The passages that support the sentences of an answer, in its order: each once, by its number from 0, with its
    closest sentence.

    A sentence that names passages as `[n]` rests on those, another on the one that resembles it most, if any does.
    """
    found: dict[int, str] = {}
    for statement in sentences(answer):
        for number, sentence in _grounds(statement, passages):
            found.setdefault(number, sentence)
    return list(found.items())


def _grounds(statement: str, passages: Sequence[str]) -> list[tuple[int, str]]:
    named = [int(number) - 1 for number in _NUMBER.findall(statement)]
    if named:
        said = _NUMBER.sub("", statement)
        return [(number, best_sentence(said, passages[number])) for number in named if 0 <= number < len(passages)]
    ranked = scored(statement, passages)
    return [(ranked[0].passage, ranked[0].text)] if ranked and ranked[0].coverage >= RESTS_ON else []
