"""Cleanup of texts before segmentation, by the rules of a knowledge base."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from domain.knowledge.segmentation import Cleanup
from handlers.ports.documents import Block

_SPACES = re.compile(r"[^\S\n]{2,}")
_EMPTY_LINES = re.compile(r"\n(?:[^\S\n]*\n){2,}")

_URL = r"(?:https?|ftp)://[\w\-.~:/?#\[\]@!$&'()*+,;=%]*[\w\-~/#@$&*+=%]"
_IN_BRACKETS = r"[^\S\n]?\((?:https?|ftp)://[^\s()]{0,2000}+\)"
"""The address of a link after its words."""

_LINK = re.compile(
    rf"!?\[([^\[\]\n]{{0,1000}}+)\]\((?:https?|ftp)://[^\s()]{{0,2000}}+\)|{_IN_BRACKETS}|{_URL}", re.ASCII
)
_ADDRESS = r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++"
_EMAIL = re.compile(rf"[^\S\n]?\({_ADDRESS}\)|{_ADDRESS}", re.ASCII)


def cleaned(blocks: Sequence[Block], rules: Iterable[Cleanup]) -> Sequence[Block]:
    """The blocks after cleanup, without those that are empty then."""
    steps = [_STEPS[rule] for rule in _STEPS if rule in rules]
    if not steps:
        return blocks
    found = []
    for block in blocks:
        text = block.text
        for step in steps:
            text = step(text)
        if text := text.strip():
            found.append(replace(block, text=text))
    return found


def _without_addresses(text: str) -> str:
    """Keep the text of a link."""
    if "://" in text:
        text = _LINK.sub(lambda link: link[1] or "", text)
    return _EMAIL.sub("", text) if "@" in text else text


def _without_extra_spaces(text: str) -> str:
    return _EMPTY_LINES.sub("\n\n", _SPACES.sub(" ", text))


# In this order: removed text leaves spaces.
_STEPS: Mapping[Cleanup, Callable[[str], str]] = {
    "remove_urls_emails": _without_addresses,
    "remove_extra_spaces": _without_extra_spaces,
}
