"""Selection of hits: what the model is given of them and of their documents, and why not the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from domain.chat.app import RetrievalSettings
from domain.knowledge.curation import shows
from domain.knowledge.document import Document, segment_id
from domain.knowledge.retrieval import Candidate
from handlers.ports.index import Entry, Hit, Span

SHORTEST_OVERLAP = 16
"""Minimum number of characters shared by two segments for the second to count as repeating the end of the first."""


@dataclass(slots=True)
class Selection:
    """A hit, and its fate: the fields are those of a `Candidate`."""

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
        """The span to fetch for the passage, None when the hit itself is enough."""
        alone = self.hit.entry.parent is None and self.first == self.last
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
            position=hit.entry.position,
            page=hit.entry.page,
            heading=None if hit.personal else hit.entry.heading,
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


def select(found: Sequence[Hit], documents: Mapping[str, Document]) -> list[Selection]:
    """The hits, best first; dropped are those that must not be given, and those with the text of a better one."""
    selections, texts = [], set()
    for rank, hit in enumerate(found, 1):
        document, text = documents.get(hit.document), " ".join(text_of(hit.entry).split())
        selection = Selection(replace(hit, personal=document is not None and document.person is not None), rank)
        if document is None or document.deleted:
            selection.dropped = "deleted"
        elif not shows(document, hit.id, hit.entry.parent):
            selection.dropped = "disabled"
        elif text in texts:
            selection.dropped = "duplicate"
        else:
            texts.add(text)
        selections.append(selection)
    return selections


def distinct(selections: Sequence[Selection]) -> int:
    """The minimum number of different texts to give."""
    kept = [(it.hit.document, it.hit.entry) for it in selections if not it.dropped]
    return len({(of, entry.position if entry.parent is None else ("parent", entry.parent)) for of, entry in kept})


def rerank(selections: Sequence[Selection], scored: Sequence[Hit]) -> list[Selection]:
    """The selections in the order of a reranker, which scored some of them."""
    scores = {hit.id: (rank, hit.score) for rank, hit in enumerate(scored, 1)}
    for selection in selections:
        if selection.hit.id in scores and not selection.dropped:
            selection.rerank_rank, selection.rerank_score = scores[selection.hit.id]
    return sorted(selections, key=lambda it: (it.rerank_rank or len(selections) + 1, it.fusion_rank))


def choose(ordered: Sequence[Selection], how: RetrievalSettings) -> None:
    """Set rank and place of each selection, best first, or the reason why it is dropped."""
    reranked = any(selection.rerank_rank for selection in ordered)
    given: defaultdict[str, set[int]] = defaultdict(set)
    kept, parents = 0, set()
    for selection in ordered:
        document, entry = selection.hit.document, selection.hit.entry
        if selection.dropped:
            continue
        if reranked and selection.rerank_rank is None:
            selection.dropped = "beyond_top_k"
        elif selection.score < (how["score_threshold"] or 0.0):
            selection.dropped = "below_threshold"
        elif (document, entry.parent) in parents or (how["neighbours"] and entry.position in given[document]):
            selection.dropped = "joined"
        elif kept == how["top_k"]:
            selection.dropped = "beyond_top_k"
        else:
            kept += 1
            selection.rank = kept
            if entry.parent is None:
                selection.first, selection.last = _around(entry.position, how["neighbours"], given[document])
                given[document].update(range(selection.first, selection.last + 1))
            else:
                selection.first = selection.last = entry.parent
                parents.add((document, entry.parent))


def passage(selection: Selection, document: Document, entries: Sequence[Entry]) -> Hit:
    """The passage that the model is given for a hit, made of the entries in its span."""
    entry = selection.hit.entry
    same = _same_revision(entry, document, entries)
    if entry.parent is not None:
        entry = next((parent for parent in same if parent.position == entry.parent), entry)
        given = replace(entry, content=text_of(entry), parent=None, answer=None)
    else:
        texts = {each.id: text_of(each) for each in same}
        content = joined(list(texts.values())) if entry.id in texts else text_of(entry)
        given = replace(entry, content=content, answer=None)
    return replace(selection.hit, entry=given, score=selection.score)


def text_of(entry: Entry) -> str:
    """A segment as the model is given it: a question with its answer."""
    return entry.content if entry.answer is None else f"{entry.content}\n{entry.answer}"


def joined(texts: Sequence[str]) -> str:
    """The texts of consecutive segments, without what one repeats of the end of the one before."""
    whole = texts[0]
    for text in texts[1:]:
        lengths = range(min(len(whole), len(text)), SHORTEST_OVERLAP - 1, -1)
        overlap = next((length for length in lengths if whole.endswith(text[:length])), 0)
        whole += text[overlap:] if overlap else f"\n\n{text}"
    return whole


def _around(position: int, neighbours: int, given: set[int]) -> tuple[int, int]:
    """The first and last position given with one, up to those that are given already."""
    first = last = position
    while first > max(0, position - neighbours) and first - 1 not in given:
        first -= 1
    while last < position + neighbours and last + 1 not in given:
        last += 1
    return first, last


def _same_revision(found: Entry, document: Document, entries: Sequence[Entry]) -> list[Entry]:
    """The entries of the revision of a found one, and those that were added manually.

    While a document is reprocessed, the index holds entries of two revisions in the same places.
    """
    names = [revision["segments"] for revision in document.revisions]

    def revision_of(entry: Entry) -> str | None:
        return next((name for name in names if segment_id(document.id, name, entry.position) == entry.id), None)

    own = revision_of(found) or document.segments
    of = [(entry, revision_of(entry)) for entry in entries if shows(document, entry.id)]
    same = [(entry.position, name is None, entry.id, entry) for entry, name in of if name in (None, own)]
    return [entry for *_, entry in sorted(same, key=lambda item: item[:3])]
