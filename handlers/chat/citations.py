"""Citations: the sentences of the passages that support an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from domain.chat.conversation import Citation
from handlers.chat.sentences import best_sentence, scored, sentences
from handlers.ports.index import Hit

RESTS_ON = 0.5
"""Minimum share of a statement's words that a sentence must carry to support it."""

_NUMBER = re.compile(r"\[(\d{1,3})\]")


def citations(answer: str, passages: Sequence[Hit], names: Mapping[str, str]) -> list[Citation]:
    """The passages that support the sentences of an answer, in the order of the answer, each once.

    A sentence that names passages as `[n]` cites those, another the one that resembles it most, if any does. `names`
    are the names of documents by id.
    """
    cited: dict[int, str] = {}
    for statement in sentences(answer):
        for number, sentence in _grounds(statement, [hit.entry.content for hit in passages]):
            cited.setdefault(number, sentence)
    return [
        _citation(position, passages[number], sentence, names)
        for position, (number, sentence) in enumerate(cited.items(), 1)
    ]


def _grounds(statement: str, texts: Sequence[str]) -> list[tuple[int, str]]:
    """Numbers of the passages (from 0) that support a statement, each with its closest sentence."""
    named = [int(number) - 1 for number in _NUMBER.findall(statement)]
    if named:
        said = _NUMBER.sub("", statement)
        return [(number, best_sentence(said, texts[number])) for number in named if 0 <= number < len(texts)]
    ranked = scored(statement, texts)
    return [(ranked[0].passage, ranked[0].text)] if ranked and ranked[0].coverage >= RESTS_ON else []


def _citation(position: int, hit: Hit, sentence: str, names: Mapping[str, str]) -> Citation:
    return Citation(
        position=position,
        dataset=hit.dataset,
        document=hit.document,
        document_name=names.get(hit.document, hit.document),
        segment=hit.id,
        segment_position=hit.entry.position,
        page=hit.entry.page,
        heading=hit.entry.heading,
        sentence=sentence,
        content=hit.entry.content,
        score=hit.score,
    )
