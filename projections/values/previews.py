"""Masked previews and masked words of texts, for lists and searches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from domain.excerpt import excerpt
from projections.values.masking import Masking
from projections.values.words import distinct

PREVIEW = 200
"""Characters of a preview."""

READ = 2000
"""Characters of a text that a preview is made from."""

SEARCHED = 20_000
"""Characters of a text whose words can be searched."""

MOST = 2000
"""Different words of a trace that can be searched."""

KEPT = 30_000
"""Blocks whose words are kept, about."""


def preview(text: str, masking: Masking) -> str:
    """The masked beginning of a text, on one line."""
    return excerpt(masking(text[:READ]), PREVIEW)


def masked_words(blocks: Iterable[str], masking: Masking) -> list[list[str]]:
    """The different words of each block of text, masked."""
    return [list(distinct(masking(block))) for block in blocks]


class Words:
    """The masked words of blocks of text, of which some thousands are kept: prompts consist of blocks that occur often,
    such as instructions, segments and history."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self._kept: dict[str, list[str]] = {}

    def of(self, block: str) -> list[str]:
        if (found := self._kept.get(block)) is None:
            [found] = masked_words([block], self._masking)
            self.keep([(block, found)])
        return found

    def missing(self, texts: Iterable[str]) -> list[str]:
        """The blocks of these texts whose words are not kept."""
        found = dict.fromkeys(block for text in texts for block in _blocks(text))
        return [block for block in found if block not in self._kept]

    def keep(self, found: Iterable[tuple[str, list[str]]]) -> None:
        if len(self._kept) > KEPT:
            for block in list(self._kept)[: len(self._kept) // 2]:
                del self._kept[block]
        self._kept.update(found)


def with_words(known: Sequence[str], texts: Iterable[str], words: Words) -> list[str]:
    """The known words and the other masked words of these texts, `MOST` at most."""
    found = dict.fromkeys(known)
    for text in texts:
        for block in _blocks(text):
            if len(found) >= MOST:
                return list(found)[:MOST]
            found.update(dict.fromkeys(words.of(block)))
    return list(found)[:MOST]


def _blocks(text: str) -> Sequence[str]:
    text = text[:SEARCHED]
    return (text,) if "-----BEGIN" in text else text.split("\n\n")
