"""Serves the viewer."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import structlog
import uvicorn

from adapters.jetstream.keys import JetStreamKeys
from adapters.postgres import tables
from adapters.postgres.reader import POSTGRES, login
from adapters.privacy.masters import replace, secret
from adapters.telemetry.metrics.page import Metrics
from adapters.telemetry.otlp.endpoint import target
from adapters.web.connections import BoundedProtocol
from adapters.web.viewer.access import Access, Refused
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.server import create_app
from handlers.ports.log import Unavailable
from ops.blob_choice import open_blobs
from ops.settings import InvalidSetting, Settings
from ops.values import values
from ops.wiring import Wiring

log = structlog.get_logger(__name__)

NEXT_PORTS = 20
"""Ports after the default one that are tried when it is taken; an address that was set is not departed from."""


async def begin(wiring: Wiring) -> Awaitable[object]:
    settings, vault = wiring.settings, wiring.settings.vault()
    given = settings.view_token.get_secret_value() if settings.view_token else None
    kept = "" if given else secret(settings.home / "view.token")
    host, port = address(settings.view_address)
    try:
        key = vault.derive("viewer cookies")
        access = Access.of(host, given, kept, key, frozenset(settings.all_view_hosts))
    except Refused as error:
        advice = "Set HEADRACE_VIEW_TOKEN, or HEADRACE_VIEW_ADDRESS=127.0.0.1:8400"
        raise InvalidSetting(f"{error} {advice}.") from None
    try:
        reader = await login(settings.postgres_url, vault.derive(POSTGRES))
        if reader != settings.postgres_url:  # with a reader's login, the role `project` makes the tables
            await tables.set_up(settings.postgres_url)
    except psycopg.OperationalError as error:
        raise Unavailable(f"PostgreSQL does not answer: {error}") from error
    taken = bind(settings, host, port)
    wiring.open.callback(taken.close)
    shown = url(host, taken.getsockname()[1])
    wiring.open.enter_context(noted(settings.home, shown))
    remember(settings.home, taken.getsockname()[1])
    log.info("viewer", address=shown)
    keys = JetStreamKeys(wiring.nc, vault)
    await keys.start()
    blobs = open_blobs(settings, wiring.nc)
    backend = Backend(wiring.nc, reader, settings.tenant, keys, values(settings).prices, blobs)
    metrics = Metrics(wiring.nc, backend.reading, target(settings.otlp_endpoint) if settings.otlp_endpoint else "")
    logs = settings.home / "log"
    app = create_app(backend, access, metrics, audit_reads=settings.audit_reads, logs=logs if logs.is_dir() else None)
    config = uvicorn.Config(
        app,
        log_config=None,
        http=BoundedProtocol,
        ws="none",
        access_log=False,  # its lines would hold one-time codes
        server_header=False,
        date_header=False,
        lifespan="on",
        timeout_graceful_shutdown=3,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
    )
    return asyncio.gather(_Server(config).serve(sockets=[taken]), metrics.follow(), backend.reports.run())


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The worker hears them, and cancels what serves."""
        yield


def address(text: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def bind(settings: Settings, host: str, port: int) -> socket.socket:
    """A socket that listens there; where the default port is taken, at the one this home had last, or one near it.

    Raises: InvalidSetting.
    """
    chosen = settings.view_address != Settings.model_fields["view_address"].default
    ports = [port] if chosen else [*last_port(settings.home), *range(port, port + NEXT_PORTS + 1), 0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in ports:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, attempt))
            listening.listen(512)
        except OSError as error:
            listening.close()
            reason = error.strerror or str(error)
        else:
            listening.setblocking(False)
            if attempt != ports[0]:
                log.warning("viewer.moved", reason=f"port {ports[0]} is taken", port=listening.getsockname()[1])
            return listening
    raise InvalidSetting(
        f"The viewer cannot listen on {settings.view_address} ({reason}): end what does, or set another "
        "HEADRACE_VIEW_ADDRESS; with port 0 a free one is taken."
    )


def url(host: str, port: int) -> str:
    """An address to open; one that stands for all of a machine's is opened as this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"


def last_port(home: Path) -> list[int]:
    """The port that the viewer of this home had last, if it had any."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return [int(json.loads((home / "ports.json").read_text("utf-8"))["view"])]
    return []


@contextmanager
def noted(home: Path, address: str) -> Iterator[None]:
    """The address is written down for `headrace up` and `headrace doctor` as long as it leads somewhere."""
    file = home / "run" / "viewer.url"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace(file, address)
    try:
        yield
    finally:
        with suppress(OSError):
            if file.read_text("utf-8") == address:
                file.unlink()


def remember(home: Path, port: int) -> None:
    file = home / "ports.json"
    ports = {}
    with suppress(OSError, ValueError):
        ports = json.loads(file.read_text("utf-8"))
    if ports.get("view") != port:
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(ports | {"view": port}), "utf-8")
        partial.replace(file)
