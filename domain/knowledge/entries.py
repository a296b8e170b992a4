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


def entries(document: Document, revisions: Cuts, tokenize: Tokenize) -> dict[str, Segment]:
    """What can be found of a document, with the parents of it, by id: its cuts as far as they are indexed, as people
    have changed them, and what they have added.

    Nothing of one that is disabled, archived or deleted; nothing that has a parent which is disabled or deleted. What
    was written by hand is tokenised.
    """
    if document.hidden:
        return {}
    found: dict[str, Segment] = {}
    for revision in document.revisions:
        for segment in revisions[revision["segments"]][: revision["done"]]:
            id = segment_id(document.id, revision["segments"], segment.position)
            if document.shows(id, segment.parent):
                found[id] = _overlaid(document, id, segment, tokenize)
    for id, edit in document.edits.items():
        if edit["segments"] is None and document.shows(id):
            content = edit["content"] or ""
            token_ids = tokenize(content)
            found[id] = Segment(
                edit["position"], content, 0, 0, None, None, len(token_ids) - 2, token_ids, None, edit["answer"]
            )
    return found


def affected(document: Document, revisions: Cuts, since: int) -> set[str]:
    """The ids of all that changes made by hand after a version of the document may have brought in or taken out."""
    changed = {id for id, edit in document.edits.items() if edit["version"] > since}
    everything = document.shown > since
    if everything:
        changed |= document.edits.keys()
    for revision in document.revisions:
        name = revision["segments"]
        for segment in revisions[name][: revision["done"]]:
            parent = segment.parent
            if everything or (parent is not None and segment_id(document.id, name, parent) in changed):
                changed.add(segment_id(document.id, name, segment.position))
    return changed


def _overlaid(document: Document, id: str, segment: Segment, tokenize: Tokenize) -> Segment:
    edit = document.edits.get(id)
    if edit is None:
        return segment
    content, answer = edit["content"], edit["answer"]
    if answer is not None:
        segment = replace(segment, answer=answer)
    if content is None:
        return segment
    token_ids = [] if segment.is_parent else tokenize(content)
    return replace(segment, content=content, token_ids=token_ids, tokens=max(0, len(token_ids) - 2))
