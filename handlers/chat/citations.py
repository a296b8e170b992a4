"""Citations: the passages that an answer rests on, as they are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.chat.conversation import Citation
from handlers.ports.index import Hit


def citations(evidence: Sequence[tuple[int, str]], passages: Sequence[Hit], names: Mapping[str, str]) -> list[Citation]:
    """The citations of this evidence, in its order; `names` are the names of documents by id."""
    return [
        _citation(position, passages[number], sentence, names)
        for position, (number, sentence) in enumerate(evidence, 1)
    ]


def _citation(position: int, hit: Hit, sentence: str, names: Mapping[str, str]) -> Citation:
    cited = Citation(
        position=position,
        dataset=hit.dataset,
        document="" if hit.is_of_file else hit.document,
        document_name=names.get(hit.document, hit.document),
        segment=hit.id,
        segment_position=hit.entry.position,
        page=hit.entry.page,
        heading=hit.entry.heading,
        sentence=sentence,
        content=hit.entry.content,
        score=hit.score,
    )
    if hit.is_of_file:
        cited["file"] = hit.document
    return cited
