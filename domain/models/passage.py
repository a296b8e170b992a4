"""A passage: a text of a knowledge base that prompts quote, recorded once for all of them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated
from uuid import UUID

from domain import aggregate
from domain.aggregate import Aggregate


@lru_cache(maxsize=1024)
def passage_id(text: str) -> str:
    """The id of a text: a UUIDv8 of the first bits of its SHA-256."""
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    value = int.from_bytes(digest[:16]) & ~(0xF << 76) & ~(0b11 << 62) | 8 << 76 | 0b10 << 62
    return str(UUID(int=value))


class Passage(Aggregate):
    TOPIC = "passage"
    text: str

    class Event(aggregate.Event):
        pass

    class Recorded(Event, aggregate.Created):
        """A text was given to a model for the first time."""

        TOPIC = "passage.recorded.v1"
        text: Annotated[str, "Text; the id is made of its SHA-256."]
