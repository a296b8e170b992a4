"""Exports a tenant to a folder: its events, as stored and readable, its blobs, and its rows of the tables.

Memory does not grow with the tenant. Words of erased people are not in it: neither the log nor the tables have them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import orjson
import psycopg
from psycopg.sql import SQL, Identifier

from adapters.jetstream.bulk import Stored
from adapters.jetstream.codec import Fetched, decode, references
from adapters.jetstream.keys import JetStreamKeys, people
from adapters.jetstream.large_values import fetch, parts
from adapters.jetstream.message import Message
from adapters.jetstream.raw import RawStream
from adapters.postgres import tables
from adapters.postgres.policies import READER as EVERY_ROW
from adapters.privacy.masters import owners
from domain.access.end_user import EndUser
from domain.access.tenant import HOUSE, TENANT, Tenant
from domain.log import EVENTS, Commit, Position
from handlers.files import Files, Kind
from handlers.ports.log import Blobs
from handlers.work.audit import named_blobs
from handlers.work.progress import Progress
from ops.bus import connect
from ops.settings import READER, Settings
from projections.catalog import READ_MODELS

FORMAT = 1
"""Version of the layout of the folder."""

UNFINISHED, MANIFEST, SUMS = "unfinished", "manifest.json", "SHA256SUMS"
STORED, READABLE = LINES = "stored.jsonl", "events.jsonl"

PATIENCE_S = 60.0
"""Maximum wait for the tables to reach the end of the log, in seconds."""

_ROWS = 500
"""Rows that are fetched at a time."""


class NoExport(Exception):
    """The tenant cannot be exported; the message states the reason."""


@dataclass
class Manifest:
    """Contents of an export. `last` is the sequence of EVENTS up to which it goes; `unreadable` has a reason by the
    name of what the log lacks."""

    tenant: str
    made_at: datetime
    version: str
    last: int
    format: int = FORMAT
    commits: int = 0
    quarantined: int = 0
    blobs: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


async def export(settings: Settings, tenant: str, folder: Path, progress: Progress) -> dict[str, Any]:
    """Export a tenant to a new or empty folder, and return the manifest; an export that did not end begins again.

    Raises: NoExport, Unreachable, Unavailable, OSError.
    """
    if not TENANT.fullmatch(tenant):
        raise NoExport(f"{tenant!r} is not a tenant that can be exported (a-z, 0-9, _ and -).")
    located = settings.located("nats").located("postgres", role=READER)
    async with await connect(settings.located("nats")) as client:
        nc = client.connection
        keys = JetStreamKeys(nc, settings.vault())
        await keys.start()
        last = await RawStream(nc, EVENTS).last()
        manifest = Manifest(tenant, datetime.now(UTC), version("headrace"), last)
        with _fresh(folder):
            events = Events(folder, keys, client.blobs, manifest)
            for subject in (f"evt.{HOUSE}.{Tenant.TOPIC}.{tenant}", f"evt.{tenant}.>"):
                async with aclosing(RawStream(nc, EVENTS, subject).read(0, last)) as chunks:
                    async for messages in chunks:
                        await events.write(messages)
                        progress("events", messages[-1].sequence, last)
            progress("events", last, last)
            if not manifest.commits:
                raise NoExport(f"The log has nothing of the tenant {tenant}.")
            await _rows(located.postgres_url, tenant, folder, manifest, progress)
            if await RawStream(nc, EVENTS, f"evt.{tenant}.{EndUser.TOPIC}.*").last() > last:
                raise NoExport("A person was erased meanwhile, and nothing was exported: run it again.")
            _finish(folder, manifest)
    return asdict(manifest)


@contextmanager
def _fresh(folder: Path) -> Iterator[None]:
    """The folder is empty at first, and marked until the end. After an error, nothing is left in it.

    Raises: NoExport, when there is something else in it.
    """
    mark = folder / UNFINISHED
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()) and not mark.exists():
        raise NoExport(f"{folder} is not empty: name a new folder.")
    _empty(folder)
    folder.chmod(0o700)
    mark.touch()
    for part in ("blobs", "rows"):
        (folder / part).mkdir(mode=0o700)
    try:
        yield
    except BaseException:
        _empty(folder)
        raise
    mark.unlink()


def _empty(folder: Path) -> None:
    """Remove what an export made; the mark last, so that an interrupted removal goes on the next time."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == UNFINISHED):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


class Events:
    """Writes `stored.jsonl`, the messages as they are stored, `events.jsonl`, the same readable, and their blobs."""

    def __init__(self, folder: Path, keys: JetStreamKeys, blobs: Blobs, manifest: Manifest) -> None:
        self._folder = folder
        self._keys = keys
        self._blobs = blobs
        self._files = Files(blobs, keys)
        self._manifest = manifest

    async def write(self, messages: list[Message]) -> None:
        """Append messages. Raises: Unavailable, OSError."""
        stored = [Stored(each.subject, "", each.headers, each.body) for each in messages]
        await self._keys.load(people(stored))
        place = 0
        with _appending(self._folder / STORED) as raw, _appending(self._folder / READABLE) as readable:
            for part in parts(stored):
                fetched = await fetch(self._blobs, part)
                for message in messages[place : place + len(part)]:
                    raw.write(message.line())
                    await self._read(message, fetched, readable)
                place += len(part)

    async def _read(self, message: Message, fetched: Fetched, readable: IO[bytes]) -> None:
        at, position = datetime.fromisoformat(message.time), Position(EVENTS, message.sequence)
        recorded = decode(message.subject, message.body, message.headers, position, at, self._keys, fetched)
        if not isinstance(recorded, Commit):
            self._manifest.quarantined += 1
            return
        self._manifest.commits += 1
        readable.write(orjson.dumps(_readable(recorded)) + b"\n")
        tenant, person = recorded.subject.tenant, recorded.metadata.person
        if person and self._keys.get(tenant, person).erased:
            return
        for digest in references(message.body, sealed=False):
            self._write_blob(digest, fetched[tenant, digest])
        for kind, digest in (named for event in recorded.events for named in named_blobs(event)):
            await self._copy_blob(tenant, person, kind, digest)

    async def _copy_blob(self, tenant: str, person: str | None, kind: Kind, digest: str) -> None:
        if self._place(digest).exists():
            return
        try:
            self._write_blob(digest, await self._files.get(tenant, person, kind, digest))
        except KeyError:
            self._manifest.unreadable[f"Blob {digest}"] = "is missing"
        except ValueError:
            self._manifest.unreadable[f"Blob {digest}"] = "was changed"

    def _write_blob(self, digest: str, data: bytes) -> None:
        place = self._place(digest)
        if not place.exists():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            with _appending(place) as file:
                file.write(data)
            _note_sum(self._folder, f"blobs/{digest[:2]}/{digest}", sha256(data).hexdigest())
            self._manifest.blobs += 1

    def _place(self, digest: str) -> Path:
        return self._folder / "blobs" / digest[:2] / digest


def _readable(commit: Commit) -> dict[str, Any]:
    """A commit with its events in their newest versions, and with all words that can be read."""
    own = ("originator_id", "originator_version")
    return {
        "sequence": commit.position.sequence,
        "at": commit.at,
        "noun": commit.subject.noun,
        "id": commit.subject.id,
        "metadata": asdict(commit.metadata),
        "events": [
            {
                "type": event.TOPIC,
                "version": event.originator_version,
                "state": {name: value for name, value in vars(event).items() if name not in own},
            }
            for event in commit.events
        ],
    }


async def _rows(url: str, tenant: str, folder: Path, manifest: Manifest, progress: Progress) -> None:
    """Write the rows of the tenant, all as of one moment that is not before `manifest.last`.

    Raises: NoExport, when the tables do not get there.
    """
    try:
        await tables.wait_for(url, Position(EVENTS, manifest.last), PATIENCE_S)
    except TimeoutError as error:
        raise NoExport(
            f"The tables do not reach the end of the log within {PATIENCE_S:.0f} s: start a worker of the role project."
        ) from error
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        await connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(EVERY_ROW)))
        for number, model in enumerate(READ_MODELS):
            query = SQL("SELECT to_jsonb(found)::text FROM {} found WHERE tenant_id = %s ORDER BY {}").format(
                tables.name(model, tables.SCHEMA), Identifier(model.key)
            )
            count = 0
            with _appending(folder / "rows" / f"{model.name}.jsonl") as file:
                async with connection.cursor("rows") as cursor:
                    await cursor.execute(query, (tenant,))
                    while some := await cursor.fetchmany(_ROWS):
                        file.writelines(f"{row}\n".encode() for (row,) in some)
                        count += len(some)
            manifest.rows[model.name] = count
            progress("tables", number + 1, len(READ_MODELS))


def _finish(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, and the sums of all files but the blobs, which have theirs."""
    with _appending(folder / MANIFEST) as file:
        file.write(orjson.dumps(asdict(manifest), option=orjson.OPT_INDENT_2) + b"\n")
    for name in (*LINES, *(f"rows/{table}.jsonl" for table in manifest.rows), MANIFEST):
        with open(folder / name, "rb") as file:
            _note_sum(folder, name, file_digest(file, "sha256").hexdigest())


def _note_sum(folder: Path, name: str, sum: str) -> None:
    """Note the sum of a file as `sha256sum --check` reads it."""
    with _appending(folder / SUMS) as sums:
        sums.write(f"{sum}  {name}\n".encode())


@contextmanager
def _appending(path: Path) -> Iterator[IO[bytes]]:
    """The file, for its owner alone."""
    with open(path, "ab", opener=owners) as file:
        yield file
