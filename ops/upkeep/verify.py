"""Reads the log from its first message, and holds it against all that was made of it: do the promises hold?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import psycopg
from nats.aio.client import Client as Connection
from nats.js.errors import NotFoundError

from adapters.archive.archiver import check as check_archive
from adapters.archive.store import Archive
from adapters.jetstream.audited import AuditedLog
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import COMMANDS
from adapters.jetstream.workers.consumer import done
from adapters.many import each
from adapters.postgres import policies, tables
from adapters.postgres.compare import compare
from domain.access.actor import CommandSubject
from domain.log import EVENTS, OUTCOMES, Position
from handlers.files import Files
from handlers.ports.log import Blobs, Unavailable
from handlers.repository import Repository
from handlers.work.audit import Audit, Check
from handlers.work.progress import Progress
from handlers.work.work import PENDING, WORKS
from ops.bus import connect
from ops.index_choice import open_index
from ops.settings import Settings
from ops.terminal import one_line
from ops.upkeep.prompts import prompts as whole_prompts
from ops.upkeep.rebuild import uncollected
from ops.values import values
from projections.catalog import READ_MODELS
from projections.document_segments import FINDABLE

QUIET_S = 15.0
"""So long the tables may take to hold what the log holds, before what is in one and not in the other counts."""

FETCHES = 16
"""Blobs that are read at a time."""

ARCHIVE_REPAIRS = {
    "archive": "headrace archive, with HEADRACE_ARCHIVE_URL set to a new, empty address",
    "archived log": "headrace restore, onto an empty NATS",
    "archived keys": "headrace archive",
}
"""The commands that repair faults of the archive, by check."""


async def verify(
    settings: Settings, deadline: timedelta, progress: Progress, *, prompts: bool = False, archive: bool = False
) -> AsyncIterator[Check]:
    """The checks, each as soon as it is done. Nothing is changed, and nothing made that is missing.

    A wait without any step for longer than `deadline` is a fault. With `prompts`, all recorded prompts are put
    together; with `archive`, the one of the settings is read too.
    Raises: Unreachable, Unavailable.
    """
    async with await connect(settings) as client:
        nc = client.connection
        keys = JetStreamKeys(nc, settings.vault())
        log, blobs, audit = JetStreamLog(nc, keys, client.blobs), client.blobs, Audit()
        audited = AuditedLog(log, audit)
        rows = await _rows(settings)  # the comparison makes missing policies
        with uncollected():
            compared = await _tables(settings, log, audited, Files(blobs, keys), progress)
            await audited.finish(progress)
        await _look_again(nc, keys, audit, settings)
        for check in audit.checks:
            yield check
        yield await _pending(nc, audit, deadline)
        yield _calls(audit, deadline)
        yield await _blobs(blobs, audit, progress)
        yield compared
        yield rows
        yield await _index(settings, log, progress)
        if prompts:
            repository = Repository(JetStreamEventStore(nc, keys, blobs), JetStreamSnapshots(nc, keys))
            yield await whole_prompts(settings.postgres_url, repository, progress)
        if archive:
            archived = Archive.at(settings.archive_url, settings.archive_segment_bytes)
            async for check in check_archive(nc, archived, progress, settings.archive_signature()):
                check.repair = ARCHIVE_REPAIRS.get(check.name, check.repair)
                yield check


async def _look_again(nc: Connection, keys: JetStreamKeys, audit: Audit, settings: Settings) -> None:
    """Check again commands that had no outcome yet, and compare the end of the log with the position of the tables."""
    outcomes, js = JetStreamOutcomes(nc, keys), nc.jetstream()
    waiting = await _waiting(nc) if audit.undecided else set()
    for (tenant, command), sequence in audit.undecided.items():
        if (tenant, command) not in waiting and await outcomes.get(tenant, command) is None:
            audit.decided.fault(
                f"{EVENTS} {sequence}: command {command} of {tenant} has changed it, and has no outcome"
            )
    for stream in (EVENTS, OUTCOMES):
        state = (await js.stream_info(stream)).state
        if state.num_deleted:
            audit.sequence.fault(f"{stream}: NATS says that {state.num_deleted} messages are gone")
        with_tables = await _reached(settings, stream)
        if with_tables > state.last_seq:
            audit.sequence.fault(f"{stream} {state.last_seq + 1}: missing, and the tables know up to {with_tables}")


async def _reached(settings: Settings, stream: str) -> int:
    """Position of the tables in a stream; 0 when there are none, or they cannot be reached."""
    try:
        async with tables.connect(settings.postgres_url) as connection:
            return (await tables.positions(connection))[stream]
    except psycopg.Error:
        return 0


async def _waiting(nc: Connection) -> set[tuple[str, str]]:
    """Tenant and id of the commands that wait for their turn; one that does no more has an outcome by then."""
    js, ids = nc.jetstream(), set[tuple[str, str]]()
    state = (await js.stream_info(COMMANDS)).state
    sequence = state.first_seq
    while sequence <= state.last_seq:
        try:
            message = await js.get_msg(COMMANDS, sequence, direct=True, next=True, subject="cmd.>")
        except NotFoundError:
            break
        headers = message.headers or {}
        tenant = CommandSubject.of(message.subject or "").tenant
        ids |= {(tenant, headers[name].lower()) for name in ("Headrace-Id", "Nats-Msg-Id") if name in headers}
        sequence = int(message.seq or sequence) + 1
    return ids


async def _pending(nc: Connection, audit: Audit, deadline: timedelta) -> Check:
    """Work has a worker as long as its consumer has not acknowledged the commit that began it."""
    check = Check("waits", "everything that waits has an owner and a deadline", "headrace worker --role commands")
    now, over = datetime.now(UTC), await done(nc)
    for name in PENDING:
        if name not in over:
            check.fault(f"the consumer {name} is missing: start a worker of the role {WORKS[name].role}")
    for work in (work for items in audit.open.values() for work in items.values()):
        check.checked += 1
        quiet = now - work.since
        named = f"{EVENTS} {work.opened}: {work.work} of {work.item} in {work.tenant}"
        if work.opened <= over.get(work.work, 0) and quiet > timedelta(seconds=QUIET_S):
            check.fault(f"{named}: no worker has it")
        elif quiet > deadline:
            check.fault(f"{named}: no step for {quiet.total_seconds():,.0f} s")
    return check


def _calls(audit: Audit, deadline: timedelta) -> Check:
    check = Check(
        "model calls", "every requested call has ended, or someone will end it", "headrace worker --role commands"
    )
    check.checked = audit.requested
    for subject, call in audit.orphans():
        if datetime.now(UTC) - call.since > deadline:
            check.fault(f"{EVENTS} {call.sequence}: {subject} has no end, and what it was made for is over")
    return check


async def _blobs(blobs: Blobs, audit: Audit, progress: Progress) -> Check:
    check = Check("blobs", "every blob is there, with its digest", "headrace restore")

    async def look(blob: tuple[str, str]) -> None:
        tenant, digest = blob
        try:
            await blobs.get(tenant, digest)
        except KeyError:
            check.fault(f"{EVENTS} {audit.blobs[blob]}: blob {digest} of {tenant} is missing")
        except ValueError as error:
            check.fault(f"{EVENTS} {audit.blobs[blob]}: {error}")
        check.checked += 1
        progress("blobs", check.checked, len(audit.blobs))

    await each(audit.blobs, look, FETCHES)
    return check


async def _tables(
    settings: Settings, log: JetStreamLog, audited: AuditedLog, files: Files, progress: Progress
) -> Check:
    """Compare the tables with a replay. Halted tables are not compared: they may equal a replay that ends as early."""
    check = Check("tables", "the tables are what a replay of the log makes", "headrace rebuild")
    try:
        if behind := await _behind(settings, log):
            check.repair = "headrace worker --role project"
            for sentence in behind:
                check.fault(sentence)
            return check
        compared = await compare(
            settings.postgres_url, audited, files, (), progress, values(settings), settings.projector_processes
        )
    except Exception as error:  # of a broken log too, which other checks name
        check.fault(f"cannot be compared ({type(error).__name__}): {one_line(error)}")
        return check
    for table in compared:
        check.checked += table.fresh
        if table.first:
            check.fault(f"{table.table}: {table.first}")
            check.faults += table.different - 1
    wrong = [table.table for table in compared if table.first]
    check.repair = f"headrace rebuild {' '.join(wrong)}"
    return check


async def _rows(settings: Settings) -> Check:
    """Check that the live tables have the policies that a rebuild gives them, and that nothing leads around those."""
    check = Check("rows", "each tenant sees its own rows alone", "headrace setup")
    try:
        async with tables.connect(settings.postgres_url) as connection:
            names = [model.name for model in READ_MODELS]
            check.checked = len(names)
            for sentence in await policies.crossings(connection, names):
                check.fault(sentence)
    except psycopg.Error as error:
        check.fault(f"PostgreSQL: {one_line(error)}")
    return check


async def _behind(settings: Settings, log: JetStreamLog) -> list[str]:
    """Streams whose end the tables did not reach in time, as sentences. Raises: psycopg.Error, Unavailable."""
    ends = {stream: await log.last(stream) for stream in (EVENTS, OUTCOMES)}
    try:
        async with asyncio.timeout(QUIET_S):
            for stream, last in ends.items():
                await tables.wait_for(settings.postgres_url, Position(stream, last))
    except TimeoutError:
        reached = {stream: await _reached(settings, stream) for stream in ends}
        return [
            f"{stream}: the tables stand at {reached[stream]}, and the log goes to {last}"
            for stream, last in ends.items()
            if reached[stream] < last
        ]
    return []


async def _index(settings: Settings, log: JetStreamLog, progress: Progress) -> Check:
    """Compare index and table. A difference counts if it remains once the tables have caught up."""
    check = Check("index", "the index holds the living segments, and nothing else", "headrace index rebuild")
    try:
        missing, left_over = await _differences(settings, check, progress)
        if missing or left_over:
            for stream in (EVENTS, OUTCOMES):
                await tables.wait_for(settings.postgres_url, Position(stream, await log.last(stream)), QUIET_S)
            await _synced(settings)
            again = await _differences(settings, check, progress)
            missing, left_over = missing & again[0], left_over & again[1]
    except (psycopg.Error, Unavailable, TimeoutError) as error:
        check.fault(f"PostgreSQL: {one_line(error) or 'the tables do not catch up'}")
        return check
    for what, segments in (("is not in the index", missing), ("is in the index, and should not be", left_over)):
        for tenant, dataset, segment in sorted(segments):
            check.fault(f"segment {segment} of dataset {dataset} of {tenant} {what}")
    return check


Segments = set[tuple[str, str, str]]
"""By tenant, dataset and id."""


async def _differences(settings: Settings, check: Check, progress: Progress) -> tuple[Segments, Segments]:
    """Segments that only the table has, and segments that only the index has."""
    async with (
        open_index(settings) as index,
        await psycopg.AsyncConnection.connect(settings.postgres_url) as connection,
        connection.cursor("segments") as cursor,
    ):
        await cursor.execute(FINDABLE)
        missing: Segments = set()
        left_over: Segments = set()
        check.checked = 0
        async with aclosing(index.contents()) as chunks:
            async for chunk in chunks:
                rows = await cursor.fetchmany(len(chunk))
                check.checked += len(chunk)
                _cancel(missing, left_over, rows, chunk)
                progress("index", check.checked, check.checked)
        async for row in cursor:
            _cancel(missing, left_over, [row], [])
    return missing, left_over


async def _synced(settings: Settings) -> None:
    """Wait until the index has all edits. Raises: psycopg.Error, TimeoutError."""
    async with asyncio.timeout(QUIET_S), tables.connect(settings.postgres_url) as connection:
        while await (await connection.execute(_CHANGING)).fetchone() != (0,):
            await asyncio.sleep(0.2)


_CHANGING = "SELECT count(*) FROM headrace.documents WHERE index_status = 'changing'"


def _cancel(
    missing: Segments, left_over: Segments, rows: Iterable[tuple[str, str, str]], found: Iterable[tuple[str, str, str]]
) -> None:
    """Both sides come in the same order, so segments of one side only do not cancel out."""
    missing |= set(rows)
    left_over |= set(found)
    both = missing & left_over
    missing -= both
    left_over -= both
