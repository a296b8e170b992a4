"""Citations: the sentences of the passages that an answer rests on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from domain.conversation import Citation
from handlers.ports import Hit
from handlers.sentences import Scored, scored

RESTS_ON = 0.5
"""The share of an answer's words that a sentence must carry for the answer to rest on it, when it names no passage."""

_NUMBER = re.compile(r"\[(\d{1,3})\]")


def citations(answer: str, passages: Sequence[Hit], names: Mapping[str, str]) -> list[Citation]:
    """Of the passages that the model was given, those that the answer names as `[n]`, or else those it resembles.

    The best first, each with the sentence that comes closest to the answer; `names` are the documents' by their ids.
    """
    best: dict[int, Scored] = {}
    for sentence in scored(_NUMBER.sub("", answer), [hit.content for hit in passages]):
        best.setdefault(sentence.passage, sentence)
    numbers = [int(number) - 1 for number in dict.fromkeys(_NUMBER.findall(answer))]
    cited = [number for number in numbers if 0 <= number < len(passages)]
    if not cited:
        cited = [passage for passage, sentence in best.items() if sentence.coverage >= RESTS_ON]
    return [_citation(position, passages[number], best.get(number), names) for position, number in enumerate(cited, 1)]


def _citation(position: int, hit: Hit, sentence: Scored | None, names: Mapping[str, str]) -> Citation:
    return Citation(
        position=position,
        dataset=hit.dataset,
        document=hit.document,
        document_name=names.get(hit.document, hit.document),
        segment=hit.id,
        segment_position=hit.position,
        page=hit.page,
        heading=hit.heading,
        sentence=sentence.text if sentence else hit.content.partition("\n")[0],
        content=hit.content,
        score=hit.score,
    )
