"""The segments of a document, and the blob that keeps them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a document that fits the embedding model.

    `start` and `end` are character offsets into the extracted text (its blocks joined by two newlines), `token_ids`
    are the embedding model's own, with its special tokens; `tokens` counts those without the special ones.
    """

    position: int
    content: str
    start: int
    end: int
    page: int | None
    heading: str | None
    tokens: int
    token_ids: list[int]


def encode_segments(model: str, segments: Sequence[Segment]) -> bytes:
    """The blob of a document's segments, cut for the embedding model of this identity: compressed JSON.

    Equal segments give equal bytes, and so one digest.
    """
    document = {"model": model, "segments": [asdict(segment) for segment in segments]}
    return zlib.compress(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), 6)


def decode_segments(blob: bytes) -> tuple[str, list[Segment]]:
    """The embedding model's identity and the segments of a blob."""
    document = json.loads(zlib.decompress(blob))
    return document["model"], [Segment(**segment) for segment in document["segments"]]
