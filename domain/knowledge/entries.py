"""Entries: the segments of a document that the index must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from domain.knowledge.curation import shows
from domain.knowledge.document import Document, segment_id
from domain.knowledge.segments import Segment

Tokenize = Callable[[str], list[int]]
"""Token ids of a text, with special tokens."""

Revisions = Mapping[str, Sequence[Segment]]
"""The segments of each revision of a document, by its blob."""


def entries(document: Document, revisions: Revisions, tokenize: Tokenize) -> dict[str, Segment]:
    """The segments of a document that can be found, and their parents, by id: the indexed part of its revisions with
    the edits of people, and the segments that people added.

    None of a document that is disabled, archived or deleted; none whose parent is disabled or deleted. Texts that
    people wrote are tokenized.
    """
    if document.hidden:
        return {}
    found: dict[str, Segment] = {}
    for revision in document.revisions:
        for segment in revisions[revision["segments"]][: revision["done"]]:
            id = segment_id(document.id, revision["segments"], segment.position)
            if shows(document, id, segment.parent):
                found[id] = _edited(document, id, segment, tokenize)
    for id, edit in document.edits.items():
        if edit["segments"] is None and shows(document, id):
            content = edit["content"] or ""
            token_ids = tokenize(content)
            found[id] = Segment(
                edit["position"], content, 0, 0, None, None, len(token_ids) - 2, token_ids, None, edit["answer"]
            )
    return found


def affected(document: Document, revisions: Revisions, since: int) -> set[str]:
    """The ids of the segments that edits after a version of the document may have added to the entries or removed."""
    changed = {id for id, edit in document.edits.items() if edit["version"] > since}
    everything = document.sync["shown"] > since
    if everything:
        changed |= document.edits.keys()
    for revision in document.revisions:
        name = revision["segments"]
        for segment in revisions[name][: revision["done"]]:
            parent = segment.parent
            if everything or (parent is not None and segment_id(document.id, name, parent) in changed):
                changed.add(segment_id(document.id, name, segment.position))
    return changed


def _edited(document: Document, id: str, segment: Segment, tokenize: Tokenize) -> Segment:
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
