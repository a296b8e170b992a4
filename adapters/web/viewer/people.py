"""Accounts as the log has them: found by an e-mail address, checked by a password."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from adapters.jetstream.client import Client, NoOutcome, NotSent
from adapters.privacy import passwords
from adapters.web.viewer.backend import Backend
from domain.access.account import Account, address
from domain.access.actor import VIEWER
from domain.access.actor import account as actor_of
from domain.access.tenant import HOUSE, Tenant
from domain.log import Subject
from handlers.ports.log import Unavailable
from handlers.repository import folded

log = structlog.get_logger(__name__)


async def account(backend: Backend, id: str) -> Account | None:
    """The account with this id, with all that was acknowledged. Raises: Unavailable."""
    subject = Subject(HOUSE, Account.TOPIC, id)
    commits = await backend.store.load(subject)
    after = commits[-1].position.sequence if commits else 0
    return folded(Account, [*commits, *await backend.store.load_from_leader(subject, after=after)])


async def signed_in(backend: Backend, email: str, password: str) -> Account | None:
    """The active account with this address and password. It takes as long where there is none.

    Raises: Busy, Unavailable.
    """
    if backend.keys is None:
        return None
    id, _ = await backend.keys.last_person(HOUSE, address(email))
    found = await account(backend, id)
    right = await passwords.check(password, found.password if found and found.is_active else "")
    if not found or not right:
        return None
    return await _rehashed(backend, found, password) if passwords.is_outdated(found.password) else found


async def _rehashed(backend: Backend, found: Account, password: str) -> Account:
    """The account with its password hashed with the parameters of today. Like any change of it, this ends its sessions.

    Where it cannot be done now, the next sign-in does it.
    """
    try:
        payload = {"account": found.id, "password": await passwords.rehash(password)}
        outcome = await Client(backend.nc, HOUSE, actor_of(found.id), door=VIEWER).send(
            "account.change_password", payload
        )
        if outcome["status"] == "accepted":
            return await account(backend, found.id) or found
        log.warning("password not rehashed", account=found.id, code=outcome["code"])
    except (passwords.Busy, NoOutcome, NotSent, Unavailable) as error:
        log.warning("password not rehashed", account=found.id, reason=str(error))
    return found


def invitation(tenant: Tenant | None, digest: str) -> dict[str, str] | None:
    """The open invitation of a tenant with this digest: its role and end."""
    found = tenant.invitations.get(digest) if tenant else None
    return found if found and datetime.fromisoformat(found["ends_at"]) > datetime.now(UTC) else None
