"""Diagnosis: servers, streams, workers, tables, archive and export, each with advice when something is wrong."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import psycopg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from adapters import pinned
from adapters.archive.archiver import status
from adapters.archive.store import Archive, Broken
from adapters.jetstream.client import Client, Unreachable
from adapters.jetstream.outages import outages
from adapters.jetstream.streams import BLOBS, COMMANDS, CONSUMERS, DEAD, STREAMS
from adapters.model_files import find_model
from adapters.postgres import policies, tables
from adapters.postgres.policies import READER
from adapters.postgres.rights import excess
from adapters.telemetry.otlp.checkpoint import Checkpoints
from adapters.telemetry.otlp.ended import COUNTED, behind
from adapters.telemetry.otlp.endpoint import target
from domain.log import EVENTS, OUTCOMES
from handlers.models.rests import PREFIX
from handlers.ports.log import Unavailable
from ops import machine
from ops.bus import connect
from ops.index_choice import REBUILD, access, outdated
from ops.install import FOR_A_GPU, FOR_CUDA, has_nvidia_gpu
from ops.roles import ABOUT_CODE, wanted
from ops.servers.daemon import StartFailed
from ops.servers.embedded import check_postgres, nats_server, reserve
from ops.servers.model import MODEL, EmbeddedModel
from ops.settings import NotRunning, Settings
from ops.supervisor import answers
from ops.terminal import one_line
from projections.catalog import READ_MODELS

POSTGRES_TESTED = 18
LAG = 5000
"""Normal lag of the tables, in messages."""

SHOWN = 5
"""Maximum number of providers that are named."""

NEARLY = 10 / 9
"""The command queue is reported when its length times this reaches its limit: at 90 %."""

ARCHIVE_LATE, ARCHIVE_LATE_S = 3.0, 60.0
"""Tolerated lag of the archive, in intervals and in seconds; the larger counts."""

EXPORT_LATE_S = 60.0
"""Tolerated age of the oldest span that waits for the collector, in seconds."""

PATIENCE_S = 5.0
"""Timeout of the query for spans that wait for the collector, in seconds."""

CODE_S = 30.0
"""Timeout of the question what runs code, in seconds: a worker tries it before it says so the first time."""

CONTAINED_BY = {
    "bubblewrap": "files and texts are handled in namespaces of their own",
    "limits": "files and texts are handled under limits and a filter of system calls, not in namespaces",
}
"""Findings by the kind of sandbox."""

START = "start everything with `headrace up`"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check: its subject, good or not, the finding, and advice when it is not."""

    what: str
    good: bool
    found: str
    advice: str = ""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Run all checks, in the order of their dependencies."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("headrace", True, f"{version('headrace')} on Python {python}, home {settings.home}")
    for finding in _programs(settings):
        yield finding
    if not settings.nats_url and (store := settings.home / "nats").is_dir():
        yield _disk(store)
    last: dict[str, int] = {}
    try:
        async with await connect(settings.located("nats")) as client:
            server = client.connection.connected_server_version
            yield Finding("NATS", True, f"{server.major}.{server.minor}.{server.patch} answers")
            async for finding in _log(client, last):
                yield finding
            async for finding in _workers(settings, client):
                yield finding
            if settings.viewer:
                yield Finding("viewer", True, settings.viewer)
            if MODEL in settings.running().get("processes", {}):
                yield await _model(settings)
            yield await _providers(client)
            yield await _blobs(settings, client)
            yield await _archive(settings, client)
            yield await _export(settings, client)
    except (NotRunning, Unreachable) as error:
        yield Finding("NATS", False, str(error), f"{START}, or check HEADRACE_NATS_URL")
    if settings.opensearch_url:
        yield await _opensearch(settings)
    try:
        async for finding in _postgres(settings.located("postgres").postgres_url, last):
            yield finding
        yield await _index(settings.located("postgres"))
    except NotRunning as error:
        yield Finding("PostgreSQL", False, str(error), f"{START}, or check HEADRACE_POSTGRES_URL")
    except psycopg.Error as error:
        advice = f"{START}, or check HEADRACE_POSTGRES_URL"
        yield Finding("PostgreSQL", False, one_line(error), advice)


def _programs(settings: Settings) -> Iterator[Finding]:
    """Check the programs and the model of others against their pins."""
    if settings.nats_server and not settings.nats_url:
        yield Finding("program nats-server", True, f"{settings.nats_server}, named by you: its digest is not checked")
    elif not settings.nats_url:
        yield _program("nats-server", nats_server)
    if not settings.postgres_url:
        yield _program("postgres", check_postgres)
    if pinned.SHIPPED_MODEL in settings.all_embedding_models:
        yield _program(f"{pinned.SHIPPED_MODEL}/model.safetensors", lambda: find_model(pinned.SHIPPED_MODEL))
    yield _torch()


async def _model(settings: Settings) -> Finding:
    """Check the embedded model, which `headrace up` has started."""
    server = EmbeddedModel(settings.home)
    if await server.answers():
        return Finding("embedded model", True, f"{server.name} answers at {server.url}")
    advice = f"`headrace up` restarts it when it ends: see {server.daemon.log}"
    return Finding("embedded model", False, f"{server.name} does not answer at {server.url}", advice)


def _program(name: str, check: Callable[[], object]) -> Finding:
    pin = pinned.PINS[name]
    what = f"program {name}" if "/" not in name else f"model {name.partition('/')[0]}"
    try:
        check()
    except (StartFailed, pinned.Altered, OSError) as error:
        return Finding(what, False, str(error), "start nothing until you know why it differs")
    if not pin.digest:
        return Finding(what, True, f"not pinned: no digest of {pin.version} is known for {pinned.PLATFORM}")
    return Finding(what, True, f"{pin.version}, SHA-256 {pin.digest[:12]}… as pinned")


def _torch() -> Finding:
    """The build of torch; one that leaves a GPU unused is no error, but named."""
    build, there = version("torch"), {str(it.name) for it in distributions()}
    if "+cpu" not in build and there.issuperset(FOR_A_GPU):
        return Finding("torch", True, f"{build}, for processors and NVIDIA GPUs")
    unused = f", and this machine has an NVIDIA GPU. {FOR_CUDA}" if has_nvidia_gpu() else ""
    return Finding("torch", True, f"{build}, for processors{unused}")


async def _log(client: Client, last: dict[str, int]) -> AsyncIterator[Finding]:
    """Check streams and durable consumers; store the last sequence of each stream in `last`."""
    for name in [*(str(stream.name) for stream in STREAMS), f"OBJ_{BLOBS}"]:
        try:
            info = await client.stream.stream_info(name)
        except (NotFoundError, NatsTimeout, NoRespondersError):
            yield Finding(f"stream {name}", False, "is missing", f"{START}: it makes what is missing")
            continue
        last[name] = info.state.last_seq
        yield _stream(name, info)
    for name, (stream, _) in CONSUMERS.items():
        try:
            consumer = await client.stream.consumer_info(stream, name)
        except (NotFoundError, NatsTimeout, NoRespondersError):
            yield Finding(f"queue {name}", False, "is missing", f"{START}: it makes what is missing")
            continue
        waiting, at_work = consumer.num_pending or 0, consumer.num_ack_pending or 0
        again = f", {consumer.num_redelivered} of them redelivered" if consumer.num_redelivered else ""
        yield Finding(f"queue {name}", True, f"{waiting} waiting, {at_work} in flight or waiting for their turn{again}")


def _stream(name: str, info: StreamInfo) -> Finding:
    state = info.state
    found = f"{state.messages} messages, {state.bytes / 2**20:.1f} MB"
    if name in (EVENTS, OUTCOMES) and (gone := state.last_seq - state.messages):
        advice = "stop everything and restore: docs/archive.md"
        return Finding(f"stream {name}", False, f"{found}; {gone} are lost", advice)
    if name == DEAD and state.messages:
        found = f"{found} that could not be handled"
        return Finding(f"stream {name}", False, found, "see `headrace dead list`")
    if name == COMMANDS and 0 < (info.config.max_msgs or 0) <= NEARLY * state.messages:
        found = f"{found} of at most {info.config.max_msgs}"
        return Finding(f"stream {name}", False, found, "further commands are refused: start workers with role commands")
    return Finding(f"stream {name}", True, found)


def _disk(home: Path) -> Finding:
    """Check the disk of the embedded NATS."""
    disk = shutil.disk_usage(home)
    if fault := machine.unwritable(home):
        return Finding("disk", False, f"{home} is not writable", fault)
    good = disk.free > reserve(disk.total)
    advice = "" if good else "free some disk space: NATS keeps a reserve and refuses writes until then"
    return Finding("disk", good, f"{disk.free / 2**30:.1f} GB free of {disk.total / 2**30:.1f} GB", advice)


async def _workers(settings: Settings, client: Client) -> AsyncIterator[Finding]:
    missing = settings.running().get("missing", {})
    for role in wanted(settings):
        card = await answers(client, role)
        if card is None and role in missing:
            reason = missing[role] or "it is starting"
            yield Finding(f"worker {role}", False, f"none answers: {reason}", _again(settings, f"worker-{role}"))
        elif card is None:
            advice = f"start one with `headrace worker --role {role}`; if it ends by itself, see its log"
            yield Finding(f"worker {role}", False, "none answers", advice)
        else:
            yield Finding(f"worker {role}", True, f"process {card['pid']}, version {card['version']}")
            if contained := card.get("sandbox"):
                yield _sandbox(role, contained)
            if role == "answer":
                yield await _code(client, contained or {})


def _sandbox(role: str, contained: dict[str, Any]) -> Finding:
    """Check the containment of a worker's processes that handle files and texts."""
    found = CONTAINED_BY.get(contained["kind"], contained["kind"])
    if contained["open"]:
        found = f"{found}; but their processes can {', '.join(contained['open'])}"
        advice = "install bubblewrap, or use a kernel with Landlock: docs/sandbox.md"
        return Finding(f"sandbox {role}", False, found, advice)
    advice = f"{contained['because']}: docs/sandbox.md" if contained["because"] else ""
    return Finding(f"sandbox {role}", True, found, advice)


async def _code(client: Client, contained: dict[str, Any]) -> Finding:
    """Check what runs code of strangers, which a worker finds out by running some."""
    found = await answers(client, "answer", CODE_S, ABOUT_CODE)
    if found is None:
        return Finding("code", False, f"no worker has said within {CODE_S:.0f} s what runs it", "ask again")
    by = "; ".join(f"{language} by {each['adapter']}" for language, each in found.items() if "adapter" in each)
    if missing := [each["because"] for each in found.values() if "because" in each]:
        return Finding("code", False, f"{by or 'nothing runs it'}; {' '.join(missing)}", "see docs/code.md")
    return Finding("code", True, by, f"{contained['because']}: docs/sandbox.md" if contained.get("because") else "")


def _again(settings: Settings, process: str) -> str:
    """Advice about a process that `headrace up` keeps restarting."""
    return f"`headrace up` keeps restarting it: fix this cause; details in {settings.home / 'log' / process}.log"


async def _providers(client: Client) -> Finding:
    """Check for providers that do not answer."""
    try:
        every = await outages(client.connection)
    except (NotFoundError, NatsTimeout, NoRespondersError):
        return Finding("providers", False, "the bucket `outages` is missing", f"{START}: it makes what is missing")
    found = {of: outage for of, outage in every.items() if not of[1].startswith(PREFIX)}
    if not found:
        return Finding("providers", True, "none is cut off")
    said = "; ".join(f"tenant {tenant}: {outage.reason}" for (tenant, _), outage in list(found.items())[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return Finding("providers", False, f"{len(found)} cut off: {said}{more}", "check these servers: docs/egress.md")


async def _blobs(settings: Settings, client: Client) -> Finding:
    """Check that the places of blobs answer."""
    old = f", and those in {settings.blobs_old_url} until they are moved" if settings.blobs_old_url else ""
    try:
        await client.blobs.size(settings.tenant, "0" * 64)
    except Unavailable as error:
        return Finding("blobs", False, str(error), "check HEADRACE_BLOBS_URL: docs/blobs.md")
    advice = "run `headrace blobs move`: docs/blobs.md" if old else ""
    return Finding("blobs", True, f"in {settings.blobs_url or 'JetStream'}{old}", advice)


async def _archive(settings: Settings, client: Client) -> Finding:
    """Check the lag of the archive behind the log."""
    if not settings.archive_url:
        return Finding("archive", True, "not configured", "set HEADRACE_ARCHIVE_URL: docs/archive.md")
    try:
        archive = Archive.at(settings.archive_url, settings.archive_segment_bytes)
        behind = await status(client.connection, archive, client.blobs)
    except (Unavailable, Broken) as error:
        return Finding("archive", False, str(error), "to repair it, see docs/archive.md")
    if reset := [stream.stream for stream in behind if stream.reset]:
        advice = "stop everything and restore: docs/archive.md"
        return Finding("archive", False, f"the log ends before its archive: {', '.join(reset)}", advice)
    waiting, age = sum(stream.waiting for stream in behind), max(stream.age_s for stream in behind)
    late = age > max(ARCHIVE_LATE * settings.archive_every_s, ARCHIVE_LATE_S)
    found = f"{waiting} messages and blobs pending, the oldest for {age:.0f} s" if waiting else "up to date"
    advice = "is a worker with role archive running? see its log" if late else ""
    return Finding("archive", not late, found, advice)


async def _export(settings: Settings, client: Client) -> Finding:
    """Check the lag of the collector behind the tables."""
    if not settings.otlp_endpoint:
        return Finding("export", True, "not configured", "set HEADRACE_OTLP_ENDPOINT: docs/tracing-export.md")
    try:
        checkpoint = await Checkpoints(client.connection).get(target(settings.otlp_endpoint))
        url = settings.located("postgres").postgres_url
        async with asyncio.timeout(PATIENCE_S), tables.connect(url) as connection:
            waiting = await behind(connection, checkpoint.place)
    except (NotRunning, Unavailable, TimeoutError, psycopg.Error) as error:
        return Finding("export", False, one_line(error), "its state is unknown until the servers answer")
    age = (datetime.now(UTC) - waiting.since).total_seconds() if waiting.since else 0.0
    found = f"{checkpoint.sent} spans sent to {checkpoint.target}"
    if waiting.rows:
        more = " or more" if waiting.rows == COUNTED else ""
        found = f"{found}, {waiting.rows}{more} pending, the oldest for {age:.0f} s"
    if checkpoint.set_aside:
        found = f"{found}; {checkpoint.set_aside} were refused"
    late = age > EXPORT_LATE_S
    advice = "is the collector up and a worker with role export running? see its log" if late else ""
    return Finding("export", not late, found, advice)


async def _opensearch(settings: Settings) -> Finding:
    from adapters.index.opensearch.health import health

    try:
        found = await health(access(settings))
    except Unavailable as error:
        return Finding("OpenSearch", False, one_line(error), "work waits for it: check HEADRACE_OPENSEARCH_URL")
    summary = f"{found.version} answers, {found.nodes} nodes, {found.status}"
    if not found.knn:
        return Finding("OpenSearch", False, summary, "it cannot search vectors: install the k-NN plugin on every node")
    if found.status == "red":
        advice = "work waits: bring the lost nodes back, or, if they are gone for good, run `headrace index rebuild`"
        return Finding("OpenSearch", False, f"{summary}: {found.unassigned} shards have no copy", advice)
    return Finding("OpenSearch", True, summary)


async def _index(settings: Settings) -> Finding:
    """Check that the words of the index are those of this version."""
    try:
        datasets = await outdated(settings)
    except Unavailable as error:
        return Finding("index", False, one_line(error), "searches wait for it")
    found = f"{datasets} datasets are searched with words of an earlier version"
    return Finding("index", False, found, REBUILD) if datasets else Finding("index", True, "up to date")


async def _postgres(url: str, last: dict[str, int]) -> AsyncIterator[Finding]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as connection:
        number = connection.info.server_version
        older = number // 10000 < POSTGRES_TESTED
        advice = f"Headrace is tested on PostgreSQL {POSTGRES_TESTED}" if older else ""
        yield Finding("PostgreSQL", not older, f"{number // 10000}.{number % 10000} answers", advice)
        cursor = await connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        extension = await cursor.fetchone()
        yield (
            Finding("pgvector", True, str(extension[0]))
            if extension
            else Finding("pgvector", False, "is not installed in this database", "run CREATE EXTENSION vector there")
        )
        cursor = await connection.execute("SELECT to_regclass('headrace_projection.tables') IS NOT NULL")
        if await cursor.fetchone() != (True,):
            yield Finding("tables", False, "are missing", f"{START}: it makes what is missing")
            return
        yield await _readers(connection)
        async for finding in _rows(connection):
            yield finding
        yield await _sql_logins(connection)
        yield await _plugins(connection)
        if waiting := await tables.waiting(connection):
            reason = " ".join(dict.fromkeys(waiting.values()))
            advice = "their groups are not updated until then; a worker with role project continues by itself"
            yield Finding("tables", False, f"{' '.join(waiting)}: {reason}", advice)
        elif outdated := [model.name for model in await tables.stale(connection)]:
            names = " ".join(outdated)
            yield Finding("tables", False, f"{names}: other version", f"run `headrace rebuild {names}`")
        else:
            yield Finding("tables", True, "up to date")
        if count := await tables.in_quarantine(connection):
            advice = "see `headrace quarantine list`: their aggregates are frozen, everything else goes on"
            yield Finding("quarantine", False, f"{count} messages of the log cannot be read", advice)
        for group, reason in (await tables.halted(connection)).items():
            advice = "fix the reason; the worker with role project tries again by itself"
            yield Finding(f"{group} tables", False, f"halted: {reason}", advice)
        for group, reached in (await tables.group_positions(connection)).items():
            for stream, sequence in reached.items():
                if stream in last:
                    yield _lag(stream, group, max(0, last[stream] - sequence))


async def _readers(connection: AsyncConnection[TupleRow]) -> Finding:
    """Check that logins which read can do nothing else. Only a superuser can revoke functions of PostgreSQL."""
    if not (found := await excess(connection, READER)):
        return Finding("readers", True, "can read, and run no function that does more")
    advice = "run `headrace setup` once with a superuser's HEADRACE_POSTGRES_URL: docs/security.md"
    return Finding(
        "readers", True, f"can run {len(found)} functions that do more than read: {', '.join(found)}", advice
    )


async def _sql_logins(connection: AsyncConnection[TupleRow]) -> Finding:
    """Check that PostgreSQL has the SQL logins of the log."""
    try:
        cursor = await connection.execute(_SQL_LOGINS)
    except psycopg.errors.UndefinedTable:
        return Finding("SQL logins", True, "none")
    except psycopg.errors.InsufficientPrivilege:
        return Finding("SQL logins", True, "not checked: the user of this check may not read which there are")
    [(active, lacking)] = await cursor.fetchall()
    if not lacking:
        return Finding("SQL logins", True, f"{active} active")
    advice = "a worker with role project makes them; if it may not, its log says what it needs: docs/access.md"
    return Finding("SQL logins", False, f"{lacking} of {active} have no role in PostgreSQL", advice)


async def _plugins(connection: AsyncConnection[TupleRow]) -> Finding:
    """Check that no plugin is suspended."""
    try:
        cursor = await connection.execute(_PLUGINS)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        return Finding("plugins", True, "none")
    [(enabled, suspended)] = await cursor.fetchall()
    if not suspended:
        return Finding("plugins", True, f"{enabled} enabled" if enabled else "none")
    named = "; ".join(suspended[:SHOWN])
    advice = "see `headrace plugin logs NAME`, and send plugin.enable when it is repaired: docs/plugins.md"
    return Finding("plugins", False, f"{len(suspended)} suspended: {named}", advice)


_PLUGINS = """
SELECT count(*) FILTER (WHERE status = 'enabled'), coalesce(array_agg(format('%s of %s: %s', id, tenant_id, reason)
    ORDER BY updated_at DESC) FILTER (WHERE status = 'suspended'), '{}')
FROM headrace.plugin_uses
"""

_SQL_LOGINS = """
SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (
    SELECT FROM headrace_access.logins JOIN pg_roles ON rolname = logins.role
    WHERE logins.role = sql_logins.role AND rolcanlogin))
FROM headrace.sql_logins WHERE status = 'active'
"""


async def _rows(connection: AsyncConnection[TupleRow]) -> AsyncIterator[Finding]:
    """Check that each login of a tenant sees the rows of that tenant alone."""
    if absent := set(policies.ROLES).difference(await policies.existing(connection)):
        advice = "SQL logins of tenants need them: run the script of `headrace postgres roles` as a superuser"
        yield Finding("rows", True, f"the roles {', '.join(sorted(absent))} are missing", advice)
    if found := await policies.crossings(connection, [model.name for model in READ_MODELS]):
        advice = "run `headrace setup` for policies of tables; take other rights back: docs/access.md"
        yield Finding("rows", False, "; ".join(found), advice)
    else:
        yield Finding("rows", True, "each tenant sees its own, in every table")
    if roles := await policies.blind(connection):
        advice = "GRANT headrace_reader TO them, or make policies for them: docs/access.md"
        yield Finding("rows", True, f"{', '.join(roles)} may read tables, and see no rows", advice)


def _lag(stream: str, group: str, behind: int) -> Finding:
    advice = "is a worker with role project running? see its log" if behind > LAG else ""
    return Finding(f"{group} tables of {stream}", behind <= LAG, f"{behind} messages behind the log", advice)
