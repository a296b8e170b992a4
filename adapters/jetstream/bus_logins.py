"""The open bus logins of all tenants, read from the log."""

from __future__ import annotations

import nats.errors
from nats.aio.client import Client

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from domain.access.bus_login import BusLogin
from domain.log import EVENTS
from handlers.ports.log import Unavailable
from handlers.repository import Repository


async def open_logins(nc: Client, keys: JetStreamKeys) -> dict[str, dict[str, str]]:
    """The issue of each open login, by tenant and name. Raises: Unavailable."""
    try:
        subjects = f"evt.*.{BusLogin.TOPIC}.*"
        info = await nc.jetstream().stream_info(EVENTS, subjects_filter=subjects)
    except nats.errors.Error as error:
        raise Unavailable(f"Stream {EVENTS} cannot be read: {error!r}") from error
    repository = Repository(JetStreamEventStore(nc, keys), JetStreamSnapshots(nc, keys))
    found: dict[str, dict[str, str]] = {}
    for subject in sorted(info.state.subjects or {}):
        _, tenant, _, name = subject.split(".")
        login = await repository.get(BusLogin, tenant, name)
        if login is not None and not login.deleted:
            found.setdefault(tenant, {})[name] = login.issue
    return found
