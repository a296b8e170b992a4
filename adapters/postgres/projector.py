"""The projector: keeps the tables up to date with the log, each batch's rows and positions in one transaction.

The groups of tables are folded over one reading of the log. A group that cannot go on halts by itself; the others run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress

import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow

from adapters.postgres.attachments import InTheWay
from adapters.postgres.copy import NEAR
from adapters.postgres.feed import batches
from adapters.postgres.quarantine import frozen, note_quarantine, release_newer
from adapters.postgres.rebuild import rebuild
from adapters.postgres.tables import (
    PROJECTOR_LOCK,
    SCHEMA,
    connect,
    group_positions,
    move,
    note_state,
    note_waiting,
    set_up,
    stale,
    turn,
)
from adapters.postgres.words import WordsAhead
from adapters.postgres.writer import Fetched, Writer, with_blobs
from domain.log import EVENTS, Recorded
from handlers.files import Files
from handlers.ports.log import Log, Unavailable
from handlers.work.quarantine import HoldingLog
from projections.catalog import GROUP_OF, GROUPS
from projections.engine.fold import BlobId
from projections.engine.values import BUILT_IN, Values

logger = structlog.get_logger(__name__)

SHORTEST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0

LOOK_AGAIN_S = 30.0
"""Interval at which a group is tried again that has halted, or whose tables cannot be rebuilt."""

OUTAGES = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    Unavailable,
)
"""Errors that pass when a server comes back, or when dropped tables were rebuilt."""


class Halted(Exception):
    """No group of tables can go on without harm; they stay as they are until an operator has seen to the reason."""


class Projector:
    """Follows the log into the tables. Of several, one works and the others wait to take over."""

    def __init__(self, url: str, log: Log, files: Files, values: Values = BUILT_IN, processes: int = 1) -> None:
        self._url = url
        self._log = log
        self._files = files
        self._values = values
        self._processes = processes
        self._halted: dict[str, str] = {}

    async def run(self) -> None:
        """Work until cancelled, through outages; rebuild tables that are missing or that other rules made.

        Raises: Halted, when no group can go on.
        """
        wait = SHORTEST_WAIT_S
        while True:
            began = time.monotonic()
            try:
                await self._lead()
            except OUTAGES as error:
                if time.monotonic() - began > LONGEST_WAIT_S:
                    wait = SHORTEST_WAIT_S
                logger.warning("projector.waiting", reason=str(error), seconds=wait)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
            except Halted:
                raise
            except Exception as error:  # of the log, which all groups read
                reason = _reason(error)
                await self._halt(GROUPS, reason)
                raise Halted(reason) from error

    async def _lead(self) -> None:
        await set_up(self._url)
        async with connect(self._url) as connection:
            await turn(connection, PROJECTOR_LOCK)
            self._halted = {}
            await note_state(connection, GROUPS, None)
            if await release_newer(connection):
                logger.warning("projector.rebuilding", reason="an earlier version could not read all events")
            while True:
                await self._until_a_group_changes(connection)

    async def _until_a_group_changes(self, connection: AsyncConnection[TupleRow]) -> None:
        """Follow the log with the groups that can, and repair the others; return when a group halts or is repaired."""
        outdated = {GROUP_OF[model.name] for model in await stale(connection)}
        reached = await group_positions(connection)
        sound = [group for group in GROUPS if group not in outdated and group not in self._halted]
        first = max((reached[group] for group in sound), key=lambda each: sum(each.values()), default={})
        for group in sound:
            if 0 < _distance(reached[group], first) <= NEAR:
                await self._follow([group], reached[group], first)
                return
        ready = [group for group in sound if reached[group] == first]
        broken = [group for group in GROUPS if group not in ready and group not in self._halted]
        if not ready and not broken:
            raise Halted("; ".join(dict.fromkeys(self._halted.values())))
        tasks = [asyncio.create_task(self._follow(ready, first))] if ready else []
        tasks += [asyncio.create_task(self._repair(broken, reached, first))] if broken else []
        try:
            patience = LOOK_AGAIN_S if self._halted else None
            if not (await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED))[0]:
                self._halted = {}
        finally:
            for task in tasks:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        for error in found:
            if isinstance(error, Exception):
                raise error

    async def _repair(
        self, groups: Sequence[str], reached: Mapping[str, Mapping[str, int]], first: Mapping[str, int]
    ) -> None:
        """Bring the first of these groups that is behind to `first`, or rebuild those whose tables are outdated."""
        async with connect(self._url) as connection:
            outdated = {model.name: model for model in await stale(connection) if GROUP_OF[model.name] in groups}
            behind = [group for group in groups if group not in {GROUP_OF[name] for name in outdated}]
            if behind:
                await self._follow([behind[0]], reached[behind[0]], first)
                return
            parts = _by_group(outdated)
            for names in [list(outdated), *parts] if len(parts) > 1 else parts:
                part = {GROUP_OF[name] for name in names}
                logger.warning("projector.rebuilding", tables=names)
                try:
                    await rebuild(
                        self._url, self._log, self._files, names, values=self._values, processes=self._processes
                    )
                except InTheWay as error:
                    logger.error("projector.in_the_way", tables=names, reason=str(error), seconds=LOOK_AGAIN_S)
                    if len(part) == 1:
                        await note_waiting(connection, [outdated[name] for name in names], str(error))
                        await note_state(connection, part, str(error))
                except OUTAGES:
                    raise
                except Exception as error:
                    if len(part) == 1:
                        await self._halt(part, _reason(error))
                        return
                else:
                    await note_state(connection, part, None)
                    return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _follow(
        self, groups: Sequence[str], after: Mapping[str, int], until: Mapping[str, int] | None = None
    ) -> None:
        """Fold the log into the tables of these groups, which stand at `after`; return when one of them halts."""
        writers = {group: Writer(GROUPS[group], SCHEMA, self._values) for group in groups}

        def blobs(message: Recorded) -> list[BlobId]:
            return [blob for writer in writers.values() for blob in writer.fold.blobs(message)]

        async with connect(self._url) as connection:
            log = HoldingLog(self._log, await frozen(connection, after[EVENTS]))
        source = batches(log, after, until, blobs)
        async with (
            connect(self._url) as connection,
            WordsAhead(self._values, self._processes - 1) as words,
            aclosing(source),
            aclosing(with_blobs(source, self._files, blobs, words)) as feed,
        ):
            logger.info("projector.following", groups=list(groups), **after)
            async for fetched in feed:
                reached = {**after, **{message.position.stream: message.position.sequence for message in fetched[0]}}
                async with connection.transaction():
                    found = await group_positions(connection, groups, lock=True)
                    if any(found[group] != after for group in groups):
                        raise RuntimeError(f"The tables are at {found}, not at {after}: another program wrote to them.")
                    faults = await _write(connection, writers, fetched)
                    running = [group for group in groups if group not in faults]
                    await note_quarantine(connection, fetched[0])
                    await move(connection, running, reached)
                    await note_state(connection, running, None)
                if faults:
                    for group, reason in faults.items():
                        await self._halt([group], reason)
                    return
                after = reached

    async def _halt(self, groups: Collection[str], reason: str) -> None:
        self._halted |= dict.fromkeys(groups, reason)
        logger.critical("projector.halted", groups=list(groups), reason=reason)
        with suppress(psycopg.Error):
            async with connect(self._url) as connection:
                await note_state(connection, groups, reason)


async def _write(
    connection: AsyncConnection[TupleRow], writers: Mapping[str, Writer], fetched: Fetched
) -> dict[str, str]:
    """Write a batch to the tables of each group; return the groups that cannot go on, and why."""
    faults: dict[str, str] = {}
    for group, writer in writers.items():
        try:
            async with connection.transaction():
                await writer.write(connection, fetched)
        except OUTAGES:
            raise
        except Exception as error:
            faults[group] = _reason(error)
    return faults


def _reason(error: Exception) -> str:
    """One line: what PostgreSQL adds to it may be the contents of a row."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _distance(behind: Mapping[str, int], first: Mapping[str, int]) -> int:
    return sum(first.values()) - sum(behind.values())


def _by_group(names: Iterable[str]) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(GROUP_OF[name], []).append(name)
    return list(found.values())
