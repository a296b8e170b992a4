"""Entries: which segments of a document the index holds. The one place where that is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from domain.knowledge.document import Document, segment_id
from domain.knowledge.segments import Segment

Tokenize = Callable[[str], list[int]]
"""The token ids of a text, with the special ones."""

Cuts = Mapping[str, Sequence[Segment]]
"""The segments of each cut of a document, by its blob."""


def entries(document: Document, cuts: Cuts, tokenize: Tokenize) -> dict[str, Segment]:
    """What can be found of a document, with the parents of it, by id: its cuts as far as they are indexed, as people
    have changed them, and what they have added.

    Nothing of one that is disabled, archived or deleted; nothing that has a parent which is disabled or deleted. What
    was written by hand is tokenised.
    """
    if document.hidden:
        return {}
    found: dict[str, Segment] = {}
    for cut in document.cuts:
        for segment in cuts[cut["segments"]][: cut["done"]]:
            id = segment_id(document.id, cut["segments"], segment.position)
            if document.shows(id, segment.parent):
                found[id] = _overlaid(document, id, segment, tokenize)
    for id, overlay in document.overlays.items():
        if overlay["segments"] is None and document.shows(id):
            content = overlay["content"] or ""
            token_ids = tokenize(content)
            found[id] = Segment(
                overlay["position"], content, 0, 0, None, None, len(token_ids) - 2, token_ids, None, overlay["answer"]
            )
    return found


def affected(document: Document, cuts: Cuts, since: int) -> set[str]:
    """The ids of all that changes made by hand after a version of the document may have brought in or taken out."""
    changed = {id for id, overlay in document.overlays.items() if overlay["version"] > since}
    everything = document.shown > since
    if everything:
        changed |= document.overlays.keys()
    for cut in document.cuts:
        name = cut["segments"]
        for segment in cuts[name][: cut["done"]]:
            parent = segment.parent
            if everything or (parent is not None and segment_id(document.id, name, parent) in changed):
                changed.add(segment_id(document.id, name, segment.position))
    return changed


def _overlaid(document: Document, id: str, segment: Segment, tokenize: Tokenize) -> Segment:
    overlay = document.overlays.get(id)
    if overlay is None:
        return segment
    content, answer = overlay["content"], overlay["answer"]
    if answer is not None:
        segment = replace(segment, answer=answer)
    if content is None:
        return segment
    token_ids = [] if segment.is_parent else tokenize(content)
    return replace(segment, content=content, token_ids=token_ids, tokens=max(0, len(token_ids) - 2))
