"""Overlays: what people have changed of a document's segments by hand, laid over what the file was cut into."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

MOST = 1000
"""Segments of a document that may be changed by hand."""

MOST_TEXT = 512 * 1024
"""Bytes (UTF-8) that all that was written by hand into a document may have together."""


class Edit(TypedDict):
    """A segment as people have changed it: of the cut with the blob `segments`, or one that they added (None).

    Content and answer are None as long as they are those of the cut; `version` is the document's at the last change.
    """

    segments: str | None
    position: int
    content: str | None
    answer: str | None
    enabled: bool
    deleted: bool
    version: int


def size(*texts: str | None) -> int:
    """Bytes of the texts in UTF-8."""
    return sum(len(text.encode()) for text in texts if text)


def written(edits: Iterable[Edit]) -> int:
    """Bytes that were written by hand."""
    return sum(size(edit["content"], edit["answer"]) for edit in edits)
