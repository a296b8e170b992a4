"""Masked previews and masked words of texts, for lists and searches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from projections.values.masking import Masking
from projections.values.words import words

PREVIEW = 200
"""Characters of a preview."""

READ = 2000
"""Characters of a text that a preview is made from."""

SEARCHED = 20_000
"""Characters of a text whose words can be searched."""

MOST = 2000
"""Different words of a trace that can be searched."""


def preview(text: str, masking: Masking) -> str:
    """The masked beginning of a text, on one line."""
    return " ".join(masking(text[:READ]).split())[:PREVIEW]


def with_words(known: Sequence[str], texts: Iterable[str], masking: Masking) -> list[str]:
    """The known words and the other masked words of these texts, `MOST` at most."""
    found = dict.fromkeys(known)
    for text in texts:
        text = text[:SEARCHED]
        for block in (text,) if "-----BEGIN" in text else text.split("\n\n"):
            if len(found) >= MOST:
                return list(found)[:MOST]
            found |= _masked_words(block, masking)
    return list(found)[:MOST]


@lru_cache(maxsize=8192)
def _masked_words(block: str, masking: Masking) -> dict[str, None]:
    """Prompts are made of blocks that occur often: instructions, segments, history."""
    return dict.fromkeys(words(masking(block)))
