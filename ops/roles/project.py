"""The role `project`: keeps read tables and SQL logins, recovers orphaned work, runs schedules, and erases people."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import psycopg
import structlog

from adapters.jetstream.aggregates import ids
from adapters.jetstream.client import Client, NotSent
from adapters.jetstream.live import NatsLive
from adapters.jetstream.nats_py import server_info
from adapters.jetstream.scrub import JetStreamScrub
from adapters.jetstream.waiting import INTERVAL_S as COUNTING_S
from adapters.jetstream.waiting import Announcer
from adapters.jetstream.workers.consumer import done
from adapters.postgres import tables
from adapters.postgres.months import over
from adapters.postgres.pending import due, only_one, overdue, waiting
from adapters.postgres.projector import Halted, Projector
from adapters.postgres.quotas import PostgresQuotas
from adapters.postgres.scrub import PostgresScrub
from adapters.postgres.sql_roles import PostgresSqlRoles
from domain.access.sql_login import SqlLogin
from domain.log import commit_id
from handlers.access.admit_sql import AdmitSql, Logins
from handlers.access.erase import Erase
from handlers.models.alert import Alert
from handlers.models.grants import GRACE_S
from handlers.models.settle import Settle
from handlers.ports.log import Unavailable
from handlers.ports.sql_roles import NotAllowed
from handlers.work.recover import DEADLINE_S, INTERVAL_S, Recover
from handlers.workflows.schedules import INTERVAL_S as TICKING_S
from handlers.workflows.schedules import Tick
from ops.roles import RoleFailed
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.values import values
from ops.wiring import Wiring

log = structlog.get_logger(__name__)

COMPARED_S = 60.0
"""Interval at which the roles of SQL logins are compared with the log, in seconds."""

RETRIED_S = 2.0
"""Interval at which that is tried again after an error, in seconds."""

ALERTING_S = 60.0
"""Interval at which quotas are looked at for alerts, in seconds."""

FORGETTING_S = 3600.0
"""Interval of looking for months of the audit that are over, in seconds."""

NAMESPACE = "audit months"
"""Namespace of the ids of the commands that erase them."""


async def begin(wiring: Wiring) -> Awaitable[object]:
    url = wiring.settings.postgres_url
    try:
        await tables.set_up(url)
    except psycopg.OperationalError as error:
        raise Unavailable(f"PostgreSQL does not answer: {error}") from error
    projector = Projector(
        url,
        wiring.log,
        wiring.files,
        values(wiring.settings),
        wiring.settings.projector_processes,
    )
    live = NatsLive(wiring.nc)
    recover = Recover(wiring.repository, live, partial(overdue, url, DEADLINE_S), partial(done, wiring.nc))
    embedded = EmbeddedNats(wiring.settings.home).server_name == server_info(wiring.nc).get("server_name")
    nats = JetStreamScrub(wiring.nc, wiring.repository, wiring.keys, ours=embedded)
    postgres = PostgresScrub(url, EmbeddedPostgres(wiring.settings.home).data)
    erase = Erase(wiring.keys, wiring.repository, postgres.uploads, nats.dead_letters, nats.commands, postgres)
    wiring.work("erase", erase)
    roles = PostgresSqlRoles(url, connections=wiring.settings.sql_connections, seconds=wiring.settings.sql_timeout_s)
    admit = AdmitSql(wiring.repository, wiring.vault, roles)
    wiring.work("admit_sql", admit)
    announcer = Announcer(wiring.nc)
    quotas = PostgresQuotas(url, wiring.log.last, grace_s=GRACE_S)
    return asyncio.gather(
        _project(projector),
        _keep(INTERVAL_S, url, recover),
        _keep(INTERVAL_S, url, Settle(wiring.repository, quotas)),
        _keep(ALERTING_S, url, Alert(wiring.repository, quotas)),
        _keep_ticking(Tick(wiring.repository, wiring.files, partial(due, url))),
        _keep_counting(url, announcer),
        _keep_admitting(admit, partial(ids, wiring.nc, SqlLogin), roles),
        _keep_forgetting(wiring),
    )


async def _project(projector: Projector) -> None:
    """Raises: RoleFailed."""
    try:
        await projector.run()
    except Halted as error:
        raise RoleFailed(f"The projector halted: {error}") from error


async def _keep_admitting(admit: AdmitSql, logins: Logins, roles: PostgresSqlRoles) -> None:
    """Keep the roles of SQL logins as the log has them, whatever becomes of the server, and watch their sessions."""
    while True:
        seconds = COMPARED_S
        try:
            await admit.all(logins)
        except (NotAllowed, Unavailable, psycopg.Error) as error:
            log.warning("sql_logins.waiting", reason=str(error))
            seconds = RETRIED_S
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await roles.watch()
        except (NotAllowed, Unavailable, psycopg.Error) as error:
            log.warning("sql_logins.not_watched", reason=str(error))
            await asyncio.sleep(RETRIED_S)


async def _keep_counting(url: str, announcer: Announcer) -> None:
    while True:
        await asyncio.sleep(COUNTING_S)
        try:
            await announcer.announce(await waiting(url))
        except (psycopg.Error, Unavailable) as error:
            log.warning("count.waiting", reason=str(error))


async def _keep_ticking(tick: Tick) -> None:
    """Begin the runs of schedules. Workers may do so at the same time."""
    while True:
        try:
            await tick()
        except (psycopg.Error, Unavailable) as error:
            log.warning("schedules.waiting", reason=str(error))
        await asyncio.sleep(TICKING_S)


async def _keep_forgetting(wiring: Wiring) -> None:
    """Erase the months of the audit that are over for long enough. Workers may do so at the same time."""
    days = wiring.settings.audit_address_days
    while days:
        try:
            for tenant, month, person in await over(wiring.settings.postgres_url, timedelta(days=days)):
                if not await wiring.keys.is_person(tenant, month, person):
                    continue
                id = commit_id(NAMESPACE, f"{tenant}/{month}")
                await Client(wiring.nc, tenant).post("end_user.erase", {"user": month}, id)
                log.info("audit.forgets", tenant=tenant, month=month)
        except (psycopg.Error, NotSent, Unavailable) as error:
            log.warning("forget.waiting", reason=str(error))
        await asyncio.sleep(FORGETTING_S)


async def _keep(seconds: float, url: str, step: Callable[[], Awaitable[object]]) -> None:
    """Repeat a step that one process of all takes at a time."""
    while True:
        await asyncio.sleep(seconds)
        try:
            async with only_one(url) as chosen:
                if chosen:
                    await step()
        except (psycopg.Error, Unavailable) as error:
            log.warning("recover.waiting", step=type(step).__name__, reason=str(error))
