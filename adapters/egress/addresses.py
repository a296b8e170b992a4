"""Rules for the addresses that may be called: public ones, and what the operator allows."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

SETTING = "HEADRACE_EGRESS_ALLOW"

LOCAL_MODELS = (8000, 8080, 11434)
"""Ports of model servers on this machine that its one tenant may call without a setting."""

IP = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

TUNNEL = "an address within a tunnel"

_NEVER = {
    "an unspecified address": ("0.0.0.0/8", "::/128"),
    "a link-local address": ("169.254.0.0/16", "fe80::/10"),
    "a metadata address": (
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:42::42/128",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
    ),
    "a multicast address": ("224.0.0.0/4", "ff00::/8"),
    "a reserved address": ("240.0.0.0/4",),
    TUNNEL: ("2001::/32", "2002::/16", "64:ff9b:1::/48", "::ffff:0:0:0/96"),
}
_NETWORKS = [(ip_network(network), kind) for kind, networks in _NEVER.items() for network in networks]

_COMPATIBLE = ip_network("::/96")
_NAT64 = ip_network("64:ff9b::/96")
_UNICAST = ip_network("2000::/3")
_NOT_PUBLIC = [ip_network(network) for network in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")]
"""Special networks that some versions of Python take for public ones."""

_ENTRY = re.compile(
    r"\A(?:\[([0-9a-fA-F:.]++)\]|([0-9a-fA-F:.]++/\d{1,3})|([^\s:/\[\]]++))(?::(\d{1,5})(?:-(\d{1,5}))?)?"
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """A host or a network that may be called although it is not public, on these ports; None for all of them."""

    host: str
    network: Network | None
    ports: range | None

    @classmethod
    def parse(cls, entry: str) -> Allowance:
        """From `host`, `address` or `network`, with `:port` or `:first-last`. Raises: ValueError."""
        found = _ENTRY.fullmatch(entry)
        if not found:
            raise ValueError(f"{entry!r} must be like 10.0.0.0/8, models.internal:8000 or 127.0.0.1:11434")
        six, network, host, first, last = found.groups()
        ports = range(int(first), int(last or first) + 1) if first else None
        if ports is not None and not (ports and ports[0] > 0 and ports[-1] < 65536):
            raise ValueError(f"{entry!r} must have ports from 1 to 65535")
        allowance = cls((host or "").rstrip(".").lower(), _network(six or network or host, entry), ports)
        if allowance.loopback and ports is None:
            raise ValueError(f"{entry!r} must name the port: on this machine, only the ports that it names are allowed")
        kind = allowance.network and _never(allowance.network[0])
        if allowance.network and kind and kind == _never(allowance.network[-1]):
            raise ValueError(f"{entry!r} is {kind}, which is never called")
        return allowance

    @property
    def loopback(self) -> bool:
        return self.host == "localhost" or (self.network is not None and self.network.is_loopback)

    def covers(self, host: str, ip: IP, port: int) -> bool:
        """True for an address of that host or network, on one of the ports."""
        named = self.host == host if self.network is None else ip.version == self.network.version and ip in self.network
        return named and (self.ports is None or port in self.ports)

    def covers_here(self, host: str, ip: IP, port: int) -> bool:
        """True for an address of this machine whose port is named."""
        if self.ports is None or port not in self.ports:
            return False
        return (self.loopback and ip.is_loopback) or self.covers(host, ip, port)


def _network(text: str, entry: str) -> Network | None:
    """None for the name of a host."""
    try:
        return ip_network(text)
    except ValueError as error:
        if "/" in text or ":" in text or text.replace(".", "").isdigit():
            raise ValueError(f"{entry!r} is not a network: {error}") from None
    return None


def allowances(text: str) -> list[Allowance]:
    """Those of a setting, separated by commas. Raises: ValueError."""
    return [Allowance.parse(entry.strip()) for entry in text.split(",") if entry.strip()]


def plain(address: str) -> IP:
    """An address as it is connected to: without a zone, and an IPv4 address that is written as an IPv6 one as such."""
    ip = ip_address(address.partition("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def is_public(ip: IP) -> bool:
    if isinstance(ip, IPv6Address) and ip in _NAT64:
        return is_public(IPv4Address(int(ip) & 0xFFFFFFFF))
    if isinstance(ip, IPv6Address) and ip not in _UNICAST:
        return False
    special = any(ip.version == network.version and ip in network for network in _NOT_PUBLIC)
    return ip.is_global and not special and not _never(ip)


def _never(ip: IP) -> str | None:
    """The kind of an address that is never called."""
    if isinstance(ip, IPv6Address) and ip in _COMPATIBLE and not ip.is_loopback and not ip.is_unspecified:
        return TUNNEL
    return next((kind for network, kind in _NETWORKS if ip.version == network.version and ip in network), None)


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of what may be called: `own` are the addresses that our servers listen on, `here` those of this machine."""

    allowed: Collection[Allowance] = ()
    own: Collection[tuple[IP, int]] = ()
    here: Collection[IP] = ()

    def refusal(self, host: str, ip: IP, port: int, *, local_models: bool) -> str | None:
        """The rule that an address breaks; None when it may be called.

        `local_models`: the ports `LOCAL_MODELS` on loopback are allowed.
        """
        if isinstance(ip, IPv6Address) and ip in _NAT64:
            return self.refusal(host, IPv4Address(int(ip) & 0xFFFFFFFF), port, local_models=local_models)
        if kind := _never(ip):
            return f"is {kind}, which is never called"
        # Last, so that a refusal does not tell where our servers are.
        return self._not_allowed(host, ip, port, local_models) or self._is_own(ip, port)

    def _not_allowed(self, host: str, ip: IP, port: int, local_models: bool) -> str | None:
        entry = f"{SETTING}={_written(ip)}:{port}"
        if ip.is_loopback or ip in self.here:
            if local_models and ip.is_loopback and port in LOCAL_MODELS:
                return None
            if any(allowance.covers_here(host, ip, port) for allowance in self.allowed):
                return None
            return f"is on this machine; the operator can allow the port with {entry}"
        if is_public(ip) or any(allowance.covers(host, ip, port) for allowance in self.allowed):
            return None
        return f"is not a public address; the operator can allow it with {entry}"

    def _is_own(self, ip: IP, port: int) -> str | None:
        here = self._is_here(ip)
        if any(at == port and (own == ip or (here and self._is_here(own))) for own, at in self.own):
            return "is an address of Headrace's own servers, which is never called"
        return None

    def _is_here(self, ip: IP) -> bool:
        return ip.is_loopback or ip.is_unspecified or ip in self.here


def _written(ip: IP) -> str:
    return f"[{ip}]" if ip.version == 6 else str(ip)
