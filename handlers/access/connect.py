"""Judges who may connect to the bus, and which commands a connection may send.

A connection reads all outcomes and answers of its tenant, so that only what covers the whole tenant may connect.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime

from domain.access.actor import key as key_actor
from domain.access.actor import service
from domain.access.permissions import IN_ARCHIVES, OF_SERVICES
from domain.access.register import Register
from domain.access.tenant import HOUSE
from handlers.access.may import permissions
from handlers.routes import ROUTES


@dataclass(frozen=True, slots=True)
class Grant:
    """A connection as an actor of a tenant."""

    tenant: str
    actor: str
    proof: str
    """SHA-256 of the API key, in hex, or the issue of the login's password."""
    commands: tuple[str, ...]


def by_key(register: Register, digest: bytes, now: datetime) -> Grant | None:
    """The connection that the API key with this SHA-256 has, None for none."""
    key = register.key(digest, now)
    if key is None or not key.covers_tenant:
        return None
    return _grant(register, key.tenant, key_actor(key.id), digest.hex(), now)


def by_login(register: Register, tenant: str, name: str, now: datetime) -> Grant | None:
    """The connection that an open bus login has, None for none."""
    issue = register.logins.get((tenant, name))
    return _grant(register, tenant, service(name), issue, now) if issue else None


def _grant(register: Register, tenant: str, actor: str, proof: str, now: datetime) -> Grant | None:
    may = permissions(register, tenant, actor, now) & OF_SERVICES
    if tenant == HOUSE or "read" not in may:
        return None
    if (found := register.tenants.get(tenant)) and found.archived:
        may &= IN_ARCHIVES
    return Grant(tenant, actor, proof, commands(may))


def commands(may: Set[str]) -> tuple[str, ...]:
    """The commands that programs with these permissions may send, without those of people who read."""
    return tuple(name for name, route in ROUTES.items() if route.permission in may and route.permission != "read")
