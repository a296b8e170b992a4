"""The open bus logins of all tenants, read from the log."""

from __future__ import annotations

from nats.aio.client import Client

from adapters.jetstream.aggregates import every
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from domain.access.bus_login import BusLogin
from handlers.repository import Repository


async def open_logins(nc: Client, keys: JetStreamKeys) -> dict[str, dict[str, str]]:
    """The issue of each open login, by tenant and name. Raises: Unavailable."""
    repository = Repository(JetStreamEventStore(nc, keys), JetStreamSnapshots(nc, keys))
    found: dict[str, dict[str, str]] = {}
    async for tenant, login in every(nc, repository, BusLogin):
        if not login.deleted:
            found.setdefault(tenant, {})[login.id] = login.issue
    return found
