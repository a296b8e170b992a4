"""Real texts in any number: docstrings of the installed packages."""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

LENGTH = 700
"""Minimum length of a passage in characters, about 110 words."""

_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_PARAGRAPH = re.compile(r"\n\s*\n")
_LETTERS = 0.7
"""Minimum share of letters and spaces; texts with fewer are tables or code."""


def passages(count: int, seed: int = 0) -> list[str]:
    """Distinct passages, equal for equal packages; when there are too few, two are mixed to a new one."""
    found = list(islice(dict.fromkeys(_passages()), count))
    dice, known = random.Random(seed), len(found)
    while len(found) < count:
        one, two = (re.split(r"(?<=[.:]) ", found[dice.randrange(known)]) for _ in range(2))
        found.append(" ".join(one[: len(one) // 2 + 1] + two[len(two) // 2 :]))
    return found


def _passages() -> Iterator[str]:
    for file in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")):
        parts: list[str] = []
        for paragraph in _paragraphs(file.read_text(errors="ignore")):
            parts.append(paragraph)
            if sum(map(len, parts)) >= LENGTH:
                yield "\n\n".join(parts)
                parts = []


def _paragraphs(source: str) -> Iterator[str]:
    for docstring in _DOCSTRING.finditer(source):
        for paragraph in _PARAGRAPH.split(docstring[1]):
            text = " ".join(paragraph.split())
            if len(text) > 40 and sum(sign.isalpha() or sign == " " for sign in text) > _LETTERS * len(text):
                yield text
