"""The addresses that tenants may call, by the settings of an installation."""

from __future__ import annotations

import os
from ipaddress import ip_address
from time import monotonic
from urllib.parse import urlsplit

from psycopg import OperationalError
from psycopg.conninfo import conninfo_to_dict

from adapters.egress.addresses import allowances
from adapters.egress.client import Egress
from adapters.postgres.tenants import tenants
from ops.settings import Settings

DEFAULT_PORTS = {"http": 80, "https": 443, "nats": 4222, "tls": 4222, "ws": 80, "wss": 443}

NATS_PORTS = (4222, 6222, 8222)
"""Usual ports of NATS: for clients, other servers and monitoring."""

OBJECT_STORES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
"""Variables with the address of the archive's object store."""

ONLY = "default"
"""The tenant that may use the machine's model servers when there is no other."""

KNOWN_S = 30.0
"""Age up to which the list of tenants is reused, in seconds."""


def egress(settings: Settings) -> Egress:
    return Egress(allowances(settings.egress_allow), lambda: own_servers(settings), Alone(settings))


def tool_egress(settings: Settings) -> Egress:
    """For the APIs of toolsets: no model server of this machine without a setting."""
    return Egress(allowances(settings.egress_allow), lambda: own_servers(settings))


def file_egress(settings: Settings) -> Egress:
    """For addresses that end users choose: what tenants may call is not for them."""
    return Egress(allowances(settings.file_egress_allow), lambda: own_servers(settings))


def own_servers(settings: Settings) -> list[tuple[str, int]]:
    """Host and port of the servers of Headrace, which no tenant may call."""
    urls = [
        *settings.nats_url.split(","),
        *settings.opensearch_url.split(","),
        settings.otlp_endpoint,
        f"http://{settings.view_address}",
        settings.viewer,
    ]
    urls += [os.environ.get(name, "") for name in OBJECT_STORES]
    return [*filter(None, map(_server, urls)), *_neighbours(settings.nats_url), *_postgres(settings.postgres_url)]


def _server(url: str) -> tuple[str, int] | None:
    parts = urlsplit(url.strip())
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    return (parts.hostname, port) if parts.hostname and port else None


def _neighbours(nats_url: str) -> list[tuple[str, int]]:
    """The other ports of the servers of NATS."""
    hosts = [found[0] for found in map(_server, nats_url.split(",")) if found]
    return [(host, port) for host in hosts for port in NATS_PORTS]


def _postgres(url: str) -> list[tuple[str, int]]:
    if not url:
        return []
    named = conninfo_to_dict(url)
    hosts = str(named.get("hostaddr") or named.get("host") or "localhost").split(",")
    ports = str(named.get("port") or 5432).split(",")
    return [
        (host, int(port or 5432))
        for host, port in zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False)
        if host and not host.startswith("/")
    ]


class Alone:
    """Tells whether a tenant is the only one of an installation that is on one machine."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.postgres_url
        servers = [_server(url) for url in settings.nats_url.split(",")]
        self._one_machine = all(found and _is_loopback(found[0]) for found in servers)
        self._known: tuple[float, bool] = (0.0, False)

    async def __call__(self, tenant: str) -> bool:
        if tenant != ONLY or not self._one_machine:
            return False
        if monotonic() > self._known[0]:
            try:
                self._known = monotonic() + KNOWN_S, set(await tenants(self._url)) <= {ONLY}
            except OperationalError:
                return self._known[1]
        return self._known[1]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
