"""Segments and postings in the format of binary COPY, and vectors as halfvec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from struct import pack
from uuid import UUID

import numpy as np
import numpy.typing as npt
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

from adapters.index.versions.schema import Scope
from handlers.ports.index import Entry
from projections.values.words import words

_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = pack(">h", -1)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows of a document's entries.

    For those that can be found: their number, their length in words, and the dimension of their vectors, None without
    vectors.
    """

    entries: list[Entry]
    segments: bytes
    postings: bytes
    matched: int
    length: int
    dimension: int | None


def encode(scope: Scope, entries: Iterable[Entry], sequence: int) -> Encoded:
    """Encode entries; the last of those with the same id counts."""
    tenant, dataset, document = scope
    assert document is not None
    segments, postings, total = [_COPY_HEADER], [_COPY_HEADER], 0
    place = _field(tenant.encode()) + _field(UUID(dataset).bytes)
    document_field, sequence_field = _field(UUID(document).bytes), _field(pack(">q", sequence))
    entries = list({entry.id: entry for entry in entries}.values())
    for entry in entries:
        counts = Counter() if entry.vector is None else words(entry.content)
        length = counts.total()
        total += length
        id = _field(UUID(entry.id).bytes)
        segments += (
            pack(">h", 13),
            place,
            id,
            document_field,
            _field(pack(">i", entry.position)),
            _field(entry.content.encode()),
            _field(None if entry.page is None else pack(">i", entry.page)),
            _field(None if entry.heading is None else entry.heading.encode()),
            _field(pack(">i", length)),
            _field(None if entry.vector is None else halfvec(entry.vector)),
            _field(None if entry.parent is None else pack(">i", entry.parent)),
            _field(None if entry.answer is None else entry.answer.encode()),
            sequence_field,
        )
        start = pack(">h", 6) + place + id + _field(pack(">i", length))
        for word, frequency in counts.items():
            data = word.encode()
            postings.append(start + pack(">iii", 4, frequency, len(data)) + data)
    segments.append(_COPY_TRAILER)
    postings.append(_COPY_TRAILER)
    dimensions = [len(entry.vector) for entry in entries if entry.vector is not None]
    return Encoded(
        entries, b"".join(segments), b"".join(postings), len(dimensions), total, dimensions[0] if dimensions else None
    )


def _field(data: bytes | None) -> bytes:
    return pack(">i", -1) if data is None else pack(">i", len(data)) + data


def halfvec(vector: npt.NDArray[np.float32]) -> bytes:
    return pack(">Hxx", len(vector)) + vector.astype(">f2").tobytes()


class HalfvecDumper(Dumper):
    """Bound without a type: the statement's cast says that it is a halfvec."""

    format = Format.BINARY

    def dump(self, obj: npt.NDArray[np.float32]) -> Buffer | None:
        return halfvec(obj)
