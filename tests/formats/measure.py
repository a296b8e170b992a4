"""How much of the documents with known text is found."""

from __future__ import annotations

from handlers.ports import Text
from tests.formats.corpus import Fact


def one_line(text: str) -> str:
    return " ".join(text.split())


def found(fact: Fact, text: Text) -> bool:
    """Whether a block of the fact's page and heading holds its text."""
    return any(
        block.page == fact.page and block.heading == fact.heading and one_line(fact.text) in one_line(block.text)
        for block in text.blocks
    )
