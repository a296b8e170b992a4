"""Admits tenants' people to SQL: their logins are roles in the database as long as the log has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from domain.access.sql_login import SqlLogin, role_of
from domain.log import Commit
from handlers.ports.log import Frozen, Unavailable
from handlers.ports.people import Vault
from handlers.ports.sql_roles import NotAllowed, Role, SqlRoles
from handlers.repository import Repository

log = structlog.get_logger(__name__)

Logins = Callable[[], Awaitable[Iterable[tuple[str, str]]]]
"""Returns tenant and id of every login of the log, revoked ones as well. Raises: Unavailable."""


class _Unreadable(Exception):
    """The verifier of a login cannot be read."""


class AdmitSql:
    def __init__(self, repository: Repository, vault: Vault, roles: SqlRoles) -> None:
        self._repository = repository
        self._vault = vault
        self._roles = roles

    async def __call__(self, commit: Commit) -> None:
        """React to a change of a login by writing its state now, whichever commit that is.

        Raises: Unavailable; NotAllowed, ValueError when its role cannot be made.
        """
        await self._write(commit.subject.tenant, commit.subject.id)

    async def all(self, logins: Logins) -> None:
        """Bring the roles up to date with the log: a database that lost them has them again, and no others.

        A login that cannot be read, or whose role cannot be made, stays as it is, with a warning. Raises: Unavailable.
        """
        held = await self._roles.held()  # first: what is there by now is in the log that is read afterwards
        left = {role for role, found in held.items() if found.tenant}
        for tenant, id in await logins():
            left.discard(role_of(tenant, id))
            try:
                await self._compare(tenant, id, held)
            except (NotAllowed, Frozen, _Unreadable) as error:
                log.warning("not admitted", tenant=tenant, login=id, reason=str(error))
        for role in left:
            try:
                await self._roles.end(role)
            except NotAllowed as error:
                log.warning("not ended", role=role, reason=str(error))

    async def _compare(self, tenant: str, id: str, held: Mapping[str, Role]) -> None:
        """Write the state of a login whose role differs from it. Raises: Unavailable, NotAllowed, _Unreadable."""
        login = await self._repository.get(SqlLogin, tenant, id)
        there = held.get(role_of(tenant, id))
        if login is None or not self._differs(tenant, login, there):
            return
        if there and there.tenant not in (None, tenant):
            await self._roles.end(login.role)  # a role never changes its tenant
        await self._write(tenant, id)

    def _differs(self, tenant: str, login: SqlLogin, there: Role | None) -> bool:
        if login.deleted:
            return there is not None
        try:
            expected = self._vault.open(tenant, login.sealed_verifier)
        except (Unavailable, ValueError) as error:  # another secret has sealed it, such as before a restore
            raise _Unreadable(str(error)) from error
        return there is None or there.tenant != tenant or there.verifier not in (None, expected)

    async def _write(self, tenant: str, id: str) -> None:
        login = await self._repository.get(SqlLogin, tenant, id)
        if login and not login.deleted:
            verifier = self._vault.open(tenant, login.sealed_verifier)
            await self._roles.make(tenant, login.role, verifier)
            login = await self._repository.get(SqlLogin, tenant, id)  # another worker may have ended it meanwhile
        if login and login.deleted:
            await self._roles.end(login.role)
