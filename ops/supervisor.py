"""Everything on one machine: embedded servers unless configured, a worker for each role, one supervising process."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import psutil
import structlog
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from psycopg.conninfo import conninfo_to_dict

from adapters.jetstream import accounts, streams
from adapters.jetstream.client import Client, NoOutcome, NotSent, Unreachable, rejection
from adapters.jetstream.sessions import Sessions
from adapters.postgres import indexer, reader
from adapters.privacy.masters import replace
from handlers.ports.log import Unavailable
from ops.bus import connect
from ops.roles import EVERY, EXPORT, GUESTS, VIEW, WITHOUT_TABLES, WRITE_INDEX, wanted
from ops.servers.daemon import Daemon, StartFailed, rotate
from ops.servers.embedded import HOST, NATS, EmbeddedNats, EmbeddedPostgres, create_home
from ops.servers.model import MODEL, EmbeddedModel
from ops.settings import OPERATOR, READER, AlreadyRunning, Settings, without_secrets

log = structlog.get_logger(__name__)

READY_WITHIN = 180.0
"""Maximum time for workers to load their models and become ready, in seconds."""

PROVIDER = "embedded"
"""Name of the provider with the embedded model."""

ENDS = 2
"""Number of failed starts after which `up` no longer waits for a worker."""

LOOK_EVERY, LOOK_AT_START_EVERY, TEND_EVERY, TRIM_EVERY = 0.5, 0.2, 1.0, 2.0
FIRST_PAUSE, LONGEST_PAUSE, STEADY_AFTER = 0.5, 30.0, 60.0
"""Seconds between restarts of a process: the pause doubles up to the longest; a steady run resets it."""


@dataclass
class Watched:
    """A process that is restarted when it ends by itself."""

    daemon: Daemon
    start: Callable[[], Awaitable[None]]
    pause: float = FIRST_PAUSE
    started: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    again: float | None = None
    ends: int = 0
    reason: str = ""
    """Reason of its last end or failed start."""

    async def look(self) -> bool:
        """Restart it when it is due. Return whether it was started."""
        now = asyncio.get_running_loop().time()
        if self.daemon.process() is not None:
            return False
        if self.again is None:
            self._put_off(now, self.daemon.last_line())
            log.warning("ended", process=self.daemon.name, again_in_s=self.pause)
        return now >= (self.again or now) and await self.begin()

    async def begin(self) -> bool:
        """Start it, or put it off when that fails. Return whether it was started."""
        self.again, self.started = None, asyncio.get_running_loop().time()
        try:
            await self.start()
        except (OSError, StartFailed) as error:
            log.error("not_started", process=self.daemon.name, reason=str(error))
            self._put_off(self.started, self.daemon.last_line() if isinstance(error, StartFailed) else str(error))
            return False
        log.info("started", process=self.daemon.name)
        return True

    def _put_off(self, now: float, reason: str) -> None:
        self.ends += 1
        self.reason = reason
        self.pause = FIRST_PAUSE if now - self.started > STEADY_AFTER else min(2 * self.pause, LONGEST_PAUSE)
        self.again = now + self.pause


class Supervisor:
    """Runs until it is cancelled; it reports every step of the start to `say`, with `link` one that logs in, once."""

    def __init__(self, settings: Settings, say: Callable[[str], None], *, link: bool = False) -> None:
        self.settings = settings
        self.say = say
        self.link = link
        self.watched: list[Watched] = []
        self.workers: dict[str, Watched] = {}
        """By role."""
        self.missing: dict[str, str] = {}
        """Reason by role of the workers that are not ready; empty when unknown."""
        self.started = False
        self.opened: list[str] = []
        """Folders that every user may pass through since this start."""
        self.logins: dict[str, dict[str, str]] = {}
        """Addresses of the embedded servers, with the login of a role, by role."""
        self.model: EmbeddedModel | None = None

    async def run(self) -> None:
        """Raises: AlreadyRunning, StartFailed."""
        create_home(self.settings.home)
        with claimed(self.settings.home):
            async with AsyncExitStack() as stack:
                trimming = asyncio.create_task(self._trim_logs())
                stack.callback(trimming.cancel)
                await self._servers(stack)
                await stack.enter_async_context(self._workers())
                stack.enter_context(self._recorded())
                client = await stack.enter_async_context(await connect(self._of(OPERATOR)))
                if self.settings.plugin_folder:
                    installing = asyncio.create_task(self._install(client))
                    stack.callback(installing.cancel)
                await self._watch(client)

    async def _servers(self, stack: AsyncExitStack) -> None:
        if not self.settings.nats_url:
            nats = await stack.enter_async_context(self._nats())

            async def start() -> None:
                await nats.start()
                await self._streams(nats)

            self.watched.append(Watched(nats.daemon, start))
            await self._streams(nats)
            for role in (OPERATOR, *EVERY):
                user = role if role in GUESTS else accounts.WORKER
                self.logins.setdefault(role, {})["nats_url"] = nats.url_of(user)
            tending = asyncio.create_task(self._tend(nats))
            stack.callback(tending.cancel)
            self.say(f"NATS       {without_secrets(nats.url)}")
        if not self.settings.postgres_url:
            postgres = await stack.enter_async_context(EmbeddedPostgres(self.settings.home))
            self.watched.append(Watched(postgres.daemon, postgres.start))
            self.opened = [str(folder) for folder in postgres.opened]
            if self.opened:
                self.say(opened(self.opened))
            await self._tables(postgres)
            self.say(f"PostgreSQL {without_secrets(postgres.url)}")
        if self.settings.model:
            self.model = await stack.enter_async_context(EmbeddedModel(self.settings.home))
            self.watched.append(Watched(self.model.daemon, self.model.start))
            self._allow(self.model)
            self.say(f"model      {self.model.url}")

    def _allow(self, model: EmbeddedModel) -> None:
        """Let tenants name this port of the machine as a provider: the model answers only those who have its key."""
        allowed = filter(None, (self.settings.egress_allow, f"{HOST}:{model.port}"))
        self.settings = self.settings.model_copy(update={"egress_allow": ",".join(allowed)})

    def _nats(self) -> EmbeddedNats:
        settings = self.settings
        return EmbeddedNats(
            settings.home,
            program=settings.nats_server,
            log_bytes=settings.log_file_bytes,
            log_files=settings.log_files,
        )

    async def _tables(self, postgres: EmbeddedPostgres) -> None:
        """Make the logins of the roles in PostgreSQL, and the file with the password of the one for people."""
        key = self.settings.vault().derive(reader.POSTGRES)
        views = conninfo_to_dict(await reader.login(postgres.url, key))
        reads = conninfo_to_dict(await reader.login(postgres.url, key, "people"))
        exports = conninfo_to_dict(await reader.login(postgres.url, key, "export"))
        indexes = conninfo_to_dict(await indexer.login(postgres.url, key))
        place = f"{HOST}:{postgres.port}:{postgres.database}"
        replace(self.settings.home / "pgpass", f"{place}:{reads['user']}:{reads['password']}\n")
        users = {READER: reads, VIEW: views, EXPORT: exports} | dict.fromkeys(WRITE_INDEX, indexes)
        for role in {OPERATOR, READER, *EVERY}.difference(WITHOUT_TABLES):
            user = users.get(role)
            url = postgres.url_of(postgres.database, str(user["user"]), str(user["password"])) if user else postgres.url
            self.logins.setdefault(role, {})["postgres_url"] = url

    async def _streams(self, nats_server: EmbeddedNats) -> None:
        """Make missing streams, which the workers' user may not: workers wait while there are none."""
        waiting = streams.Waiting(**self.settings.waiting)
        try:
            async with await Client.connect(nats_server.url_of(accounts.SETUP)) as client:
                await streams.set_up(client.stream, replicas=self.settings.replicas, waiting=waiting)
        except (Unreachable, nats.errors.Error) as error:
            log.error("not_made", what="streams", reason=str(error))

    def _of(self, role: str) -> Settings:
        """The settings with the logins of a role."""
        return self.settings.model_copy(update=self.logins.get(role, {}))

    @asynccontextmanager
    async def _workers(self) -> AsyncIterator[None]:
        if self.settings.archive_url and not self.settings.nats_url:
            self.settings.archive_signature(make=True)
        workers = [Worker(self._of(role), role) for role in wanted(self.settings)]
        try:
            for worker in workers:
                await worker.daemon.stop()
                self.workers[worker.role] = watched = Watched(worker.daemon, worker.start)
                self.watched.append(watched)
                self.missing[worker.role] = ""
                await watched.begin()
            yield
        finally:
            await asyncio.gather(*(worker.daemon.stop() for worker in workers))

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Keep a record of the running processes, for other processes."""
        self._record()
        try:
            yield
        finally:
            with suppress(OSError):  # on a read-only disk it stays
                self.settings.run_file.unlink()

    def _record(self) -> None:
        processes = {watched.daemon.name: watched.daemon.process() for watched in self.watched}
        record = {
            "pid": os.getpid(),
            "nats_url": without_secrets(self._of(OPERATOR).nats_url),
            "postgres_url": without_secrets(self._of(OPERATOR).postgres_url),
            "logins": self.logins,
            "started": self.started,
            "missing": self.missing,
            "opened": self.opened,
            "processes": {name: process.pid for name, process in processes.items() if process},
        }
        try:
            replace(self.settings.run_file, json.dumps(record, indent=2))
        except OSError as error:
            log.error("not_recorded", file=str(self.settings.run_file), reason=str(error))

    async def _trim_logs(self) -> None:
        """Rotate the logs that have grown too large, while their processes run. NATS rotates its own."""
        own = Daemon(self.settings.home, "up")
        while True:
            await asyncio.sleep(TRIM_EVERY)
            logs = [
                daemon.log for daemon in (own, *(watched.daemon for watched in self.watched)) if daemon.name != NATS
            ]
            for log in logs:
                await asyncio.to_thread(rotate, log, self.settings.log_file_bytes, self.settings.log_files)

    async def _tend(self, nats: EmbeddedNats) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY)
            try:
                if await nats.tend():
                    await self._streams(nats)
            except (OSError, psutil.Error, StartFailed) as error:
                log.error("not_tended", server="nats", reason=str(error))

    async def _watch(self, client: Client) -> None:
        """Restart processes that end, and report the end of the start: each worker is ready or has failed."""
        deadline = asyncio.get_running_loop().time() + READY_WITHIN
        while True:
            before = dict(self.missing)
            again = any(await asyncio.gather(*(watched.look() for watched in self.watched)))
            await self._call(client)
            if over := not self.started and self._over(deadline):
                self.started = True
                if self.model:
                    await self._register(client, self.model)
                if address := self.settings.viewer:
                    self.say(f"viewer     {await self._link(client, address)}")
                self.say(f"ready{except_for(self.missing)}")
            if again or over or self.missing != before:
                self._record()
            await asyncio.sleep(LOOK_EVERY if self.started else LOOK_AT_START_EVERY)

    async def _install(self, client: Client) -> None:
        """Install the packages in the operator's folder, once there are workers."""
        from ops.plugin_folder import install_all

        while not self.started:
            await asyncio.sleep(LOOK_AT_START_EVERY)
        try:
            await install_all(self.settings, client, self.say)
        except Exception:
            log.exception("not_installed", what="plugins", folder=self.settings.plugin_folder)

    async def _register(self, client: Client, model: EmbeddedModel) -> None:
        """Register the model as a provider of the settings' tenant. Where that fails, the reason is reported."""
        provider = {"name": PROVIDER, "base_url": model.url, "key": model.key}
        try:
            outcome = await client.send("provider.register", provider)
        except (NoOutcome, NotSent, Unreachable) as error:
            reason = str(error)
        else:
            reason = rejection(outcome) if outcome["status"] == "rejected" else ""
        if reason:
            log.error("not_registered", provider=PROVIDER, reason=reason)
        self.say(f"provider   {PROVIDER}{reason and f': not registered: {reason}'}")

    async def _link(self, client: Client, address: str) -> str:
        """A link that logs in, if one is wanted; else the address."""
        with suppress(Unavailable):
            return await Sessions(client.connection).link(address) if self.link else address
        return address

    async def _call(self, client: Client) -> None:
        """Note the workers that have ended, and those that have become ready."""
        for role, watched in self.workers.items():
            if watched.again is not None:
                self.missing[role] = watched.reason
        called = list(self.missing)
        there = await asyncio.gather(*(self._there(client, role) for role in called))
        for role, is_there in zip(called, there, strict=True):
            if is_there:
                del self.missing[role]
                self.say(f"worker     {role}")

    async def _there(self, client: Client, role: str) -> bool:
        watched = self.workers[role]
        if watched.again is not None:
            return False
        try:
            return await answers(client, role) is not None
        except nats.errors.Error:
            return False

    def _over(self, deadline: float) -> bool:
        """Return whether the start is over: all missing workers have failed too often, or time is up."""
        late = asyncio.get_running_loop().time() > deadline
        for role, reason in self.missing.items():
            if late and not reason:
                self.missing[role] = f"not ready within {READY_WITHIN:.0f} s; {self.workers[role].daemon.last_line()}"
        return late or all(self.workers[role].ends >= ENDS for role in self.missing)


def opened(folders: Sequence[str]) -> str:
    """Sentence on folders that the start has changed."""
    return (
        "As root, Headrace runs PostgreSQL as another user: every user of this machine may now pass through "
        f"{', '.join(folders)}, without listing or reading them (chmod o+x)."
    )


def except_for(missing: Mapping[str, str]) -> str:
    """End of the sentence that reports what is ready: the missing workers with their reasons."""
    reasons = "; ".join(f"{role}: {reason.rstrip('.')}" for role, reason in missing.items())
    return reasons and f", except for {reasons}"


class Worker:
    """The process of a role, started as a user would."""

    def __init__(self, settings: Settings, role: str) -> None:
        self.settings = settings
        self.role = role
        self.daemon = Daemon(settings.home, f"worker-{role}")

    async def start(self) -> None:
        self.daemon.start(command_line("worker", "--role", self.role), env=environment(self.settings))


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ops.cli", *arguments]


def environment(settings: Settings) -> dict[str, str]:
    """Environment that gives a child process these settings and this code."""
    here = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH")) if part)
    return {**os.environ, **settings.variables(), "PYTHONPATH": path}


async def answers(client: Client, role: str, within: float = 1.0, about: bytes = b"") -> dict[str, Any] | None:
    """Return the card of a worker of this role, or what it says about something; None when none answers."""
    try:
        reply = await client.connection.request(f"worker.{role}", about, timeout=within)
    except NoRespondersError:
        await asyncio.sleep(0.05)
        return None
    except NatsTimeout:
        return None
    return dict(json.loads(reply.data))


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Make this process the only supervisor of the home. Raises: AlreadyRunning."""
    daemon = Daemon(home, "up")
    daemon.pid_file.parent.mkdir(parents=True, exist_ok=True)
    with (home / "run" / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Headrace is already running on {home}: `headrace down` stops it.") from None
        daemon.claim()
        try:
            yield
        finally:
            with suppress(OSError):
                daemon.pid_file.unlink()


async def detach(settings: Settings) -> bool:
    """Start a supervisor in the background and wait until its start is over. Return False when one was already running.

    The run file names the roles that are missing. Raises: StartFailed.
    """
    daemon = Daemon(settings.home, "up")
    create_home(settings.home)
    fresh = daemon.process() is None
    if fresh:
        settings.run_file.unlink(missing_ok=True)
        daemon.start(command_line("up"), env=environment(settings))
    deadline = asyncio.get_running_loop().time() + 2 * READY_WITHIN
    while not settings.running().get("started"):
        if daemon.process() is None:
            await daemon.stop()  # it removes its pid file before it prints the reason
            said = daemon.complaint()
            raise StartFailed(said) if said else daemon.failure("ended while it started")
        if asyncio.get_running_loop().time() > deadline:
            raise daemon.failure("was not ready in time")
        await asyncio.sleep(0.05)
    return fresh


async def down(settings: Settings) -> list[str]:
    """Stop the processes of this home, also those that a killed supervisor left. Return their names."""
    home = settings.home
    daemons = [
        Daemon(home, "up"),
        *(Daemon(home, f"worker-{role}") for role in reversed(EVERY)),
        Daemon(home, MODEL),
        Daemon(home, "postgres", signal.SIGINT),
    ]
    stopped = [daemon.name for daemon in daemons if await daemon.stop(within=60)]
    if await EmbeddedNats(home).stop():
        stopped.append(NATS)
    with suppress(OSError):
        settings.run_file.unlink()
    return stopped
