"""Judges hits: which the model is given, what of their documents, and why not the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from domain.chat.app import RetrievalSettings
from domain.knowledge.curation import shows
from domain.knowledge.document import Document, segment_id
from domain.knowledge.retrieval import Candidate
from handlers.ports.index import Hit, Kept, Span

SHORTEST_OVERLAP = 16
"""Characters that two segments must share for the second to be taken as beginning with the end of the first."""


@dataclass(slots=True)
class Judged:
    """A hit, and what becomes of it: the fields are those of a `Candidate`."""

    hit: Hit
    fusion_rank: int
    dropped: str | None = None
    rerank_score: float | None = None
    rerank_rank: int | None = None
    rank: int | None = None
    first: int | None = None
    last: int | None = None

    @property
    def score(self) -> float:
        return self.hit.score if self.rerank_score is None else self.rerank_score

    @property
    def wanted(self) -> Span | None:
        """What is to be fetched so that it can be given."""
        alone = self.hit.parent is None and self.first == self.last
        if self.first is None or self.last is None or alone:
            return None
        return Span(self.hit.dataset, self.hit.document, self.first, self.last)

    @property
    def candidate(self) -> Candidate:
        hit = self.hit
        return Candidate(
            segment=hit.id,
            dataset=hit.dataset,
            document=hit.document,
            position=hit.position,
            page=hit.page,
            heading=hit.heading,
            score=hit.score,
            semantic_rank=hit.semantic_rank,
            full_text_rank=hit.full_text_rank,
            fusion_rank=self.fusion_rank,
            rerank_score=self.rerank_score,
            rerank_rank=self.rerank_rank,
            rank=self.rank,
            dropped=self.dropped,
            first=self.first,
            last=self.last,
        )


def sift(found: Sequence[Hit], documents: Mapping[str, Document]) -> list[Judged]:
    """The hits, best first; those are dropped that must not be given, and those with the text of a better one."""
    sifted, texts = [], set()
    for rank, hit in enumerate(found, 1):
        judged = Judged(hit, rank)
        document, text = documents.get(hit.document), " ".join(text_of(hit).split())
        if document is None or document.deleted:
            judged.dropped = "deleted"
        elif not shows(document, hit.id, hit.parent):
            judged.dropped = "disabled"
        elif text in texts:
            judged.dropped = "duplicate"
        else:
            texts.add(text)
        sifted.append(judged)
    return sifted


def places(sifted: Sequence[Judged]) -> int:
    """How many different texts there are to give, at least."""
    kept = [judged.hit for judged in sifted if not judged.dropped]
    return len({(hit.document, hit.position if hit.parent is None else ("parent", hit.parent)) for hit in kept})


def rerank(sifted: Sequence[Judged], scored: Sequence[Hit]) -> list[Judged]:
    """The hits in the order in which a reranker has put some of them, by the scores that these have now."""
    scores = {hit.id: (rank, hit.score) for rank, hit in enumerate(scored, 1)}
    for judged in sifted:
        if judged.hit.id in scores and not judged.dropped:
            judged.rerank_rank, judged.rerank_score = scores[judged.hit.id]
    return sorted(sifted, key=lambda judged: (judged.rerank_rank or len(sifted) + 1, judged.fusion_rank))


def choose(ordered: Sequence[Judged], how: RetrievalSettings) -> None:
    """Give each hit, best first, its rank and its place, or say why not."""
    reranked = any(judged.rerank_rank for judged in ordered)
    given: defaultdict[str, set[int]] = defaultdict(set)
    kept, parents = 0, set()
    for judged in ordered:
        hit = judged.hit
        if judged.dropped:
            continue
        if reranked and judged.rerank_rank is None:
            judged.dropped = "beyond_top_k"
        elif judged.score < (how["score_threshold"] or 0.0):
            judged.dropped = "below_threshold"
        elif (hit.document, hit.parent) in parents or (how["neighbours"] and hit.position in given[hit.document]):
            judged.dropped = "joined"
        elif kept == how["top_k"]:
            judged.dropped = "beyond_top_k"
        else:
            kept += 1
            judged.rank = kept
            if hit.parent is None:
                judged.first, judged.last = _around(hit.position, how["neighbours"], given[hit.document])
                given[hit.document].update(range(judged.first, judged.last + 1))
            else:
                judged.first = judged.last = hit.parent
                parents.add((hit.document, hit.parent))


def passage(judged: Judged, document: Document, kept: Sequence[Kept]) -> Hit:
    """What the model is given for a hit, out of the entries that are kept in its place."""
    hit = replace(judged.hit, score=judged.score)
    same = _same_cut(hit, document, kept)
    if hit.parent is not None:
        parent = next((entry for entry in same if entry.position == hit.parent), None)
        if parent is None:
            return replace(hit, content=text_of(hit), answer=None)
        place = {name: getattr(parent, name) for name in ("id", "position", "page", "heading")}
        return replace(hit, content=text_of(parent), parent=None, answer=None, **place)
    texts = {entry.id: text_of(entry) for entry in same}
    return replace(hit, content=joined(list(texts.values())) if hit.id in texts else text_of(hit), answer=None)


def text_of(entry: Hit | Kept) -> str:
    """A segment as the model is given it: a question with its answer."""
    return entry.content if entry.answer is None else f"{entry.content}\n{entry.answer}"


def joined(texts: Sequence[str]) -> str:
    """The texts of segments that follow on one another; what one repeats of the end of the one before is left out."""
    whole = texts[0]
    for text in texts[1:]:
        lengths = range(min(len(whole), len(text)), SHORTEST_OVERLAP - 1, -1)
        overlap = next((length for length in lengths if whole.endswith(text[:length])), 0)
        whole += text[overlap:] if overlap else f"\n\n{text}"
    return whole


def _around(position: int, neighbours: int, given: set[int]) -> tuple[int, int]:
    """The positions that are given with one, up to those that are given already."""
    first = last = position
    while first > max(0, position - neighbours) and first - 1 not in given:
        first -= 1
    while last < position + neighbours and last + 1 not in given:
        last += 1
    return first, last


def _same_cut(hit: Hit, document: Document, kept: Sequence[Kept]) -> list[Kept]:
    """The entries of the cut that a hit is from, and those that were added by hand; while a document is processed anew,
    the index holds entries of two cuts in the same places."""
    names = [cut["segments"] for cut in document.revisions]

    def cut_of(entry: Hit | Kept) -> str | None:
        return next((name for name in names if segment_id(document.id, name, entry.position) == entry.id), None)

    own = cut_of(hit) or document.segments
    shown = [entry for entry in kept if shows(document, entry.id)]
    same = [(entry.position, cut is None, entry.id, entry) for entry in shown if (cut := cut_of(entry)) in (None, own)]
    return [entry for *_, entry in sorted(same, key=lambda item: item[:3])]
