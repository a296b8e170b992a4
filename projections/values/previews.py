"""What lists and searches may know of a text: its masked beginning, and its masked words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from projections.values.masking import mask
from projections.values.words import words

PREVIEW = 200
"""Characters of a preview."""

READ = 2000
"""Characters of a text that a preview is made from."""

SEARCHED = 20_000
"""Characters of a text whose words can be searched."""

MOST = 2000
"""Different words of a trace that can be searched."""


def preview(text: str) -> str:
    """The beginning of a text on one line, masked."""
    return " ".join(mask(text[:READ]).split())[:PREVIEW]


def with_words(known: Sequence[str], texts: Iterable[str]) -> list[str]:
    """The words that are known, and those of these texts that are not among them, as far as there is room."""
    found = dict.fromkeys(known)
    for text in texts:
        text = text[:SEARCHED]
        for block in (text,) if "-----BEGIN" in text else text.split("\n\n"):
            if len(found) >= MOST:
                return list(found)[:MOST]
            found |= _masked_words(block)
    return list(found)[:MOST]


@lru_cache(maxsize=8192)
def _masked_words(block: str) -> dict[str, None]:
    """Prompts are made of blocks that come again and again: instructions, segments, history."""
    return dict.fromkeys(words(mask(block)))
