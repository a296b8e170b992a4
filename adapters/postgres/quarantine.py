"""The table of the quarantine: messages of the log that could not be read, and what was decided."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from domain.log import EVENTS, Commit, Quarantined, Recorded, Subject
from domain.work.quarantine import Quarantine, quarantine_id
from handlers.work.quarantine import discards
from projections.catalog import KNOWN


def version(known: Iterable[type]) -> str:
    """A digest of the stored names of these events: it changes with a new version of one, too."""
    names = sorted(str(getattr(event, "TOPIC", event.__qualname__)) for event in known)
    return sha256(" ".join(names).encode()).hexdigest()[:16]


VERSION = version(KNOWN)


async def note_quarantine(connection: AsyncConnection[TupleRow], batch: Iterable[Recorded]) -> None:
    """Note what in a batch is in quarantine, and what was discarded from it."""
    for message in batch:
        match message:
            case Quarantined():
                await connection.execute(_NOTE, _row(message))
            case Commit() if message.subject.noun == Quarantine.TOPIC:
                for stream, sequence in discards(message):
                    await connection.execute(_DISCARD, (message.at, message.position.sequence, stream, sequence))


async def frozen(connection: AsyncConnection[TupleRow], until: int) -> list[tuple[int, Subject, bool]]:
    """The messages of EVENTS up to this sequence that freeze their aggregates there."""
    cursor = await connection.execute(_FROZEN, {"stream": EVENTS, "until": until})
    return [
        (sequence, Subject(*subject.split(".", 3)[1:]), newer) for sequence, subject, newer in await cursor.fetchall()
    ]


async def release_newer(connection: AsyncConnection[TupleRow]) -> bool:
    """Remove what other versions could not read, and mark all tables for a rebuild; return True if there was any."""
    async with connection.transaction():
        found = await connection.execute(
            "DELETE FROM headrace_projection.quarantine WHERE newer AND version <> %s", (VERSION,)
        )
        if found.rowcount:
            await connection.execute("UPDATE headrace_projection.tables SET rules = '' WHERE schema = 'headrace'")
    return found.rowcount > 0


def _row(message: Quarantined) -> dict[str, object]:
    stream, sequence = message.position
    return {
        "stream": stream,
        "sequence": sequence,
        "id": quarantine_id(stream, sequence),
        "tenant": message.subject.tenant,
        "subject": str(message.subject),
        "reason": message.reason.replace("\0", "\N{REPLACEMENT CHARACTER}")[:1000],
        "newer": message.newer,
        "held_by": message.held_by,
        "version": VERSION,
        "at": message.at,
    }


_NOTE = """
INSERT INTO headrace_projection.quarantine
    (stream, sequence, id, tenant_id, subject, reason, newer, held_by, version, created_at)
VALUES (%(stream)s, %(sequence)s, %(id)s, %(tenant)s, %(subject)s, %(reason)s, %(newer)s, %(held_by)s, %(version)s,
    %(at)s)
ON CONFLICT (stream, sequence) DO UPDATE SET (reason, newer, held_by, version)
    = (excluded.reason, excluded.newer, excluded.held_by, excluded.version)
"""

_DISCARD = """
UPDATE headrace_projection.quarantine SET discarded_at = %s, discarded_by = %s
WHERE stream = %s AND %s IN (sequence, held_by) AND discarded_at IS NULL
"""

_FROZEN = """
SELECT sequence, subject, newer FROM headrace_projection.quarantine
WHERE stream = %(stream)s AND sequence <= %(until)s AND held_by IS NULL
    AND (discarded_by IS NULL OR discarded_by > %(until)s)
ORDER BY sequence
"""
